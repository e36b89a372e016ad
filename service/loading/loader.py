"""Owns the way from a file to a built Keras model: `.h5`, `.hdf5` and `.keras`, whole models and weights alone.

The kind is told by content. The config is judged before anything is built from it, one model's custom objects
are gone before the next one loads, and whatever goes wrong becomes a `LoadError` that says what would mend it.

Source: keras/src/saving/saving_api.py, keras/src/saving/saving_lib.py and
keras/src/legacy/saving/legacy_h5_format.py of Keras 3.15.1.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
from keras.src.saving import saving_lib

from service.errors import LoadError
from service.loading import archive, hdf5
from service.loading.architectures import Topology, build_with, found, origin_of, read_topology
from service.loading.building import Recipe, build, compile_as_saved, explain, judge
from service.loading.builtin_objects import builtin_objects
from service.loading.config_text import parse
from service.loading.corrected_add import correct_add
from service.loading.cpu_kernels import complete_cpu_kernels
from service.loading.custom_objects import isolated, offered, read_objects
from service.loading.fallback import OldFile, OldModel, instead, load_old
from service.loading.legacy import Origin
from service.loading.old_code import old_lines
from service.loading.quarantine import first_look
from service.loading.rehearsal import refuse_giants
from service.loading.theano_padding import refuse_theano_padding
from service.loading.vetting import without_compilation
from service.loading.weights import assign_keras3, assign_legacy, writer_of
from service.model_config import ModelConfig
from service.threads import Turn

_UNASSIGNED = (  # what Keras only warns of; saving_lib._load_container_state, Model.build_from_config
    "freshly-initialized weights",
    "cannot be built automatically",
)
_ONE_LOAD = Turn()  # Keras has one registry of custom objects for the whole process


@dataclass(frozen=True)
class LoadedModel:
    """A built model and what is known of its file.

    Args:
        model: every weight assigned.
        sha256: of the file's bytes, in hexadecimal.
        repairs: what was changed in the config of an old Keras, one sentence each.
        compiled: whether loss, metrics and optimiser were loaded as well.
        notes: what Keras warned of while it loaded.
        library: whose layers compute: `keras3` or `tf_keras`.
        reason: why it is not Keras 3 that computes.
        original: the model of `tf_keras` behind `model`.
    """

    model: keras.Model
    sha256: str
    repairs: tuple[str, ...] = ()
    compiled: bool = False
    notes: tuple[str, ...] = ()
    library: str = "keras3"
    reason: str = ""
    original: Any = None


@dataclass(frozen=True, slots=True)
class _Source:
    """A file to load and what belongs to it."""

    path: Path
    sha256: str
    config: ModelConfig
    object_files: tuple[Path, ...]
    folders: tuple[Path, ...]
    objects: dict[str, Any] = field(default_factory=dict)

    @property
    def references(self) -> list[str]:
        return [name for name in self.config.custom_objects if ":" in name]

    def as_old(self) -> OldFile:
        theano = {"auto": None, "theano": True}.get(self.config.kernels, False)
        architecture = self.config.architecture or ":"

        def topology(contents: hdf5.Contents) -> Topology:
            return read_topology(found(architecture, self.folders), origin_of(contents))

        apart = None if ":" in architecture else topology
        return OldFile(self.path, self.object_files, self.references, theano, apart)


def load(
    path: Path, config: ModelConfig, object_files: Sequence[Path] = (), model_dir: Path | None = None
) -> LoadedModel:
    """The model in a file.

    Args:
        path: the file; its kind is told by its content.
        config: the model's settings, of which `compile`, `allow_lambda` and `architecture` count here.
        object_files: Python files that define custom objects; a later one wins.
        model_dir: the model's folder, where `architecture` is looked for after the file's own folder.

    Raises:
        LoadError: the file cannot be loaded; `mend` says what would help.
    """
    correct_add()
    complete_cpu_kernels()
    folders = (path.parent,) if model_dir is None else (path.parent, model_dir)
    try:
        with _ONE_LOAD, isolated(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            first_look(path)
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            source = _Source(path, sha256, config, tuple(object_files), folders)
            return _by_either(source, caught)
    except LoadError:
        raise
    except (Exception, SystemExit) as error:  # a custom object's code may raise anything
        raise explain(error) from error


def _by_either(source: _Source, caught: Sequence[warnings.WarningMessage]) -> LoadedModel:
    """With Keras 3, or with `tf_keras` where the operator says so or Keras 3 fails."""
    if source.config.loader == "tf_keras":
        return _by_tf_keras(source, load_old, 'model.toml says loader = "tf_keras".')
    try:
        return _by_keras3(source, caught)
    except (Exception, SystemExit) as error:
        failure = error if isinstance(error, LoadError) else _with_old_lines(explain(error), source)
        if source.config.loader == "keras3" or source.config.compile:
            raise failure from error
        load = partial(instead, failure)
        return _by_tf_keras(source, load, f"Keras 3 does not load it: {failure.message} {failure.mend}")


def _by_keras3(source: _Source, caught: Sequence[warnings.WarningMessage]) -> LoadedModel:
    objects = builtin_objects() | read_objects(source.object_files, source.references)
    source = replace(source, objects=objects)
    model, repairs = (_from_archive if archive.is_archive(source.path) else _from_hdf5)(source)
    warned = [str(warning.message) for warning in caught]
    return _checked(model, source, repairs, warned + list(filter(None, map(old_lines, source.object_files))))


def _with_old_lines(failure: LoadError, source: _Source) -> LoadError:
    """A failure of Keras itself may have its cause in custom objects that were written for an older one."""
    told = [*filter(None, [failure.mend]), *filter(None, map(old_lines, source.object_files))]
    return LoadError(failure.message, mend="\n".join(told))


def _by_tf_keras(source: _Source, load: Callable[[OldFile], OldModel], reason: str) -> LoadedModel:
    if source.config.compile:
        raise LoadError(
            'Expected Keras 3 for compile = true. Received: loader = "tf_keras".',
            mend="Remove compile = true from model.toml; serving needs no loss, metrics or optimiser.",
        )
    old = load(source.as_old())
    repairs = ("tf-keras: computed by tf_keras, Keras 2's own layers.",)
    return LoadedModel(
        old.model, source.sha256, repairs, library="tf_keras", reason=reason, original=old.original
    )


def _checked(model: Any, source: _Source, repairs: tuple[str, ...], warned: list[str]) -> LoadedModel:
    if not isinstance(model, keras.Model):
        raise LoadError(
            f"Expected a keras.Model. Received: {type(model).__name__}.", mend="Save the model that holds it."
        )
    notes = tuple(dict.fromkeys(warned))
    for note in notes:
        if any(words in note for words in _UNASSIGNED):
            raise LoadError(
                f"Expected values for all weights. Received: {note}",
                mend="Save the model again with a current Keras.",
            )
    if source.config.compile and not model.compiled:
        raise LoadError(
            "Expected loss and metrics in the file, as compile = true asks for. Received: none.",
            mend="Remove compile = true from model.toml, or save the model after model.compile.",
        )
    return LoadedModel(model, source.sha256, repairs, bool(model.compiled), notes)


def _from_archive(source: _Source) -> tuple[Any, tuple[str, ...]]:
    inside = archive.look_into(source.path)
    stored = parse(inside.config, source.path.name)
    config = stored if source.config.compile else without_compilation(stored)
    recipe = judge(
        config,
        origin=Origin(version="3"),
        sha256=source.sha256,
        allow_lambda=source.config.allow_lambda,
        objects=source.objects,
    )
    refuse_giants(recipe, inside.contents.arrays)
    changed = recipe.config != {**stored, "compile_config": recipe.config.get("compile_config")}
    with (
        offered(recipe.objects),
        archive.with_config(source.path, json.dumps(recipe.config))
        if changed
        else source.path.open("rb") as file,
    ):
        model = saving_lib.load_model(
            file, recipe.objects, compile=source.config.compile, safe_mode=recipe.safe
        )
    return model, recipe.repairs


def _from_hdf5(source: _Source) -> tuple[Any, tuple[str, ...]]:
    contents = hdf5.look(source.path)
    if contents.kind != hdf5.MODEL:
        return _from_weights(source, contents)
    origin = Origin(contents.keras_version, contents.backend)
    recipe = judge(
        parse(contents.config or "", source.path.name),
        origin=origin,
        sha256=source.sha256,
        allow_lambda=source.config.allow_lambda,
        objects=source.objects,
        weights=contents.weights_by_layer(),
    )
    refuse_giants(recipe, contents.arrays)
    writer = writer_of(contents, origin, source.config.kernels)
    if writer.theano:
        refuse_theano_padding(recipe.config)
    model = build(recipe)
    layouts = assign_legacy(model, source.path, contents, recipe.names, writer)
    if source.config.compile and contents.training_config is not None:
        compile_as_saved(model, contents.training_config, recipe.objects)
    return model, recipe.repairs + layouts


def _from_weights(source: _Source, contents: hdf5.Contents) -> tuple[Any, tuple[str, ...]]:
    architecture = source.config.architecture
    if architecture is None:
        raise LoadError(
            "Expected a whole model. Received: weights without an architecture.",
            mend='Put model.json (model.to_json()) beside it and architecture = "model.json" into model.toml, '
            'or builder.py with get_model() and architecture = "builder:get_model".',
        )
    origin = origin_of(contents)
    module, _, function = architecture.rpartition(":")
    layer_names: dict[str, str] = {}
    with offered(source.objects):
        if module:
            model, repairs = build_with(found(f"{module}.py", source.folders), function, contents)
        else:
            recipe, origin = _topology(source, found(architecture, source.folders), origin, contents)
            if writer_of(contents, origin, source.config.kernels).theano:
                refuse_theano_padding(recipe.config)
            model, repairs, layer_names = build(recipe), recipe.repairs, recipe.names
        if contents.kind == hdf5.KERAS3_WEIGHTS:
            assign_keras3(model, source.path, contents)
        else:
            writer = writer_of(contents, origin, source.config.kernels)
            repairs += assign_legacy(model, source.path, contents, layer_names, writer)
    return model, repairs


def _topology(source: _Source, path: Path, origin: Origin, contents: hdf5.Contents) -> tuple[Recipe, Origin]:
    topology = read_topology(path, origin)
    recipe = judge(
        topology.config,
        origin=topology.origin,
        sha256=topology.sha256,
        allow_lambda=source.config.allow_lambda,
        objects=source.objects,
        weights=contents.weights_by_layer(),
    )
    refuse_giants(recipe, contents.arrays)
    return recipe, topology.origin
