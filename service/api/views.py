"""Owns what is made of a model's tensors after the engine: labels, top-k, pooling, normalising, rounding.

Pure functions on arrays; nothing here touches the queue, so these options never split a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.errors import InvalidParameter
from service.tensors import Array, LayerSpec, OutputSpec

_THRESHOLD = 0.5  # of a sigmoid, as Keras' binary_accuracy
_SMALL = 256


@dataclass(slots=True)
class Labels:
    """The argmax of one output.

    Args:
        labels: (N, ...) int64, the output's shape without its last axis; of a few rows, a list of numbers.
        scores: the output's value at the label; after a softmax or a sigmoid, its probability. A list of numpy's
            numbers where `labels` is one.
        values: (N, ..., C), what was compared; a single sigmoid unit counts as two classes.
    """

    labels: Array | list[int]
    scores: Array | list[Any]
    values: Array


def label(values: Array, output: OutputSpec) -> Labels | None:
    """The argmax over the last axis.

    Args:
        values: (N, ..., C) of any float or integer dtype.
        output: what these values are.

    Returns:
        `None` where there is nothing to choose from: no axis besides the batch, or a single unit that is not a
        sigmoid. A single sigmoid unit is 1 above 0.5, else 0. NaN loses to every number.
    """
    if values.ndim < 2 or values.dtype.kind not in "fiu":
        return None
    if values.shape[-1] == 1:
        if output.activation != "sigmoid":
            return None
        labels = (values[..., 0] > _THRESHOLD).astype(np.int64)
        values = np.concatenate([1 - values, values], axis=-1)
        return Labels(labels, np.take_along_axis(values, labels[..., np.newaxis], -1)[..., 0], values)
    if values.ndim == 2 and values.size <= _SMALL:
        return _label_small(values)
    labels = _comparable(values).argmax(axis=-1)
    return Labels(labels, np.take_along_axis(values, labels[..., np.newaxis], -1)[..., 0], values)


def _label_small(values: Array) -> Labels:
    """The same labels by Python's `max`.

    numpy lets go of the interpreter lock in `argmax` and when it indexes with arrays. On an event loop that hands
    the core to the engine thread in the middle of a reply, once for every request: three quarters of the time of a
    small one, when measured.
    """
    rows = values.tolist()
    for row in rows:
        if math.isnan(sum(row)):  # a NaN, which `max` would not skip, or two infinities
            row[:] = [-math.inf if math.isnan(number) else number for number in row]
    labels = [row.index(max(row)) for row in rows]
    return Labels(labels, [values[place, label] for place, label in enumerate(labels)], values)


def name_labels(labels: Array | list[int], classes: Sequence[str]) -> Any:
    """The class names of labels, as nested lists of the labels' shape."""
    if isinstance(labels, list):
        return [classes[place] for place in labels]
    if labels.ndim == 1:
        return [classes[place] for place in labels.tolist()]
    return [name_labels(row, classes) for row in labels]


def top_k(found: Labels, k: int, classes: Sequence[str]) -> Any:
    """The k best of each row as nested lists of `{label, class, score}`; equal scores in label order.

    The first of them is the row's label.

    Args:
        found: the labels of an output.
        k: how many; an output with fewer classes gives all of them.
        classes: names in label order; where empty, entries have no `class`.
    """
    values = found.values
    # Sorted upwards from the last class to the first and then read backwards: downwards, ties in label order.
    upwards = np.argsort(_comparable(values)[..., ::-1], axis=-1, kind="stable")
    order = (values.shape[-1] - 1 - upwards[..., ::-1])[..., :k]
    scores = np.take_along_axis(values, order, axis=-1)
    return _entries(order, scores, classes)


def _comparable(values: Array) -> Array:
    """The values with NaN below everything, where numpy would have it above."""
    return np.where(np.isnan(values), -np.inf, values) if values.dtype.kind == "f" else values


def _entries(order: Array, scores: Array, classes: Sequence[str]) -> Any:
    if order.ndim > 1:
        return [_entries(o, s, classes) for o, s in zip(order, scores, strict=True)]
    return [
        {"label": int(place), **({"class": classes[place]} if classes else {}), "score": score}
        for place, score in zip(order, scores, strict=True)
    ]


def pool(values: Array, layer: LayerSpec, how: str) -> Array:
    """The average or maximum over the spatial axes: (N, H, W, C) or (N, C, H, W) -> (N, C).

    Tensors without spatial axes, (N, C) and (N,), are returned as they are.

    Raises:
        InvalidParameter: the layer holds text.
    """
    _check_numbers(values, "pool")
    if values.ndim <= 2:
        return values
    channel = layer.channel_axis % values.ndim
    axes = tuple(axis for axis in range(1, values.ndim) if axis != channel)
    if how == "max":
        return np.asarray(values.max(axis=axes))
    # numpy adds along these axes one by one; in float32 ten thousand cells would lose the fifth digit.
    mean = values.mean(axis=axes, dtype=np.float64)
    return np.asarray(mean.astype(np.result_type(values.dtype, np.float32)))


def pooled_values(layer: LayerSpec) -> int | None:
    """How many numbers a row has after `pool`; `None` where an axis that stays is free."""
    if len(layer.shape) <= 2:
        return layer.tensor.row_values
    return layer.shape[layer.channel_axis]


def normalize(values: Array) -> Array:
    """Rows of L2 norm 1 over the last axis; zeros stay zeros, a row with NaN or infinity has no direction: NaN.

    Raises:
        InvalidParameter: the layer holds text.
    """
    _check_numbers(values, "normalize")
    values = values.astype(np.result_type(values.dtype, np.float32), copy=False)
    # In float64 the squares of all float32 numbers can be told apart from zero and infinity.
    norm = np.sqrt(np.sum(np.square(values, dtype=np.float64), axis=-1, keepdims=True))
    with np.errstate(invalid="ignore"):
        unit = np.divide(values, norm, out=np.zeros_like(values), where=norm != 0)
    return np.where(np.isinf(norm), np.asarray(np.nan, unit.dtype), unit)


def _check_numbers(values: Array, option: str) -> None:
    if values.dtype.kind not in "fiub":
        raise InvalidParameter(f"Expected '{option}' only for layers of numbers. Received: a layer of text.")


def cast(values: Array, dtype: str | None) -> Array:
    """Floats as `dtype`; other types stay. What float16 cannot hold becomes infinity."""
    if dtype is None or values.dtype.kind != "f":
        return values
    with np.errstate(over="ignore"):
        return values.astype(dtype, copy=False)
