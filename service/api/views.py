"""Owns what is made of a model's tensors after the engine: labels, top-k, pooling, normalising, rounding.

Pure functions on arrays; nothing here touches the queue, so these options never split a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.tensors import Array, LayerSpec, OutputSpec

_THRESHOLD = 0.5  # of a sigmoid, as Keras' binary_accuracy


@dataclass(frozen=True, slots=True)
class Labels:
    """The argmax of one output.

    Args:
        labels: (N, ...) int64, the output's shape without its last axis.
        scores: the output's value at the label; after a softmax or a sigmoid, its probability.
        values: (N, ..., C), what was compared; a single sigmoid unit counts as two classes.
    """

    labels: Array
    scores: Array
    values: Array


def label(values: Array, output: OutputSpec) -> Labels | None:
    """The argmax over the last axis.

    Args:
        values: (N, ..., C) of any float or integer dtype.
        output: what these values are.

    Returns:
        `None` where there is nothing to choose from: no axis besides the batch, or a single unit that is not a
        sigmoid. A single sigmoid unit is 1 above 0.5, else 0.
    """
    if values.ndim < 2 or values.dtype.kind not in "fiu":
        return None
    if values.shape[-1] == 1:
        if output.activation != "sigmoid":
            return None
        labels = (values[..., 0] > _THRESHOLD).astype(np.int64)
        values = np.concatenate([1 - values, values], axis=-1)
        return Labels(labels, np.take_along_axis(values, labels[..., np.newaxis], -1)[..., 0], values)
    return Labels(values.argmax(axis=-1), values.max(axis=-1), values)


def name_labels(labels: Array, classes: Sequence[str]) -> Any:
    """The class names of labels, as nested lists of the labels' shape."""
    return np.array(classes, dtype=object)[labels].tolist()


def top_k(found: Labels, k: int, classes: Sequence[str]) -> Any:
    """The k best of each row as nested lists of `{label, class, score}`; equal scores in label order.

    Args:
        found: the labels of an output.
        k: how many; an output with fewer classes gives all of them.
        classes: names in label order; where empty, entries have no `class`.
    """
    values = found.values
    order = np.argsort(-values.astype(np.float64), axis=-1, kind="stable")[..., :k]
    scores = np.take_along_axis(values, order, axis=-1)
    return _entries(order, scores, classes)


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
    """
    if values.ndim <= 2:
        return values
    channel = layer.channel_axis % values.ndim
    axes = tuple(axis for axis in range(1, values.ndim) if axis != channel)
    if how == "max":
        return values.max(axis=axes)
    return values.mean(axis=axes, dtype=np.float32 if values.dtype.itemsize < 4 else None)


def pooled_values(layer: LayerSpec) -> int | None:
    """How many numbers a row has after `pool`; `None` where an axis that stays is free."""
    if len(layer.shape) <= 2:
        return layer.tensor.row_values
    return layer.shape[layer.channel_axis]


def normalize(values: Array) -> Array:
    """Rows of L2 norm 1 over the last axis; zeros stay zeros."""
    values = values.astype(np.result_type(values.dtype, np.float32), copy=False)
    norm = np.sqrt(np.sum(np.square(values), axis=-1, keepdims=True))
    return np.divide(values, norm, out=np.zeros_like(values), where=norm > 0)


def cast(values: Array, dtype: str | None) -> Array:
    """Floats as `dtype`; other types stay. What float16 cannot hold becomes infinity."""
    if dtype is None or values.dtype.kind != "f":
        return values
    with np.errstate(over="ignore"):
        return values.astype(dtype, copy=False)
