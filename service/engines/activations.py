"""Owns how much memory a model of free axes needs for one row: foreseen from its graph, before anything runs.

The graph of the predictions is traced for rows of two sizes. Whatever a tensor is needed for later on stays in memory
until then, so what is alive at once is known of each. Between the two sizes, and beyond them, it grows by a power of
the row's numbers: the first for convolutions, up to the second for attention. Of what a run took of the nets that it
was tried on, this was from 0.5 (recurrent ones, whose loops are not looked into) to 1.5; hence the margin.

A graph is TensorFlow's, but no TensorFlow is needed to read it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from service.tensors import Activations

_VIEWS = frozenset(
    ["Identity", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "NoOp"]
)  # no memory of their own
_HELD = frozenset(["ReadVariableOp", "Const", "Placeholder", "Captured"])  # the model's own, or the request's
_MARGIN = 1.5
_MOST = 3.0  # no layer needs more than a power of its input; beyond, the two sizes tell of something else

Shapes = Sequence[tuple[int, ...]]


def foresee(trace: Callable[[Shapes], Any], shapes: Shapes, larger: Shapes) -> Activations:
    """What a row takes.

    Args:
        trace: gives the graph for rows of these shapes, a `tf.Graph`.
        shapes: of one row of each input, without the batch axis.
        larger: the same, larger along the free axes.

    Raises:
        Exception: what `trace` raises.
    """
    (values, size), (more_values, more_size) = (
        (sum(map(math.prod, each)), peak_bytes(trace(each))) for each in (shapes, larger)
    )
    power = math.log(more_size / size) / math.log(more_values / values)
    return Activations(more_values, math.ceil(_MARGIN * more_size), min(max(power, 1.0), _MOST))


def peak_bytes(graph: Any) -> int:
    """The most bytes that are alive at once in a graph, its operations in their order; at least 1."""
    operations = graph.get_operations()
    tensors = [tensor for operation in operations for tensor in operation.outputs if _is_own(operation)]
    sizes = {id(tensor): _bytes(tensor) for tensor in tensors}
    largest = max([size for size in sizes.values() if size is not None], default=0)
    last: dict[int, int] = {}  # tensor -> the last operation that needs it
    for place, operation in enumerate(operations):
        for tensor in operation.inputs:
            last[id(_source(tensor))] = place
    alive = peak = 0
    ending: dict[int, list[int]] = {}
    for place, operation in enumerate(operations):
        made = 0
        for tensor in operation.outputs if _is_own(operation) else ():
            size = sizes[id(tensor)]
            made += largest if size is None else size
            ending.setdefault(last.get(id(tensor), len(operations)), []).append(
                largest if size is None else size
            )
        alive += made
        peak = max(peak, alive)
        alive -= sum(ending.pop(place, ()))
    return max(peak, 1)


def _is_own(operation: Any) -> bool:
    """Whether an operation's results are new memory of the computation's."""
    return operation.type not in _VIEWS and operation.type not in _HELD


def _source(tensor: Any) -> Any:
    """The tensor whose memory this one is a view of."""
    while tensor.op.type in _VIEWS and len(tensor.op.inputs):
        tensor = tensor.op.inputs[0]
    return tensor


def _bytes(tensor: Any) -> int | None:
    """A tensor's size in bytes; `None` where the graph does not know it."""
    if not tensor.shape.is_fully_defined():
        return None
    sizes: list[int] = tensor.shape.as_list()
    return math.prod(sizes) * int(tensor.dtype.size or 1)
