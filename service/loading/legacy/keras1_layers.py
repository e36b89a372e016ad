"""Owns the layers of Keras 1 and 2 that Keras 3 dropped, with the same mathematics, as Keras 3 layers.

Weights have the shapes and the order of the old layers; `weight_layouts` knows the versions that differ.

Source: keras-team/keras@1.2.2 `keras/layers/core.py`, `advanced_activations.py`, `normalization.py` and
`convolutional.py`; keras-team/keras@2.2.4 for ThresholdedReLU.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Shape = tuple[int | None, ...]


def hard_sigmoid(x: Any) -> Any:
    """`clip(0.2 x + 0.5, 0, 1)`, any shape; Keras 3's function of this name has another slope."""
    return ops.clip(0.2 * x + 0.5, 0.0, 1.0)


class ThresholdedReLU(keras.layers.Layer):  # type: ignore[misc]  # Keras publishes no types
    """`x` where it is above `theta`, 0 elsewhere; any shape."""

    def __init__(self, theta: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.theta = theta

    def call(self, inputs: Any) -> Any:
        """`(N, ...)` in, the same shape out."""
        return inputs * ops.cast(inputs > self.theta, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "theta": self.theta}


class Highway(keras.layers.Layer):  # type: ignore[misc]  # Keras publishes no types
    """`t f(x W + b) + (1 - t) x` with the gate `t = sigmoid(x W_carry + b_carry)`; rows of one size in and out."""

    def __init__(self, activation: Any = None, use_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias

    def build(self, input_shape: Shape) -> None:
        """Weights in Keras 1.2's order: kernel, carry_kernel, bias, carry_bias."""
        size = input_shape[-1]
        self.kernel = self.add_weight(shape=(size, size), initializer="zeros", name="kernel")
        self.carry_kernel = self.add_weight(shape=(size, size), initializer="zeros", name="carry_kernel")
        if self.use_bias:
            self.bias = self.add_weight(shape=(size,), initializer="zeros", name="bias")
            self.carry_bias = self.add_weight(shape=(size,), initializer="zeros", name="carry_bias")

    def call(self, inputs: Any) -> Any:
        """`(N, D)` in, `(N, D)` out."""
        gate, value = ops.matmul(inputs, self.carry_kernel), ops.matmul(inputs, self.kernel)
        if self.use_bias:
            gate, value = gate + self.carry_bias, value + self.bias
        gate = ops.sigmoid(gate)
        return self.activation(value) * gate + (1 - gate) * inputs

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {"activation": keras.activations.serialize(self.activation), "use_bias": self.use_bias}
        return {**super().get_config(), **own}


class MaxoutDense(keras.layers.Layer):  # type: ignore[misc]  # Keras publishes no types
    """The largest of `features` linear functions, a unit at a time."""

    def __init__(self, units: int, features: int = 4, use_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.features, self.use_bias = units, features, use_bias

    def build(self, input_shape: Shape) -> None:
        """Weights: kernel (features, D, units), bias (features, units)."""
        shape = (self.features, input_shape[-1], self.units)
        self.kernel = self.add_weight(shape=shape, initializer="zeros", name="kernel")
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.features, self.units), initializer="zeros", name="bias")

    def call(self, inputs: Any) -> Any:
        """`(N, D)` in, `(N, units)` out."""
        values = ops.einsum("nd,fdu->nfu", inputs, self.kernel)
        return ops.max(values + self.bias if self.use_bias else values, axis=1)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {"units": self.units, "features": self.features, "use_bias": self.use_bias}
        return {**super().get_config(), **own}


class _Learnt(keras.layers.Layer):  # type: ignore[misc]  # Keras publishes no types
    """An activation with weights of a row's shape, or one for all places along the shared axes."""

    def __init__(self, shared_axes: list[int] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.shared_axes = shared_axes

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "shared_axes": self.shared_axes}


class ParametricSoftplus(_Learnt):
    """`alpha softplus(beta x)` with learnt alpha and beta for each place in a row."""

    def build(self, input_shape: Shape) -> None:
        """Weights: alphas, betas, of a row's shape."""
        shape = _shared(input_shape, self.shared_axes)
        self.alphas = self.add_weight(shape=shape, initializer="zeros", name="alphas")
        self.betas = self.add_weight(shape=shape, initializer="zeros", name="betas")

    def call(self, inputs: Any) -> Any:
        """`(N, ...)` in, the same shape out."""
        return ops.softplus(self.betas * inputs) * self.alphas


class SReLU(_Learnt):
    """Linear in the middle, with learnt slopes left of `t_left` and right of `t_left + |t_right|`."""

    def build(self, input_shape: Shape) -> None:
        """Weights: t_left, a_left, t_right, a_right, of a row's shape."""
        shape = _shared(input_shape, self.shared_axes)
        for name in ("t_left", "a_left", "t_right", "a_right"):
            setattr(self, name, self.add_weight(shape=shape, initializer="zeros", name=name))

    def call(self, inputs: Any) -> Any:
        """`(N, ...)` in, the same shape out."""
        width = ops.abs(self.t_right)
        above = ops.minimum(ops.relu(inputs - self.t_left), width)
        below = self.a_left * ops.relu(self.t_left - inputs)
        return self.t_left + above - below + ops.relu(inputs - (self.t_left + width)) * self.a_right


def _shared(input_shape: Shape, axes: list[int] | None) -> tuple[int | None, ...]:
    return tuple(1 if axis in (axes or ()) else size for axis, size in enumerate(input_shape) if axis > 0)


class RowNormalization(keras.layers.Layer):  # type: ignore[misc]  # Keras publishes no types
    """Keras 1's BatchNormalization of mode 1: each row by its own mean and deviation over the last axis.

    The epsilon is added to the variance and to the deviation, as there. The running statistics are kept in the
    file and used by nothing.
    """

    def __init__(self, epsilon: float = 1e-3, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.epsilon, self.axis = epsilon, axis

    def build(self, input_shape: Shape) -> None:
        """Weights in Keras 1's order: gamma, beta, running_mean, running_std."""
        for name in ("gamma", "beta", "running_mean", "running_std"):
            trained = not name.startswith("running")
            weight = self.add_weight(
                shape=(input_shape[self.axis],), initializer="zeros", name=name, trainable=trained
            )
            setattr(self, name, weight)

    def call(self, inputs: Any) -> Any:
        """`(N, ..., C)` in, the same shape out."""
        mean = ops.mean(inputs, axis=-1, keepdims=True)
        deviation = ops.sqrt(ops.var(inputs, axis=-1, keepdims=True) + self.epsilon)
        return self.gamma * ((inputs - mean) / (deviation + self.epsilon)) + self.beta

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "epsilon": self.epsilon, "axis": self.axis}


class Deconvolution2D(keras.layers.Conv2DTranspose):  # type: ignore[misc]  # Keras publishes no types
    """A transposed convolution whose output's height and width are given, as in Keras 1.

    Args:
        output_shape: with the batch axis, as Keras 1 stored it; free axes are what Keras 3 computes.
        **kwargs: of Conv2DTranspose.
    """

    def __init__(self, filters: int, kernel_size: Any, output_shape: Any = None, **kwargs: Any) -> None:
        super().__init__(filters, kernel_size, **kwargs)
        self.target = output_shape

    def build(self, input_shape: Shape) -> None:
        """Chooses the padding of the output that gives its size."""
        super().build(input_shape)
        first = 2 if self.data_format == "channels_first" else 1
        wanted = self.target[first : first + 2] if self.target else (None, None)
        given = input_shape[first : first + 2]
        paddings = [
            self._padding(*sizes) for sizes in zip(given, wanted, self.kernel_size, self.strides, strict=True)
        ]
        if None not in paddings:
            self.output_padding = tuple(paddings)

    def _padding(self, given: int | None, wanted: int | None, kernel: int, stride: int) -> int | None:
        if given is None or wanted is None:
            return None
        least = (given - 1) * stride + kernel
        return wanted - (least if self.padding == "valid" else least - 2 * (kernel // 2))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = {**super().get_config(), "output_shape": self.target}
        return {key: value for key, value in config.items() if key != "output_padding"}
