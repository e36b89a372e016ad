"""Owns the metrics, losses and layers that every model may refer to without bringing a custom_objects.py.

A `.h5` file stores its custom objects by name only. The ones here are those that trained files name again and
again; each follows the formula of the source that its docstring tells. It knows nothing of files or models.

A metric or loss takes `y_true` (any number type) and `y_pred` (float) of one shape `(N, ...)`, and is as
batch-wise as its source: Keras reports its mean over the batches.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def mcor(y_true: Any, y_pred: Any) -> Any:
    """Matthews correlation over all elements, -1..1; Keras 1 had it built in and later notes kept it.

    Source: keras-team/keras@1.2.2 `keras/metrics.py`, matthews_correlation.
    """
    y_true, y_pred = _alike(y_true, y_pred)
    predicted, actual = _rounded(y_pred), _rounded(y_true)
    tp = ops.sum(actual * predicted)
    tn = ops.sum((1 - actual) * (1 - predicted))
    fp = ops.sum((1 - actual) * predicted)
    fn = ops.sum(actual * (1 - predicted))
    spread = ops.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return (tp * tn - fp * fn) / (spread + keras.config.epsilon())


def precision(y_true: Any, y_pred: Any) -> Any:
    """Right ones among the predicted positives, 0..1; removed from Keras in 2.0 and copied ever since.

    Source: keras-team/keras@1.2.2 `keras/metrics.py`, precision.
    """
    y_true, y_pred = _alike(y_true, y_pred)
    return ops.sum(_rounded(y_true * y_pred)) / (ops.sum(_rounded(y_pred)) + keras.config.epsilon())


def recall(y_true: Any, y_pred: Any) -> Any:
    """Found ones among the actual positives, 0..1; removed together with `precision`, from the same source."""
    y_true, y_pred = _alike(y_true, y_pred)
    return ops.sum(_rounded(y_true * y_pred)) / (ops.sum(_rounded(y_true)) + keras.config.epsilon())


def f1(y_true: Any, y_pred: Any) -> Any:
    """Harmonic mean of `precision` and `recall`; nan where both are 0, as in the notes that spread it."""
    p, r = precision(y_true, y_pred), recall(y_true, y_pred)
    return 2 * ((p * r) / (p + r))


def f1_m(y_true: Any, y_pred: Any) -> Any:
    """`f1` with an epsilon that turns its nan into 0: the variant of the most copied answer on the web."""
    p, r = precision(y_true, y_pred), recall(y_true, y_pred)
    return 2 * ((p * r) / (p + r + keras.config.epsilon()))


def dice_coef(y_true: Any, y_pred: Any, smooth: float = 1.0) -> Any:
    """Dice overlap of two masks over the whole batch, 0..1; nearly every U-Net file is compiled with it."""
    y_true, y_pred = _alike(y_true, y_pred)
    overlap = ops.sum(y_true * y_pred)
    return (2 * overlap + smooth) / (ops.sum(y_true) + ops.sum(y_pred) + smooth)


def dice_loss(y_true: Any, y_pred: Any) -> Any:
    """`1 - dice_coef`: the loss that goes with it."""
    return 1 - dice_coef(y_true, y_pred)


def iou_coef(y_true: Any, y_pred: Any, smooth: float = 1.0) -> Any:
    """Intersection over union (Jaccard) of two masks over the whole batch, 0..1; Dice's usual companion."""
    y_true, y_pred = _alike(y_true, y_pred)
    overlap = ops.sum(y_true * y_pred)
    return (overlap + smooth) / (ops.sum(y_true) + ops.sum(y_pred) - overlap + smooth)


def rmse(y_true: Any, y_pred: Any) -> Any:
    """Root of the mean squared error; before Keras had it as a class, regressions wrote it as a function."""
    y_true, y_pred = _alike(y_true, y_pred)
    return ops.sqrt(ops.mean(ops.square(y_pred - y_true)))


def coeff_determination(y_true: Any, y_pred: Any) -> Any:
    """R squared, at most 1; the usual name of the function that regressions were compiled with."""
    y_true, y_pred = _alike(y_true, y_pred)
    residual = ops.sum(ops.square(y_true - y_pred))
    total = ops.sum(ops.square(y_true - ops.mean(y_true)))
    return 1 - residual / (total + keras.config.epsilon())


def binary_focal_loss(y_true: Any, y_pred: Any, alpha: float = 0.25, gamma: float = 2.0) -> Any:
    """Mean focal loss of probabilities; detectors and imbalanced classifiers are compiled with it.

    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002, equation 5 with the paper's alpha and gamma.
    """
    y_true, y_pred = _alike(y_true, y_pred)
    y_pred = ops.clip(y_pred, keras.config.epsilon(), 1 - keras.config.epsilon())
    likelihood = y_true * y_pred + (1 - y_true) * (1 - y_pred)
    weight = y_true * alpha + (1 - y_true) * (1 - alpha)
    return ops.mean(-weight * (1 - likelihood) ** gamma * ops.log(likelihood))


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


def builtin_objects() -> dict[str, Any]:
    """Name -> function or layer class, a new dict each time, ready for Keras' `custom_objects`."""
    functions = (mcor, precision, recall, f1, f1_m, dice_coef, dice_loss, iou_coef, rmse, coeff_determination)
    layers = (L2Normalization, Scale, InstanceNormalization, FixedDropout)
    objects: dict[str, Any] = {item.__name__: item for item in (*functions, binary_focal_loss, *layers)}
    # the same formulas under the other names by which they are commonly stored
    objects |= {"precision_m": precision, "recall_m": recall, "root_mean_squared_error": rmse}
    objects |= {"jaccard_coef": iou_coef, "dice_coef_loss": dice_loss, "L2Norm": L2Normalization}
    return objects


def _alike(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    # labels come as integers, booleans and float64; Keras 1 and 2 cast them before they called a metric
    y_pred = ops.convert_to_tensor(y_pred)
    return ops.cast(y_true, y_pred.dtype), y_pred


def _rounded(values: Any) -> Any:
    return ops.round(ops.clip(values, 0, 1))


def _along(weight: Any, axis: int | None, inputs: Any) -> Any:
    # (size,) shaped to broadcast along one axis of `inputs`; `None`: a single value for all of them
    shape = [1] * len(inputs.shape)
    if axis is not None:
        shape[axis] = weight.shape[0]
    return ops.reshape(weight, shape)
