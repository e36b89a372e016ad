"""Owns the judgement which integers of a traced graph come out of OpenVINO as they come out of TensorFlow.

OpenVINO computes integers in 32 bits, and many operations on them (sums, maxima, comparisons, `ReverseV2`, ...) in
float32, where TensorFlow wraps around at the width of the type. So it may move the integers of a model's inputs, which
are below `WHOLE_LIMIT`, and compute with those that count: sizes, places, and how many of some booleans are true.
Casts of floats agree within int32; what was computed before may differ in its last digit, which a cast makes a whole one.

Source: tests/parity/test_openvino_integers.py, which runs the operations at the limits of the types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf

from service.engines.openvino import WHOLE_LIMIT
from service.engines.openvino_operations import COMPUTES, COMPUTES_FLOATS

PASSES_ON = frozenset(["Identity", "StopGradient"])
_PICKS = PASSES_ON | {"Cast", "StridedSlice"}
_COUNTS = frozenset(["Shape", "Size", "Rank"])  # what they say of data is small
_DATA = frozenset(["Placeholder", "ReadVariableOp"])


def inexact(operations: Iterable[Any]) -> set[str]:
    """The names of the operations whose integers may be others in OpenVINO.

    Args:
        operations: of a graph, without those of the functions in it.
    """
    return {
        operation.name
        for operation in operations
        if (operation.type in COMPUTES and not counts_from_the_end(operation) and _takes_large(operation))
        or (_is_cast_of_floats(operation) and _was_computed(operation))
    }


def counts_from_the_end(operation: Any) -> bool:
    """Whether a small constant is added once, as Keras adds a table's size to indices below zero."""
    if operation.type != "AddV2" or operation.inputs[0].dtype not in {tf.int32, tf.int64}:
        return False
    if not any(_largest(origin_of(tensor, _PICKS).op) < WHOLE_LIMIT for tensor in operation.inputs):
        return False
    return all(above.type != "AddV2" for above in _above(operation, _is_whole))


def _is_cast_of_floats(operation: Any) -> bool:
    return (
        operation.type == "Cast" and operation.inputs[0].dtype.is_floating and _is_whole(operation.outputs[0])
    )


def _takes_large(operation: Any) -> bool:
    """Whether integers that it takes may be large: those of inputs and weights, and of floats."""
    return any(
        above.type in _DATA
        or _is_cast_of_floats(above)
        or (above.type == "Const" and _largest(above) >= WHOLE_LIMIT)
        for above in _above(operation, _is_whole)
    )


def _was_computed(operation: Any) -> bool:
    """Whether the floats that it takes are more than values of the model's inputs."""
    kinds = {above.type for above in _above(operation, lambda _: True)}
    return bool(kinds & _DATA) and bool(kinds & (COMPUTES | COMPUTES_FLOATS))


def _above(operation: Any, follow: Callable[[Any], bool]) -> Iterator[Any]:
    """The operations that it depends on through tensors of some kind, past which sizes are not followed."""
    seen: set[str] = set()
    waiting = [operation]
    while waiting:
        for tensor in waiting.pop().inputs:
            above = tensor.op
            if follow(tensor) and above.name not in seen and above.type not in _COUNTS:
                seen.add(above.name)
                yield above
                waiting.append(above)


def _is_whole(tensor: Any) -> bool:
    return bool(tensor.dtype.is_integer)


def origin_of(tensor: Any, passing: frozenset[str] = PASSES_ON) -> Any:
    """The tensor that comes out as this one behind operations that pass on what they take."""
    while tensor.op.type in passing:
        tensor = tensor.op.inputs[0]
    return tensor


def _largest(operation: Any) -> float:
    """The largest magnitude in a constant; infinite for what is none."""
    constant = tf.get_static_value(operation.outputs[0]) if operation.type == "Const" else None
    if constant is None:
        return float("inf")
    return float(abs(constant.astype("float64")).max(initial=0))
