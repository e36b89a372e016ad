"""Owns the layers that every model may refer to without bringing a custom_objects.py.

They are those that trained files of many projects name again and again; each computes what the source in its
docstring does. keras_contrib's CRF is a module of its own.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class L2Normalization(keras.layers.Layer):  # type: ignore[misc]  # Keras publishes no types
    """Rows of unit length along an axis; face and SSD models define it, SSD with a learnt gain a channel.

    Args:
        axis: the axis whose squares are summed. SSD's files do not store theirs: it is the last.
        gamma_init: where given, a weight `gamma` (size of the axis,) multiplies the result.
        epsilon: the smallest sum of squares divided by, as TensorFlow's `l2_normalize`.

    Source: pierluigiferrari/ssd_keras@16163c0 `keras_layers/keras_layer_L2Normalization.py` for the gain.
    """

    def __init__(
        self, axis: int = -1, gamma_init: float | None = None, epsilon: float = 1e-12, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.axis, self.gamma_init, self.epsilon = axis, gamma_init, epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates `gamma` where the layer has one."""
        self.gamma = None
        if self.gamma_init is not None:
            start = keras.initializers.Constant(self.gamma_init)
            self.gamma = self.add_weight(shape=(input_shape[self.axis],), initializer=start, name="gamma")

    def call(self, inputs: Any) -> Any:
        """`(N, ...)` in, the same shape out."""
        squares = ops.sum(ops.square(inputs), axis=self.axis, keepdims=True)
        unit = inputs * ops.rsqrt(ops.maximum(squares, self.epsilon))
        return unit if self.gamma is None else unit * _along(self.gamma, self.axis, unit)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {"axis": self.axis, "gamma_init": self.gamma_init, "epsilon": self.epsilon}
        return {**super().get_config(), **own}


class Scale(keras.layers.Layer):  # type: ignore[misc]  # Keras publishes no types
    """`gamma * x + beta` a channel: ported Caffe files (DenseNet, ResNet-101/152) keep batch norm's half in it.

    Args:
        axis: the channels' axis.
        momentum: stored by those files, used by nothing.

    Source: flyyufelix/cnn_finetune@d5d8c43 `custom_layers/scale_layer.py`.
    """

    def __init__(self, axis: int = -1, momentum: float = 0.9, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis, self.momentum = axis, momentum

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates `gamma` and `beta`, in the order in which the files store them."""
        shape = (input_shape[self.axis],)
        self.gamma = self.add_weight(shape=shape, initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=shape, initializer="zeros", name="beta")

    def call(self, inputs: Any) -> Any:
        """`(N, ...)` in, the same shape out."""
        return inputs * _along(self.gamma, self.axis, inputs) + _along(self.beta, self.axis, inputs)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "axis": self.axis, "momentum": self.momentum}


class InstanceNormalization(keras.layers.Layer):  # type: ignore[misc]  # Keras publishes no types
    """Each row normalised by its own mean and deviation; style transfer, CycleGAN and U-Net files need it.

    Args:
        axis: the channels' axis, each channel by itself; `None`: all of a row together.
        epsilon: added to the standard deviation, not to the variance.
        center, scale: whether `beta` and `gamma` are learnt.
        **kwargs: initialisers, regularisers and constraints of both are taken and dropped: the weights come
            from the file.

    Source: keras-team/keras-contrib@b20aa1a `keras_contrib/layers/normalization/instancenormalization.py`.
    """

    def __init__(
        self,
        axis: int | None = None,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        **kwargs: Any,
    ) -> None:
        for weight in ("beta", "gamma"):
            for part in ("initializer", "regularizer", "constraint"):
                kwargs.pop(f"{weight}_{part}", None)
        super().__init__(**kwargs)
        self.axis, self.epsilon, self.center, self.scale = axis, epsilon, center, scale

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates `gamma` and `beta`, in the order in which the files store them."""
        shape = (1,) if self.axis is None else (input_shape[self.axis],)
        self.gamma = self.add_weight(shape=shape, initializer="ones", name="gamma") if self.scale else None
        self.beta = self.add_weight(shape=shape, initializer="zeros", name="beta") if self.center else None

    def call(self, inputs: Any) -> Any:
        """`(N, ...)` in, the same shape out."""
        rank = len(inputs.shape)
        kept = () if self.axis is None else (self.axis % rank,)
        axes = [axis for axis in range(1, rank) if axis not in kept]
        deviation = ops.std(inputs, axis=axes, keepdims=True) + self.epsilon
        result = (inputs - ops.mean(inputs, axis=axes, keepdims=True)) / deviation
        if self.gamma is not None:
            result = result * _along(self.gamma, self.axis, inputs)
        return result if self.beta is None else result + _along(self.beta, self.axis, inputs)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {"axis": self.axis, "epsilon": self.epsilon, "center": self.center, "scale": self.scale}
        return {**super().get_config(), **own}


class FixedDropout(keras.layers.Dropout):  # type: ignore[misc]  # Keras publishes no types
    """Dropout under the name by which the `efficientnet` package stored it; serving never drops anything."""


def _along(weight: Any, axis: int | None, inputs: Any) -> Any:
    # (size,) shaped to broadcast along one axis of `inputs`; `None`: a single value for all of them
    shape = [1] * len(inputs.shape)
    if axis is not None:
        shape[axis] = weight.shape[0]
    return ops.reshape(weight, shape)
