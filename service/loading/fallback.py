"""Owns serving a file through `tf_keras`: when that is tried, and what comes of it.

It is the second choice. Keras 3 reads nearly every old file once it is repaired; what is left are custom classes
written for Keras 2, and layers that Keras 3 cannot compute exactly. What is served says so, and why.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from service.errors import LoadError
from service.loading import archive, hdf5
from service.loading.config_text import parse
from service.loading.custom_objects import read_objects
from service.loading.old_imports import run_with_tf_keras
from service.loading.tf_keras_mirror import mirror
from service.loading.tf_keras_model import INSTALL, PACKAGE, build_tf_keras, is_installed, restored_registry
from service.loading.tf_keras_vetting import refuse_for_tf_keras
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


def load_old(
    path: Path, object_files: Sequence[Path], references: Sequence[str], *, theano: bool | None = None
) -> OldModel:
    """The model in a `.h5` file of Keras 2 or tf.keras, computed by `tf_keras`.

    Args:
        path: the file, which was looked through before.
        object_files: Python files of custom objects, in which `keras` means `tf_keras`.
        references: `package.module:attribute` of custom objects.
        theano: whether Theano computed its convolutions; `None`: as the file says.

    Raises:
        LoadError: `tf_keras` is not installed, or must not or cannot build this file.
        Exception: whatever `tf_keras` or a custom object raises.
    """
    if not is_installed():
        raise LoadError(
            'Expected tf_keras, as loader = "tf_keras" asks for. Received: no such package.',
            mend=f"{INSTALL}.",
        )
    contents = hdf5.look(path) if not archive.is_archive(path) else None
    if contents is None or contents.config is None or (contents.keras_version or "1")[0] in "13":
        raise LoadError(
            "Expected a whole model of Keras 2 or tf.keras in HDF5. Received: another kind of file.",
            mend='Remove loader = "tf_keras" from model.toml.',
        )
    is_theano = contents.backend == "theano" if theano is None else theano
    config = parse(contents.config, path.name)
    with restored_registry():
        objects = read_objects(object_files, references, run_with_tf_keras)
        original = build_tf_keras(config, path, contents, objects, theano=is_theano)
    return OldModel(mirror(original), original)


def instead(
    failure: LoadError,
    path: Path,
    object_files: Sequence[Path],
    references: Sequence[str],
    *,
    theano: bool | None = None,
) -> OldModel:
    """What `tf_keras` makes of a file that Keras 3 did not load.

    Args:
        failure: why Keras 3 did not.
        path: the file.
        object_files: as for `load_old`.
        references: as for `load_old`.
        theano: as for `load_old`.

    Raises:
        LoadError: the same failure; where installing the package might help, it says so.
    """
    if not _suits(path):
        raise failure
    if not is_installed():
        mend = f"{failure.mend}\nOr serve it with Keras 2's own layers: {INSTALL}."
        raise LoadError(failure.message, mend=mend) from failure
    try:
        return load_old(path, object_files, references, theano=theano)
    except (Exception, SystemExit) as error:  # a custom object's code may raise anything
        _log.info("%s: %s does not load it either: %s", path.name, PACKAGE, error)
        raise failure from error


def _suits(path: Path) -> bool:
    """Whether it is a whole model of Keras 2 whose config holds layers only."""
    if archive.is_archive(path):
        return False
    try:
        contents = hdf5.look(path)
        if contents.config is None or not (contents.keras_version or "1").startswith("2"):
            return False
        config = parse(contents.config, path.name)
        refuse_for_tf_keras(config, names(config))
    except LoadError:
        return False
    return True
