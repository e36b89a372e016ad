"""Owns the locally connected layers that Keras 3 dropped: convolutions whose weights differ from place to place.

Source: keras-team/keras@2.2.4 `keras/layers/local.py` and `keras/backend/tensorflow_backend.py`, local_conv1d and
local_conv2d.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

Shape = tuple[int | None, ...]


class _LocallyConnected(keras.layers.Layer):  # type: ignore[misc]  # Keras publishes no types
    """What both layers share; `rank` is the number of spatial axes."""

    rank = 1

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        *,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        activation: Any = None,
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if padding != "valid":
            raise ValueError(f"Expected padding='valid'. Received: padding={padding!r}.")
        self.filters, self.use_bias = filters, use_bias
        self.kernel_size, self.strides = self._sizes(kernel_size), self._sizes(strides)
        self.data_format = data_format or "channels_last"
        self.activation = keras.activations.get(activation)

    def _sizes(self, value: Any) -> tuple[int, ...]:
        return (value,) * self.rank if isinstance(value, int) else tuple(value)

    def build(self, input_shape: Shape) -> None:
        """Weights: kernel (places, window * C, filters), bias (*spatial shape of the output, filters)."""
        *spatial, channels = self._last(list(input_shape[1:]))
        if None in spatial:
            raise ValueError(
                f"Expected known sizes of the spatial axes. Received: input_shape={input_shape}."
            )
        windows = zip(spatial, self.kernel_size, self.strides, strict=True)
        self.out = tuple((size - kernel) // stride + 1 for size, kernel, stride in windows)
        shape = (int(np.prod(self.out)), int(np.prod(self.kernel_size)) * channels, self.filters)
        self.kernel = self.add_weight(shape=shape, initializer="zeros", name="kernel")
        if self.use_bias:
            self.bias = self.add_weight(shape=(*self.out, self.filters), initializer="zeros", name="bias")

    def _last(self, sizes: list[Any]) -> list[Any]:
        return sizes if self.data_format == "channels_last" else [*sizes[1:], sizes[0]]

    def call(self, inputs: Any) -> Any:
        """`(N, *spatial, C)` in, `(N, *spatial, filters)` out, or both with channels first."""
        first = self.data_format == "channels_first"
        rows = ops.einsum("npf,pfo->npo", self._windows(inputs, first=first), self.kernel)
        outputs = ops.reshape(rows, (-1, *self.out, self.filters))
        if self.use_bias:
            outputs = outputs + self.bias
        if first:
            outputs = ops.moveaxis(outputs, -1, 1)
        return self.activation(outputs)

    def _windows(self, inputs: Any, *, first: bool) -> Any:
        """`(N, places, window)`; a window's numbers are in the order of the input's own axes."""
        start = 2 if first else 1
        for axis in range(self.rank):
            places = np.arange(self.out[axis])[:, None] * self.strides[axis] + np.arange(
                self.kernel_size[axis]
            )
            at = start + 2 * axis  # each axis before became two: place and offset
            taken = ops.take(inputs, places.reshape(-1), axis=at)
            shape = list(taken.shape)
            shape[at : at + 1] = places.shape
            inputs = ops.reshape(taken, (-1, *shape[1:]))
        places_first = [start + 2 * axis for axis in range(self.rank)]
        others = [axis for axis in range(1, len(inputs.shape)) if axis not in places_first]
        window = self.kernel.shape[1]
        return ops.reshape(
            ops.transpose(inputs, (0, *places_first, *others)), (-1, self.kernel.shape[0], window)
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "data_format": self.data_format,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
        }
        return {**super().get_config(), **own}


class LocallyConnected1D(_LocallyConnected):
    """Of sequences `(N, T, C)`."""


class LocallyConnected2D(_LocallyConnected):
    """Of pictures `(N, H, W, C)`, or `(N, C, H, W)` with channels first."""

    rank = 2
