"""Owns serving a file through `tf_keras`: when that is tried, and what comes of it.

It is the second choice. Keras 3 reads nearly every old file once it is repaired; what is left are custom classes
written for Keras 2, and layers that Keras 3 cannot compute exactly. What is served says so, and why.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from service.errors import LoadError
from service.loading import archive, hdf5
from service.loading.architectures import Topology
from service.loading.config_text import parse
from service.loading.custom_objects import read_objects
from service.loading.legacy import Origin, refuse_misshapen
from service.loading.old_imports import run_with_tf_keras
from service.loading.tf_keras_mirror import mirror
from service.loading.tf_keras_model import INSTALL, PACKAGE, build_tf_keras, is_installed, restored_registry
from service.loading.tf_keras_vetting import refuse_for_tf_keras
from service.loading.theano_padding import refuse_theano_padding
from service.loading.vetting import names

_log = logging.getLogger("layertap.models")


@dataclass(frozen=True, slots=True)
class OldModel:
    """A model that `tf_keras` computes.

    Args:
        model: the face that it shows, a `keras.Model`.
        original: the model of `tf_keras` itself.
    """

    model: keras.Model
    original: Any


@dataclass(frozen=True, slots=True)
class OldFile:
    """A file and what belongs to it.

    Args:
        path: the file, which was looked through before.
        object_files: Python files of custom objects, in which `keras` means `tf_keras`.
        references: `package.module:attribute` of custom objects.
        theano: whether Theano computed its convolutions; `None`: as the file says.
        topology: reads the config of a file that holds weights alone; `None` where a builder makes it.
    """

    path: Path
    object_files: Sequence[Path]
    references: Sequence[str]
    theano: bool | None = None
    topology: Callable[[hdf5.Contents], Topology] | None = None


def load_old(file: OldFile) -> OldModel:
    """The model in a `.h5` file of Keras 2 or tf.keras, computed by `tf_keras`.

    Raises:
        LoadError: `tf_keras` is not installed, or must not or cannot build this file.
        Exception: whatever `tf_keras` or a custom object raises.
    """
    if not is_installed():
        raise LoadError(
            'Expected tf_keras, as loader = "tf_keras" asks for. Received: no such package.',
            mend=f"{INSTALL}.",
        )
    contents, saved = _read(file)
    theano = saved.origin.backend == "theano" if file.theano is None else file.theano
    if theano:
        refuse_theano_padding(saved.config)
    with restored_registry():
        objects = read_objects(file.object_files, file.references, run_with_tf_keras)
        original = build_tf_keras(saved.config, file.path, contents, objects, theano=theano)
    return OldModel(mirror(original), original)


def instead(failure: LoadError, file: OldFile) -> OldModel:
    """What `tf_keras` makes of a file that Keras 3 did not load.

    Raises:
        LoadError: the same failure; where installing the package might help, it says so.
    """
    try:
        _, saved = _read(file)
        refuse_for_tf_keras(saved.config, names(saved.config))
    except LoadError:
        raise failure from None
    if not is_installed():
        mend = f"{failure.mend}\nOr serve it with Keras 2's own layers: {INSTALL}."
        raise LoadError(failure.message, mend=mend) from failure
    try:
        return load_old(file)
    except (Exception, SystemExit) as error:  # a custom object's code may raise anything
        _log.info("%s: %s does not load it either: %s", file.path.name, PACKAGE, error)
        raise failure from error


def _read(file: OldFile) -> tuple[hdf5.Contents, Topology]:
    """What the file holds, and its config, which may lie in another one."""
    contents = None if archive.is_archive(file.path) else hdf5.look(file.path)
    if contents is not None and contents.kind != hdf5.KERAS3_WEIGHTS:
        saved = _topology(contents, file)
        if saved is not None and saved.origin.major == 2:
            return contents, saved
    raise LoadError(
        "Expected a model of Keras 2 or tf.keras in HDF5, with its architecture. Received: another kind of file.",
        mend='Remove loader = "tf_keras" from model.toml.',
    )


def _topology(contents: hdf5.Contents, file: OldFile) -> Topology | None:
    if contents.config is not None:
        config = parse(contents.config, file.path.name)
        refuse_misshapen(config)
        return Topology(config, Origin(contents.keras_version, contents.backend))
    return None if file.topology is None else file.topology(contents)
