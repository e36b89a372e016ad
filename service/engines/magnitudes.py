"""Owns how large a model's inputs may be before any number inside of it could overflow.

Below that no infinity arises, so no NaN either, and OpenVINO and TensorFlow differ in rounding only. It is worked out
from the graph: for every tensor an upper bound of its magnitudes, from those of what it is made of and from the
weights. Every partial sum is below the sum of magnitudes, so the order of additions does not matter. Operations that
are not listed here, and integers that depend on the input, speak against it: of those nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from service.tensors import Array

_LARGEST = 2.0**120
"""What no tensor may exceed: float32 ends at 2**128."""

_PROBES = tuple(2.0**power for power in range(120, 30, -10))  # the limits that are tried, the largest first

_KEEPS = frozenset([
    "Result", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Pad", "Slice", "StridedSlice", "Split",
    "VariadicSplit", "Tile", "Broadcast", "Relu", "MaxPool", "ReduceMax", "ReduceMin", "Abs", "Negative", "Maximum",
    "Minimum", "Identity",
])  # fmt: skip
"""What they give is no larger than the largest of what they take."""

Bounds = Sequence[float]


def largest_input(graph: Any) -> float:
    """The magnitude below which inputs let nothing overflow; 0 where nothing can be said.

    Args:
        graph: an `openvino.Model`.
    """
    nodes = [node for node in graph.get_ordered_ops() if node.get_type_name() != "Constant"]
    if not all(_is_known(node) for node in nodes):
        return 0.0
    weights: dict[str, float] = {}
    return next((probe for probe in _PROBES if _holds(nodes, probe, weights)), 0.0)


def _is_known(node: Any) -> bool:
    kind = node.get_type_name()
    used = [port for place, port in enumerate(node.outputs()) if not place or port.get_target_inputs()]
    floats = all(port.get_element_type().to_dtype() == np.float32 for port in used)
    return floats and (kind in _KEEPS or kind in _RULES or kind == "Parameter")


def _holds(nodes: Sequence[Any], probe: float, weights: dict[str, float]) -> bool:
    """Whether inputs up to `probe` keep every tensor below the limit; `weights` remembers what constants add up to."""
    bounds: dict[str, float] = {}
    for node in nodes:
        kind = node.get_type_name()
        taken = [_bound(port.get_source_output().get_node(), bounds, weights) for port in node.inputs()]
        if kind == "Parameter":
            bound = probe
        elif kind in _KEEPS:
            bound = max(taken)
        else:
            bound = _RULES[kind](node, taken, weights)
        if not bound < _LARGEST:
            return False
        bounds[node.get_friendly_name()] = bound
    return True


def _bound(source: Any, bounds: dict[str, float], weights: dict[str, float]) -> float:
    if source.get_type_name() != "Constant":
        return bounds[source.get_friendly_name()]
    return _remembered(source, "largest", weights, lambda array: float(np.abs(array).max(initial=0.0)))


def _remembered(
    constant: Any, what: str, weights: dict[str, float], measure: Callable[[Array], float]
) -> float:
    key = f"{what} {constant.get_friendly_name()}"
    if key not in weights:
        weights[key] = measure(constant.data) if constant.data.dtype == np.float32 else 0.0
    return weights[key]


def _weighted(node: Any, taken: Bounds, weights: dict[str, float]) -> float:
    """Sums of products with weights: at most the largest number times the largest sum of weights' magnitudes."""
    kind = node.get_type_name()
    sources = [port.get_source_output().get_node() for port in node.inputs()]
    for place, source in enumerate(sources[:2]):
        if source.get_type_name() == "Constant":
            return taken[1 - place] * _remembered(source, kind, weights, _SUMS[kind])
    shapes = [port.get_partial_shape() for port in node.inputs()[:2]]
    if not all(size.is_static for shape in shapes for size in list(shape)[1:]):
        return math.inf
    products = max(math.prod(size.get_length() for size in list(shape)[1:]) for shape in shapes)
    return taken[0] * taken[1] * float(products)


def _of_matrix(array: Array) -> float:
    """For either way that the matrix may be turned."""
    magnitudes = np.abs(array)
    return max(
        (
            float(magnitudes.sum(axis=axis, dtype=np.float64).max(initial=0.0))
            for axis in range(array.ndim)[-2:]
        ),
        default=math.inf,
    )


def _of_kernel(first: int) -> Callable[[Array], float]:
    """Kernels whose first axes are those of what comes out."""
    return lambda array: float(
        np.abs(array).sum(axis=tuple(range(first, array.ndim)), dtype=np.float64).max(initial=0.0)
    )


_SUMS: dict[str, Callable[[Array], float]] = {
    "MatMul": _of_matrix,
    "Convolution": _of_kernel(1),
    "GroupConvolution": _of_kernel(2),
}


def _averaged(node: Any, taken: Bounds, _: dict[str, float]) -> float:
    """An average is no larger than what it is of, but it is made of a sum."""
    sizes = [size for size in list(node.input(0).get_partial_shape())[1:] if size.is_static]
    summed = taken[0] * math.prod(size.get_length() for size in sizes)
    return taken[0] if summed < _LARGEST else math.inf


def _softmax(_: Any, taken: Bounds, __: dict[str, float]) -> float:
    return 1.0 if 2.0 * taken[0] < _LARGEST else math.inf  # the largest is taken off first


_RULES: dict[str, Callable[[Any, Bounds, dict[str, float]], float]] = {
    **dict.fromkeys(_SUMS, _weighted),
    **dict.fromkeys(("Add", "Subtract"), lambda _, taken, __: taken[0] + taken[1]),
    **dict.fromkeys(("AvgPool", "ReduceMean"), _averaged),
    **dict.fromkeys(("Sigmoid", "Tanh"), lambda *_: 1.0),
    "Multiply": lambda _, taken, __: taken[0] * taken[1],
    "PRelu": lambda _, taken, __: taken[0] * max(1.0, taken[1]),
    "Softmax": _softmax,
}
