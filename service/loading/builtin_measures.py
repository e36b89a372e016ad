"""Owns the metrics and losses that every model may refer to without bringing a custom_objects.py.

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


def _alike(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    # labels come as integers, booleans and float64; Keras 1 and 2 cast them before they called a metric
    y_pred = ops.convert_to_tensor(y_pred)
    return ops.cast(y_true, y_pred.dtype), y_pred


def _rounded(values: Any) -> Any:
    return ops.round(ops.clip(values, 0, 1))
