"""Owns the layer that `pairs` is made of: how two codes are compared."""

from __future__ import annotations

from typing import Any

import keras


class LowRankProduct(keras.layers.Layer):
    """Products of two vectors' projections: `(left @ left_kernel) * (right @ right_kernel) + bias`.

    A Dense layer over both vectors can only add what it sees; whether two digits are the same, and what they
    sum to, depends on pairs of them. A full bilinear form would need a matrix a unit; this one has rank 1.

    Args:
        units: the number of products.
        **kwargs: `name`, `dtype`, `trainable`, as any layer.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: list[tuple[int | None, ...]]) -> None:
        """Creates both kernels and the bias for `[(N, A), (N, B)]`."""
        left, right = input_shape
        self.left_kernel = self.add_weight(shape=(left[-1], self.units), name="left_kernel")
        self.right_kernel = self.add_weight(shape=(right[-1], self.units), name="right_kernel")
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, inputs: list[Any]) -> Any:
        """`[(N, A), (N, B)]` to `(N, units)`."""
        left, right = inputs
        return (
            keras.ops.matmul(left, self.left_kernel) * keras.ops.matmul(right, self.right_kernel) + self.bias
        )

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """`[(N, A), (N, B)]` to `(N, units)`."""
        return (input_shape[0][0], self.units)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "units": self.units}
