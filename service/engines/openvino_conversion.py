"""Owns the way from a Keras model to an OpenVINO graph, and the judgement whether that graph may stand for it.

TensorFlow rejects some values (an index that a table does not have, a division of integers by zero) and OpenVINO
takes them. So a model is converted only if every operation in it is known to take any value, or is a look-up whose
indices can be checked. Left out on purpose, too: arithmetic of integers that come from the model's inputs (OpenVINO
computes it in 32 bits, much of it in float32, where TensorFlow wraps around), of float64, branches (a comparison on a
few rows sees one of them), random numbers, text, and free axes besides the batch's (every new size would be prepared on
the request path).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from service.engines.converted import Converted, IndexCheck
from service.engines.openvino import first_line
from service.engines.openvino_integers import counts_from_the_end, inexact, origin_of
from service.engines.openvino_library import library
from service.engines.openvino_operations import COMPUTES, COMPUTES_FLOATS, MOVES
from service.errors import LoadError
from service.surgery.cut import cut
from service.tensors import ModelSpec, TensorSpec

_FLOATS = frozenset([tf.float32, tf.float16, tf.bfloat16])
_NUMBERS = _FLOATS | {tf.int32, tf.bool}
_COMPUTED = ("T", "Ta", "Tb", "Tout")  # attributes that say of which types the numbers of an operation are


def convert(
    model: Any, spec: ModelSpec, paths: tuple[str, ...], on_trace: Callable[[], None] = lambda: None
) -> Converted:
    """A model's tensors for OpenVINO.

    It holds the interpreter lock for tenths of a second (EfficientNetB0: 0.4), so it belongs to loading a model, not
    to a request for one more layer: `Converted.select` takes that out of a graph of all of them.

    Args:
        model: a `keras.Model`.
        spec: what it takes and gives.
        paths: the tensors; those whose rows have no known size are left out.
        on_trace: called once.

    Raises:
        LoadError: OpenVINO cannot convert it, or it may not stand for TensorFlow; the message says why.
    """
    _refuse_inputs(spec)
    concrete, lookups = _trace(model, spec, paths, on_trace)
    _refuse_operations(concrete.graph)
    fetched = dict(zip(sorted(concrete.structured_outputs), concrete.outputs, strict=True))
    outputs = {path: fetched[f"output_{place:04d}"] for place, path in enumerate(paths)}
    inputs = {tensor.name: item.name for tensor, item in zip(concrete.inputs, spec.inputs, strict=False)}
    origins = {path: origin_of(tensor).name for path, tensor in outputs.items()}
    echoes = {path: inputs[name] for path, name in origins.items() if name in inputs}
    tensors = {
        path: TensorSpec(f"output_{place:04d}", (None, *outputs[path].shape[1:]), outputs[path].dtype.name)
        for place, path in enumerate(paths)
        if path not in echoes and _has_known_rows(outputs[path])
    }
    checks = []
    for number, size in enumerate(lookups):
        indices = fetched[f"indices_{number:04d}"]
        name, shape = f"indices_{number:04d}", (None, *indices.shape[1:])
        checks.append(
            IndexCheck(TensorSpec(name, shape, indices.dtype.name), size, _dependents(indices, outputs))
        )
    graph = _graph(concrete)
    known = {name for port in graph.outputs for name in port.get_names()}
    tensors = {path: item for path, item in tensors.items() if item.name in known}
    yielded = tuple(path for path in paths if path in tensors or path in echoes)
    if lost := [check.indices.name for check in checks if check.indices.name not in known]:
        raise LoadError(f"OpenVINO gives no name to {', '.join(lost)}, so that indices cannot be checked.")
    return Converted(graph, spec.inputs, yielded, tensors, echoes, tuple(checks))


def _refuse_inputs(spec: ModelSpec) -> None:
    for item in spec.inputs:
        if None in item.row_shape:
            raise LoadError(
                f"Expected inputs of a known size. Received: '{item.name}' of shape {item.shape}; OpenVINO prepares "
                "itself anew for every size."
            )
        if 0 in item.row_shape:
            raise LoadError(
                f"Expected inputs that hold numbers. Received: '{item.name}' of shape {item.shape}."
            )
        if item.dtype in {"string", "float64"}:
            raise LoadError(
                f"Expected inputs that OpenVINO computes with. Received: '{item.name}', {item.dtype}."
            )


def _trace(
    model: Any, spec: ModelSpec, paths: tuple[str, ...], on_trace: Callable[[], None]
) -> tuple[Any, list[int]]:
    """The concrete function, which returns every look-up's indices beside the outputs, and the tables' sizes."""
    forward = cut(model, paths)
    sizes: list[int] = []

    def traced(*tensors: Any) -> dict[str, Any]:
        on_trace()
        named = {f"output_{place:04d}": tf.identity(value) for place, value in enumerate(forward(tensors))}
        graph = next(iter(named.values())).graph
        lookups = [operation for operation in graph.get_operations() if operation.type == "GatherV2"]
        found = [lookup for lookup in map(_lookup, lookups) if lookup is not None]
        sizes.extend(size for _, size in found)
        return named | {f"indices_{place:04d}": tf.identity(value) for place, (value, _) in enumerate(found)}

    signature = [
        tf.TensorSpec([None, *item.row_shape], item.dtype, name=f"input_{place}")
        for place, item in enumerate(spec.inputs)
    ]
    try:
        function = tf.function(traced, input_signature=signature, autograph=False)
        return function.get_concrete_function(), sizes
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise LoadError(f"TensorFlow cannot trace it: {first_line(error)}.") from error


def _lookup(operation: Any) -> tuple[Any, int] | None:
    """The indices of a look-up and how many there are to choose from; `None` where they are constants.

    Raises:
        LoadError: the indices cannot be checked row by row.
    """
    table, indices, axis = operation.inputs
    if all(above.inputs or above.type == "Const" for above in _ancestors(indices.op)):
        return None
    place = tf.get_static_value(axis)
    size = None if place is None or table.shape.rank is None else table.shape[int(place)]
    by_row = indices.shape.rank and indices.shape[0] is None and None not in indices.shape[1:]
    if size is None or not by_row or operation.get_attr("batch_dims"):
        raise LoadError(f"It looks up values ({operation.name}) in a way that cannot be checked.")
    return indices, int(size)


def _refuse_operations(graph: Any) -> None:
    definition = graph.as_graph_def()
    inner = [node for function in definition.library.function for node in function.node_def]
    operations = graph.get_operations()
    counted = {operation.name for operation in operations if counts_from_the_end(operation)}
    refused = inexact(operations)
    outer = [node for node in definition.node if node.name not in counted]
    unknown = {_describe(node) for node in outer if node.name in refused or not _is_total(node)}
    unknown |= {_describe(node) for node in inner if _makes_integers(node) or not _is_total(node)}
    unknown |= {f"{node.op} inside a loop" for node in inner if node.op == "GatherV2"}
    if unknown:
        raise LoadError(
            "Expected operations that take any value, in OpenVINO as in TensorFlow. "
            f"Received: {', '.join(sorted(unknown))}."
        )


def _is_total(node: Any) -> bool:
    """Whether an operation takes any numbers, and OpenVINO computes it in the width that TensorFlow does."""
    types = _types(node)
    if tf.float64 in types or tf.string in types:
        return False
    if _makes_integers(node) and _type(node, "DstT") != tf.int32:
        return False  # beyond the range of the other types they differ
    if node.op in COMPUTES_FLOATS:
        return types <= _FLOATS
    return node.op in MOVES or (node.op in COMPUTES and _types(node, _COMPUTED) <= _NUMBERS)


def _makes_integers(node: Any) -> bool:
    """Whether it is a cast of floats."""
    return bool(node.op == "Cast" and _type(node, "SrcT") in _FLOATS and _type(node, "DstT").is_integer)


def _types(
    node: Any, names: tuple[str, ...] = (*_COMPUTED, "dtype", "SrcT", "DstT", "element_dtype")
) -> set[Any]:
    return {_type(node, name) for name in names} - {None}


def _type(node: Any, name: str) -> Any:
    return tf.as_dtype(node.attr[name].type) if name in node.attr and node.attr[name].type else None


def _describe(node: Any) -> str:
    types = ", ".join(sorted(item.name for item in _types(node)))
    return f"{node.op} of {types}" if types else str(node.op)


def _has_known_rows(tensor: Any) -> bool:
    return bool(tensor.shape.rank) and None not in tensor.shape[1:]


def _dependents(indices: Any, outputs: Mapping[str, Any]) -> tuple[str, ...]:
    """The paths that a look-up's indices matter to: what its GatherV2 feeds."""
    origin = origin_of(indices)
    return tuple(
        path
        for path, tensor in outputs.items()
        if any(
            operation.type == "GatherV2" and origin_of(operation.inputs[1]) is origin
            for operation in _ancestors(tensor.op)
        )
    )


def _ancestors(operation: Any) -> Iterator[Any]:
    seen, waiting = set(), [operation]
    while waiting:
        current = waiting.pop()
        if current.name not in seen:
            seen.add(current.name)
            yield current
            waiting.extend(tensor.op for tensor in current.inputs)


def _graph(concrete: Any) -> Any:
    try:
        return library().convert_model(concrete)
    except Exception as error:  # the front end's errors share no class but this one
        raise LoadError(f"OpenVINO cannot convert it: {first_line(error)}.") from error
