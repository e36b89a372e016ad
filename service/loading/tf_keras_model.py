"""Owns the way from an old file to a `tf_keras` model, for what Keras 3 cannot bring to life exactly.

`tf_keras` is Keras 2 as a package of its own; it is optional and imported only here, when a file needs it. Its own
`load_model` runs whatever code a file holds; so the config is judged, built under its safe mode, never with room
for more weights than the file has, and filled by its reader of weights.

Source: tf_keras/src/saving/legacy/hdf5_format.py of tf_keras 2.21.0; keras-team/keras@2.2.4
`keras/engine/saving.py` (`_need_convert_kernel`) for files of the Theano backend.
"""
# ruff: noqa: SLF001  -- tf_keras lists nested layers in a private method

from __future__ import annotations

import importlib
import importlib.util
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorflow as tf

from service.errors import LoadError
from service.loading.hdf5 import MODEL, Contents
from service.loading.node_order import refuse_endless_graphs
from service.loading.tf_keras_vetting import as_keras2, refuse_for_tf_keras
from service.loading.vetting import names, refuse_strangers

PACKAGE = "tf_keras==2.21.0"
INSTALL = f"pip install --no-deps {PACKAGE}"  # its dependency is a second TensorFlow

_SPARE_VALUES = 2**20
_CONVOLUTIONS = {
    "Conv1D": 1,
    "Conv2D": 1,
    "Conv3D": 1,
    "Conv2DTranspose": 1,
    "ConvLSTM2D": 2,
}  # kernels of each


def is_installed() -> bool:
    """Whether the package is there; it is not imported."""
    return importlib.util.find_spec("tf_keras") is not None


def build_tf_keras(
    config: Mapping[str, Any], path: Path, contents: Contents, objects: Mapping[str, Any], *, theano: bool
) -> Any:
    """A model of `tf_keras` with this config and the file's weights.

    Args:
        config: `{"class_name": ..., "config": ...}` of Keras 2 or tf.keras, as it stands in the file.
        path: the file, which was looked through before.
        contents: what it holds, in the legacy layout.
        objects: classes of `tf_keras` and functions, by name.
        theano: whether its convolutions were computed by Theano, with kernels the other way round.

    Raises:
        LoadError: the config holds code, names what nobody defines, or its weights are not the file's.
        Exception: whatever `tf_keras` or a custom object raises.
    """
    objects = _fitting(objects, config)
    refuse_for_tf_keras(config, objects.keys())
    refuse_endless_graphs(config)
    layers = _layer_names()
    refuse_strangers(config, layers=layers, offered=objects.keys(), weights=contents.weights_by_layer())
    model = _built(as_keras2(config, layers), objects, contents)
    _fill(model, path, contents)
    if theano:
        _turn_kernels(model)
    return model


def _library(module: str) -> Any:
    return importlib.import_module(f"tf_keras.src.{module}")


def _layer_names() -> frozenset[str]:
    serialization = _library("layers.serialization")
    serialization.populate_deserializable_objects()
    return frozenset(serialization.LOCAL.ALL_OBJECTS)


def _fitting(objects: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """By every name that the config uses for them: a class may be saved as `package>Name`."""
    return dict(objects) | {
        name: objects[plain]
        for name in names(config)
        if name not in objects and (plain := name.rpartition(">")[2]) in objects
    }


def _built(config: dict[str, Any], objects: Mapping[str, Any], contents: Contents) -> Any:
    scope = _library("saving.serialization_lib").SafeModeScope
    room = 2 * sum(math.prod(array.shape) for array in contents.arrays) + _SPARE_VALUES
    with scope(True), tf.variable_creator_scope(_bounded(room)):
        return importlib.import_module("tf_keras").models.model_from_json(
            json.dumps({key: config[key] for key in ("class_name", "config")}), custom_objects=dict(objects)
        )


def _bounded(room: int) -> Callable[..., Any]:
    """A creator of variables that stops before a config makes more numbers than its file can fill."""
    left = room

    def create(following: Callable[..., Any], **arguments: Any) -> Any:
        nonlocal left
        shape = tf.TensorShape(arguments.get("shape"))
        left -= math.prod(shape) if shape.is_fully_defined() else 0
        if left < 0:
            raise LoadError(
                f"Expected layers of the size that the file has weights for. Received: more than {room} values.",
                mend="Save the model again and copy the whole file.",
            )
        return following(**arguments)

    return create


def _fill(model: Any, path: Path, contents: Contents) -> None:
    with h5py.File(path, "r") as file:
        group = file["model_weights"] if contents.kind == MODEL else file
        _library("saving.legacy.hdf5_format").load_weights_from_hdf5_group(group, model)


def _turn_kernels(model: Any) -> None:
    for layer in model._flatten_layers():
        for weight in layer.weights[: _CONVOLUTIONS.get(type(layer).__name__, 0)]:
            spatial = tuple(range(len(weight.shape) - 2))
            weight.assign(np.flip(weight.numpy(), spatial))


@contextmanager
def restored_registry() -> Iterator[None]:
    """Undoes what custom objects register with `tf_keras`, so that they do not reach the next model."""
    registration = _library("saving.object_registration")
    kept = [(place, dict(place)) for place in _registries(registration)]
    try:
        yield
    finally:
        for place, before in kept:
            place.clear()
            place.update(before)


def _registries(registration: Any) -> list[dict[Any, Any]]:
    return [registration._GLOBAL_CUSTOM_OBJECTS, registration._GLOBAL_CUSTOM_NAMES]
