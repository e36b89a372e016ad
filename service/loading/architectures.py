"""Owns where the architecture of a weights-only file comes from: a JSON, another model's file, or a builder.

Source: `Model.to_json` of any Keras; keras/src/legacy/saving/legacy_h5_format.py of Keras 3.15.1.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras

from service.errors import LoadError
from service.loading import archive, hdf5
from service.loading.config_text import parse
from service.loading.legacy import Origin
from service.loading.old_defaults import run_as_of
from service.loading.python_files import failed, run_file
from service.loading.quarantine import first_look
from service.loading.vetting import without_compilation

_MODEL_FILES = (".h5", ".hdf5", ".keras")


@dataclass(frozen=True, slots=True)
class Topology:
    """A model's config and where it is from.

    Args:
        config: `{"class_name": ..., "config": ...}`, without what belongs to training.
        origin: what its file, or else the file of the weights, says of its writer.
        sha256: of the file that holds the config apart, in hexadecimal.
    """

    config: dict[str, Any]
    origin: Origin
    sha256: str = ""


def origin_of(contents: hdf5.Contents) -> Origin:
    """What a file of weights says of its writer; in Keras 3's layout only by how it names its groups."""
    if contents.kind != hdf5.KERAS3_WEIGHTS:
        return Origin(contents.keras_version, contents.backend)
    by_tf_keras = any(array.path.startswith("_layer_checkpoint_dependencies") for array in contents.arrays)
    return Origin("2.12.0" if by_tf_keras else "3", contents.backend)


def found(name: str, folders: Sequence[Path]) -> Path:
    """The file of this name in the first folder that has it.

    Raises:
        LoadError: none has it.
    """
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    places = " or ".join(str(folder) for folder in dict.fromkeys(folders))
    raise LoadError(
        f"Expected the architecture {name} in {places}. Received: nothing there.",
        mend=f"Put {name} into the model's folder.",
    )


def read_topology(path: Path, weights: Origin) -> Topology:
    """The config in a JSON file, or in another whole model's `.h5` or `.keras`.

    Args:
        path: the file.
        weights: what the file of the weights says of its writer.

    Raises:
        LoadError: the file is damaged or holds no config.
    """
    if path.suffix.lower() in _MODEL_FILES:
        first_look(path)
        text, origin = _of_model(path)
    else:
        text, origin = _text(path), Origin()
    config = without_compilation(parse(text, path.name))
    version = origin.version or config.get("keras_version") or weights.version
    backend = origin.backend or config.get("backend") or weights.backend
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Topology(config, Origin(version, backend), sha256)


def _of_model(path: Path) -> tuple[str, Origin]:
    if archive.is_archive(path):
        return archive.read_config(path), Origin("3")
    contents = hdf5.look(path)
    if contents.config is None:
        raise LoadError(
            f"Expected a whole model in {path.name}, whose architecture is wanted. Received: weights only.",
            mend="Name a file that model.save wrote.",
        )
    return contents.config, Origin(contents.keras_version or "1", contents.backend)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise LoadError(
            f"Expected JSON in {path.name}. Received: {error}.", mend="Write it with model.to_json()."
        ) from error


def build_with(path: Path, name: str, contents: hdf5.Contents) -> tuple[keras.Model, tuple[str, ...]]:
    """The model that a builder returns, with the layers' defaults as they were, and what that changed.

    A builder may take `keras_version` and `backend`: what the file of the weights says of its writer.

    Args:
        path: the builder's Python file.
        name: of the function in it.
        contents: what the file of the weights holds.

    Raises:
        LoadError: there is no such function, it raises, or it returns no built model.
    """
    function = getattr(run_file(path), name, None)
    if not callable(function):
        raise LoadError(
            f"Expected a function {name} in {path.name}. Received: {type(function).__name__}.",
            mend=f"Define {name}() in {path.name}; it returns a keras.Model.",
        )
    origin = origin_of(contents)
    shapes = [[array.shape for array in layer.arrays] for layer in contents.layers]
    told = {"keras_version": origin.version, "backend": origin.backend}
    try:
        model, repairs = run_as_of(origin, shapes, partial(function, **_taken(function, told)))
    except LoadError:
        raise
    except (Exception, SystemExit) as error:  # the operator's code may raise anything
        raise failed(path, error) from error
    if not isinstance(model, keras.Model) or not model.built:
        raise LoadError(
            f"Expected a built keras.Model from {name}(). Received: {type(model).__name__}.",
            mend=f"Let {name}() return a model with keras.Input, or one that was built with model.build.",
        )
    return model, repairs


def _taken(function: Any, told: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    names = {parameter.name for parameter in parameters}
    return {key: value for key, value in told.items() if takes_all or key in names}
