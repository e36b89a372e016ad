"""Owns `doctor --compare`: a file computed by Keras 3, repaired, and by `tf_keras`, on the same seeded rows.

Two libraries that agree on every layer are a better witness than one; where they part, the first layer that
differs tells what a repair got wrong. It imports TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from service.errors import LayertapError
from service.loading.loader import load
from service.surgery.cut import cut, describe, seeded_rows
from service.tensors import Array, ModelSpec
from service.tools.doctor.companions import companions

ROWS = 4
_REASON_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Difference:
    """How far the two libraries are apart on one tensor.

    Args:
        path: a layer's path, the same in both.
        is_output: whether the model yields it.
        largest: the largest difference of any two numbers; infinite where shapes or NaN differ.
        scale: the largest number that Keras 3 gives.
    """

    path: str
    is_output: bool
    largest: float
    scale: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of it: differences in the order of computation, or why there are none."""

    differences: tuple[Difference, ...] = ()
    trouble: str | None = None

    @property
    def text(self) -> str:
        """Lines for people: outputs first, then layers."""
        if self.trouble is not None:
            return f"  compare       {self.trouble}"
        rows = sorted(self.differences, key=lambda row: not row.is_output)
        width = max((len(row.path) for row in rows), default=0)
        lines = [
            f"{row.path:<{width}}  {row.largest:9.2e} of {row.scale:9.2e}{'  output' if row.is_output else ''}"
            for row in rows
        ]
        title = f"largest differences of Keras 3 and tf_keras on {ROWS} seeded rows:"
        return "\n".join(
            f"  {'compare' if n == 0 else '':<13} {line}" for n, line in enumerate([title, *lines])
        )


def compare(path: Path, object_files: tuple[Path, ...] = ()) -> Comparison:
    """Loads the file twice, judged both times as the service does, and computes all common tensors.

    Args:
        path: the file.
        object_files: Python files that define custom objects, besides those that lie beside it; they run.
    """
    try:
        beside = companions(path, object_files)
        config = dataclasses.replace(beside.config, compile=False)
        models = [
            load(
                path, dataclasses.replace(config, loader=loader), beside.object_files, beside.folders[-1]
            ).model
            for loader in ("keras3", "tf_keras")
        ]
        return Comparison(_differences(*models))
    except LayertapError as error:
        reason = " ".join(f"{error.message} {getattr(error, 'mend', '')}".split())
        return Comparison(trouble=f"not possible: {reason[:_REASON_LENGTH]}")


def _differences(ours: Any, theirs: Any) -> tuple[Difference, ...]:
    spec, other = describe(ours), describe(theirs)
    known = {layer.path for layer in other.layers}
    paths = tuple(layer.path for layer in spec.layers if layer.path in known)
    drawn = seeded_rows(ours, ROWS)
    rows = [tf.constant(drawn[item.name]) for item in spec.inputs]
    computed = [_computed(model, paths, rows) for model in (ours, theirs)]
    outputs = {output.path for output in spec.outputs}
    found = [_difference(path, path in outputs, *pair) for path, *pair in zip(paths, *computed, strict=True)]
    renamed = _renamed_outputs(spec, other, known)
    if renamed:
        own, its = zip(*renamed, strict=True)
        pairs = zip(own, _computed(ours, own, rows), _computed(theirs, its, rows), strict=True)
        found += [_difference(path, True, one, two) for path, one, two in pairs]
    return tuple(found)


def _renamed_outputs(spec: ModelSpec, other: ModelSpec, known: set[str]) -> list[tuple[str, str]]:
    """Outputs whose layers are called differently in the two models, as pairs of paths in their order."""
    pairs = [(one.path, two.path) for one, two in zip(spec.outputs, other.outputs, strict=False)]
    return [pair for pair in pairs if pair[0] not in known]


def _computed(model: Any, paths: tuple[str, ...], rows: Sequence[Any]) -> list[Array]:
    return [np.asarray(tensor) for tensor in cut(model, paths)(rows)]


def _difference(path: str, is_output: bool, one: Array, two: Array) -> Difference:
    if one.shape != two.shape or one.dtype.kind not in "biuf":
        same = one.shape == two.shape and bool(np.array_equal(one, two))
        return Difference(path, is_output, 0.0 if same else float("inf"), float("nan"))
    a, b = one.astype("float64"), two.astype("float64")
    apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    largest = float(np.max(apart, initial=0.0))
    scale = float(np.max(np.abs(a[np.isfinite(a)]), initial=0.0))
    return Difference(path, is_output, float("inf") if np.isnan(largest) else largest, scale)
