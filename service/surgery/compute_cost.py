"""Owns the estimate of what a tensor costs to compute: multiply-adds, from shapes and weights alone.

Estimates, not measurements: they order the layers of one model and say how much of a pass a layer needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import keras

from service.surgery.graph import Graph, Step

Shape: TypeAlias = tuple[int | None, ...]

FREE_AXIS = 32
"""The size that stands for an axis of any size; the batch counts as one row."""


def parameters(operation: Any) -> int:
    """How many numbers the weights of a layer hold, shared ones counted once; 0 for operations without."""
    weights = {id(weight): weight for weight in getattr(operation, "weights", ())}
    return sum(math.prod(weight.shape) for weight in weights.values())


def compute_shares(graph: Graph) -> dict[int, float]:
    """Value -> the part of the whole model's multiply-adds that it and everything upstream of it need, 0..1.

    It never shrinks along a path, and all outputs together need 1.0.
    """
    costs = [_cost(step) for step in graph.steps]
    upstream: dict[int, int] = dict.fromkeys(graph.inputs, 0)  # value -> steps it needs, one bit each
    for index, step in enumerate(graph.steps):
        needs = 1 << index
        for source in step.sources.values():
            needs |= upstream[source]
        upstream |= dict.fromkeys(step.results, needs)
    whole = 0
    for output in graph.outputs:
        whole |= upstream[output]
    total = _sum(costs, whole)
    return {
        value: min(1.0, _sum(costs, needs) / total) if total else 0.0 for value, needs in upstream.items()
    }


def _sum(costs: list[float], steps: int) -> float:
    return math.fsum(cost for index, cost in enumerate(costs) if steps >> index & 1)


def _cost(step: Step) -> float:
    if step.opens is not None:
        return 0.0  # the way into a nested model; its layers are steps of their own
    sources = [tensor.shape for tensor in step.node.input_tensors]
    return layer_cost(step.operation, sources, [tensor.shape for tensor in step.node.outputs])


def layer_cost(operation: Any, sources: Sequence[Shape], results: Sequence[Shape]) -> float:
    """Multiply-adds of one call for one row; without kernels, as many as there are numbers in the results.

    Args:
        operation: a layer or operation, built.
        sources: the shapes of the tensors it takes, batch axis first.
        results: the shapes of the tensors it yields.
    """
    values = sum(map(_values, results))
    kernels = sum(
        math.prod(weight.shape) for weight in getattr(operation, "weights", ()) if len(weight.shape) > 1
    )
    looks_up = isinstance(operation, keras.layers.Embedding) or getattr(operation, "index_limit", None)
    if not kernels or not sources or looks_up:
        return float(values)
    cost = kernels * _positions(operation, sources[0], results[0])
    if isinstance(operation, keras.layers.MultiHeadAttention):  # scores and their weighted sum
        cost += 2 * _values(sources[0][:-1]) * _values(sources[-1])
    return float(max(values, cost))


def _values(shape: Shape) -> int:
    return math.prod(FREE_AXIS if size is None else size for size in shape[1:])


def _positions(operation: Any, source: Shape, result: Shape) -> int:
    """How often the kernels are applied in one row."""
    first = getattr(operation, "data_format", None) == "channels_first"
    if isinstance(operation, keras.layers.RNN | keras.layers.Bidirectional):
        steps = _values(source[:2])
        if len(source) <= 3:
            return steps
        return steps * _spatial(result if len(result) < len(source) else (None, *result[2:]), first=first)
    if type(operation).__name__.endswith("Transpose"):
        return _spatial(source, first=first)  # a transposed convolution spreads each input position
    if isinstance(operation, keras.layers.EinsumDense | keras.layers.MultiHeadAttention):
        return _values(result[:2]) if len(result) > 2 else 1
    return _spatial(result, first=first)


def _spatial(shape: Shape, *, first: bool) -> int:
    return _values((None, *shape[2:]) if first else shape[:-1])
