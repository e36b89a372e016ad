"""Owns the layers that need TensorFlow itself: operators by name, time-major sequences, old bilinear resizing.

Source: keras-team/tf-keras@v2.21.0 `tf_keras/layers/core/tf_op_layer.py`; keras-team/keras@2.3.1
`keras/backend/tensorflow_backend.py`, resize_images.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from service.loading.legacy.operators import SYMBOLS

_SLICE = {"start", "stop", "step"}
_ELLIPSIS = {"class_name": "__ellipsis__"}


class TensorFlowOperator(keras.layers.Layer):  # type: ignore[misc]  # Keras publishes no types
    """One of TensorFlow's functions, by name.

    Args:
        symbol: a name of `operators.SYMBOLS`.
        **kwargs: of Layer.

    Raises:
        ValueError: any other name.
    """

    def __init__(self, symbol: str, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "autocast": False})
        if symbol not in SYMBOLS:
            raise ValueError(f"Expected an operator of the list of allowed ones. Received: {symbol!r}.")
        self.symbol = symbol
        self.function = reduce(getattr, symbol.split("."), tf)
        self.built = True

    def call(self, tensors: list[Any], arguments: dict[str, Any]) -> Any:
        """The function of `arguments`: `first`, and `named` ones; `{"tensor": 1}` stands for the second tensor."""
        first, named = _filled(arguments["first"], tensors), _filled(arguments["named"], tensors)
        return self.function(first, **named)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = super().get_config()
        return {key: value for key, value in config.items() if key != "autocast"} | {"symbol": self.symbol}


def _filled(value: Any, tensors: list[Any]) -> Any:
    """Tensors in their places, and slices, which are stored as dicts, as slices."""
    if isinstance(value, dict):
        if set(value) == {"tensor"}:
            return tensors[value["tensor"]]
        if value == _ELLIPSIS:
            return ...
        if set(value) == _SLICE:
            return slice(*(_filled(value[part], tensors) for part in ("start", "stop", "step")))
        return {key: _filled(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        items = [_filled(item, tensors) for item in value]
        return tuple(items) if any(item is ... or isinstance(item, slice) for item in items) else items
    return value


class TimeMajor(keras.layers.Layer):  # type: ignore[misc]  # Keras publishes no types
    """A recurrent layer for sequences `(T, N, C)`."""

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layer = keras.layers.deserialize(layer) if isinstance(layer, dict) else layer

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Builds the layer for `(N, T, C)`."""
        self.layer.build((input_shape[1], input_shape[0], *input_shape[2:]))

    def call(self, sequences: Any, initial_state: Any = None) -> Any:
        """`(T, N, C)` in; out what the layer gives, sequences turned back to `(T, N, C)`."""
        given = self.layer(ops.swapaxes(sequences, 0, 1), initial_state=initial_state)
        result, *states = given if isinstance(given, list | tuple) else [given]
        result = ops.swapaxes(result, 0, 1) if self.layer.return_sequences else result
        return [result, *states] if states else result

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "layer": keras.layers.serialize(self.layer)}


class CornerUpSampling2D(keras.layers.UpSampling2D):  # type: ignore[misc]  # Keras publishes no types
    """Bilinear enlargement as TensorFlow 1 did it: output pixel `i` reads place `i / factor` of the input."""

    def call(self, inputs: Any) -> Any:
        """`(N, H, W, C)` in, `(N, H * factor, W * factor, C)` out, or both with channels first."""
        first = self.data_format == "channels_first"
        pictures = ops.transpose(inputs, (0, 2, 3, 1)) if first else inputs
        height, width = tf.shape(pictures)[1] * self.size[0], tf.shape(pictures)[2] * self.size[1]
        pictures = tf.compat.v1.image.resize_bilinear(pictures, [height, width])
        return ops.transpose(pictures, (0, 3, 1, 2)) if first else pictures
