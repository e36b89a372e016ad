"""Owns models whose forward pass is Python code (subclasses of `keras.Model`): their listing and their cut.

Such a model has no graph to walk. While it is traced, each layer's `call` is wrapped, for that trace alone, by
one that remembers what it returned; so every layer that the code calls can be asked for, in the order of the
calls. A tensor that exists only inside a loop or a branch of the graph cannot leave it and is not offered. The
whole pass is traced, whatever is asked for; TensorFlow leaves out what the wanted tensors do not need.

Source: `Model.build_from_config` (keras/src/models/model.py) and `Operation.__call__`, which looks `call` up on
the instance (keras/src/ops/operation.py), of Keras 3.15.1.
"""
# ruff: noqa: SLF001  -- what a model was built with is a private attribute of Keras

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import keras
import tensorflow as tf
from keras.src import backend, tree

from service.errors import LoadError
from service.surgery.compute_cost import layer_cost, parameters
from service.surgery.graph import crossing_dtype
from service.tensors import LayerSpec, ModelSpec, OutputSpec, TensorSpec
from service.threads import Turn

_ONE_TRACE = Turn()  # the wrapped calls are seen by every thread
_ACTIVATION_OPS = {"Softmax": "softmax", "Sigmoid": "sigmoid", "Relu": "relu", "Tanh": "tanh"}
_PASSES_ON = ("Identity", "Cast", "Reshape")


@dataclass(frozen=True, slots=True)
class _Result:
    """One tensor that a call of a layer returned, and the multiply-adds of that call."""

    layer: Any
    tensor: Any
    cost: float


@dataclass(slots=True)
class _Trace:
    """What one pass left behind: results by path in order of the calls, aliases, the model's outputs."""

    results: dict[str, _Result] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    outputs: list[tuple[str, str, Any]] = field(default_factory=list)  # name, path, tensor


def input_specs(model: keras.Model) -> tuple[TensorSpec, ...]:
    """The inputs that the model was built with, named by key or by its call's first argument.

    Raises:
        LoadError: it was not built, or with more than one argument.
    """
    shapes = getattr(model, "_build_shapes_dict", None) or {}
    if not model.built or not isinstance(shapes, dict) or len(shapes) != 1:
        raise LoadError(
            f"Expected a model with a graph, or one built with a single argument. Received: "
            f"{type(model).__name__}, built with {len(shapes)}.",
            mend="Wrap it: keras.Model(inputs, model(inputs)) with keras.Input inputs, and save that.",
        )
    (structure,) = shapes.values()
    argument = next(iter(inspect.signature(model.call).parameters), "inputs")
    if _is_shape(structure):
        named = {argument: structure}
    elif isinstance(structure, dict):
        named = {name: structure[name] for name in sorted(structure)}  # the order in which Keras flattens
    else:
        named = {f"{argument}_{place}": shape for place, shape in enumerate(structure)}
    if not all(_is_shape(shape) and len(shape) > 0 for shape in named.values()):
        raise LoadError(
            f"Expected a tensor, a list or a dict of tensors. Received: inputs of shapes {structure}.",
            mend="Wrap it: keras.Model(inputs, model(inputs)) with keras.Input inputs, and save that.",
        )
    dtype = "float32" if model.input_dtype == "bfloat16" else model.input_dtype
    return tuple(TensorSpec(name, (None, *shape[1:]), dtype) for name, shape in named.items())


def _is_shape(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(size is None or isinstance(size, int) for size in value)


def cut_subclassed(
    model: keras.Model, paths: Sequence[str], dtypes: dict[str, str] | None = None
) -> Callable[[Sequence[Any]], list[Any]]:
    """As `surgery.cut`; the function is to be traced, not called eagerly.

    Raises:
        LoadError: the model was not built; when traced: the model calls no such layer.
    """
    inputs = input_specs(model)

    def forward(tensors: Sequence[Any]) -> list[Any]:
        trace = _trace(model, tensors)
        named = {spec.name: tensor for spec, tensor in zip(inputs, tensors, strict=True)}
        named |= {path: result.tensor for path, result in trace.results.items()}
        named |= {path: tensor for _, path, tensor in trace.outputs}
        if dtypes is not None:
            dtypes.update((path, crossing_dtype(tensor)) for path, tensor in named.items())
        wanted = [trace.aliases.get(path, path) for path in paths]
        missing = [path for path in wanted if path not in named]
        if missing:
            raise LoadError(
                f"Expected layers that the model calls. Received: {', '.join(missing)}.",
                mend="Ask for a listed layer.",
            )
        return [tf.cast(named[path], crossing_dtype(named[path])) for path in wanted]

    return forward


def describe_subclassed(model: keras.Model) -> ModelSpec:
    """As `surgery.describe`, from one trace; a layer's `compute_share` counts every call up to it.

    There is no bottleneck: without a graph it cannot be told what leads to the output.

    Raises:
        LoadError: the model was not built, cannot be traced, or has an output without a batch axis.
    """
    inputs = input_specs(model)
    trace = _traced_once(model, inputs)
    reached = list(accumulate(result.cost for result in trace.results.values()))
    whole = reached[-1] if reached else 0.0
    layers = [LayerSpec(spec.name, "InputLayer", spec.shape, spec.dtype, 0, 0.0) for spec in inputs]
    for (path, result), cost in zip(trace.results.items(), reached, strict=True):
        layers.append(_layer_spec(path, result.layer, result.tensor, cost / whole if whole else 0.0))
    outputs = []
    for name, path, tensor in trace.outputs:
        if not _has_rows(tensor):
            raise LoadError(
                f"Expected outputs with one row for each input row. Received: '{name}' of shape {tensor.shape}.",
                mend="Save the model with outputs that keep the batch axis in front.",
            )
        layers.append(_layer_spec(path, model, tensor, 1.0))
        outputs.append(
            OutputSpec(
                name, tuple(tensor.shape), crossing_dtype(tensor), path=path, activation=_activation(tensor)
            )
        )
    listed = {layer.path for layer in layers}
    aliases = {name: path for name, path in trace.aliases.items() if path in listed}
    return ModelSpec(inputs, tuple(outputs), tuple(layers), aliases)


def _traced_once(model: keras.Model, inputs: tuple[TensorSpec, ...]) -> _Trace:
    kept: list[_Trace] = []

    def run(*tensors: Any) -> None:
        kept.append(_trace(model, tensors))

    signature = [tf.TensorSpec(spec.shape, spec.dtype) for spec in inputs]
    try:
        tf.function(run, input_signature=signature, autograph=False).get_concrete_function()
    except Exception as error:  # the model's own code may raise anything
        raise LoadError(
            f"Expected {type(model).__name__} to run. Received: {type(error).__name__}: {str(error)[:400]}",
            mend="Check that the model's call works under tf.function, with any number of rows.",
        ) from error
    return kept[0]


def _layer_spec(path: str, layer: Any, tensor: Any, share: float) -> LayerSpec:
    first = getattr(layer, "data_format", None) == "channels_first" and tensor.shape.rank > 2
    shape, kind = tuple(tensor.shape), type(layer).__name__
    return LayerSpec(path, kind, shape, crossing_dtype(tensor), parameters(layer), share, 1 if first else -1)


def _has_rows(tensor: Any) -> bool:
    return tensor.shape.rank is not None and tensor.shape.rank > 0 and tensor.shape[0] is None


def _activation(tensor: Any) -> str | None:
    operation = tensor.op
    while operation.type in _PASSES_ON:
        operation = operation.inputs[0].op
    return _ACTIVATION_OPS.get(operation.type)


def _trace(model: keras.Model, tensors: Sequence[Any]) -> _Trace:
    """Runs the model in the graph that is being traced and remembers what its layers return."""
    (structure,) = model._build_shapes_dict.values()
    if _is_shape(structure):
        inputs = tensors[0]
    elif isinstance(structure, dict):
        inputs = dict(zip(sorted(structure), tensors, strict=True))
    else:
        inputs = list(tensors)
    calls: list[tuple[str, Any, Any, float]] = []
    graph = tf.compat.v1.get_default_graph()
    with _ONE_TRACE, _watched(_layers_of(model, ""), calls), backend.StatelessScope():
        returned = model(inputs, training=False)
    trace = _Trace()
    _name_results(trace, calls, graph)
    flat = tree.flatten_with_path(returned)
    for place, (keys, tensor) in enumerate(flat):
        name = ".".join(key for key in keys if isinstance(key, str)) or model.name
        path = model.name if len(flat) == 1 else f"{model.name}:0:{place}"
        while path in trace.results:  # a layer may have the model's name
            path += "'"
        taken = {other for other, _, _ in trace.outputs}
        trace.outputs.append((name if name not in taken else f"{name}_{place}", path, tensor))
    return trace


def _name_results(trace: _Trace, calls: list[tuple[str, Any, Any, float]], graph: Any) -> None:
    total = Counter(path for path, *_ in calls)
    seen: Counter[str] = Counter()
    for path, layer, returned, cost in calls:
        use, flat = seen[path], tree.flatten(returned)
        seen[path] += 1
        for place, tensor in enumerate(flat):
            if getattr(tensor, "graph", None) is not graph or not _has_rows(tensor):
                continue  # inside a loop or a branch, or no rows
            alone, single = total[path] == 1, len(flat) == 1
            name = path if alone and single else f"{path}:{use}" if single else f"{path}:{use}:{place}"
            trace.results[name] = _Result(layer, tensor, cost)
            if place == 0 and name != path:
                trace.aliases.setdefault(path, name)


def _layers_of(model: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Layers with their paths; only models are looked into, other layers are one layer."""
    taken: Counter[str] = Counter()
    for layer in model.layers:
        path = prefix + layer.name + "'" * taken[layer.name]
        taken[layer.name] += 1
        yield path, layer
        if isinstance(layer, keras.Model):
            yield from _layers_of(layer, path + "/")


@contextmanager
def _watched(layers: Iterable[tuple[str, Any]], calls: list[tuple[str, Any, Any, float]]) -> Iterator[None]:
    watched: dict[int, Any] = {}
    try:
        for path, layer in layers:
            if id(layer) not in watched and "call" not in vars(layer):
                watched[id(layer)] = layer
                object.__setattr__(layer, "call", _watching(path, layer, calls))  # past Keras' own tracking
        yield
    finally:
        for layer in watched.values():
            object.__delattr__(layer, "call")


def _watching(path: str, layer: Any, calls: list[tuple[str, Any, Any, float]]) -> Callable[..., Any]:
    original = layer.call

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        returned = original(*args, **kwargs)
        cost = 0.0
        if not isinstance(layer, keras.Model):
            sources = [tuple(x.shape) for x in tree.flatten((args, kwargs)) if tf.is_tensor(x)]
            cost = layer_cost(layer, sources, [tuple(x.shape) for x in tree.flatten(returned)])
        calls.append((path, layer, returned, cost))
        return returned

    return call
