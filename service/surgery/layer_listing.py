"""Owns the listing: what a model takes and gives, and every tensor in it that has a name.

It computes nothing; shapes, dtypes and weights are read from the built model. The dtypes are those that Keras declares,
and it declares float32 for many layers that pass integers on: what is computed shows when the model is traced
(`surgery.cut`), and an engine's spec has that.
"""
# ruff: noqa: SLF001  -- the structure of a functional model's outputs is a private attribute of Keras

from __future__ import annotations

from typing import Any

import keras
from keras.src import tree
from keras.src.utils.naming import to_snake_case

from service.errors import LoadError
from service.surgery.compute_cost import compute_shares, parameters
from service.surgery.graph import Graph, NamedTensor, Step, crossing_dtype, flatten, is_code
from service.surgery.subclassed import describe_subclassed
from service.tensors import LayerSpec, ModelSpec, OutputSpec, TensorSpec

_DROPOUTS = frozenset(
    [
        "Dropout",
        "SpatialDropout1D",
        "SpatialDropout2D",
        "SpatialDropout3D",
        "AlphaDropout",
        "GaussianDropout",
        "GaussianNoise",
    ]
)
_KEEPS_VALUES = _DROPOUTS | frozenset(["Flatten", "Reshape", "Identity", "Squeeze", "ExpandDims", "Cast"])
_ACTIVATION_CLASSES = frozenset(
    ["Softmax", "Sigmoid", "ReLU", "Relu", "LeakyReLU", "PReLU", "ELU", "Elu", "Tanh", "LogSoftmax"]
)
_MOVES_AXES = frozenset(["Permute", "Reshape", "Transpose", "Moveaxis", "Swapaxes"])


def describe(model: keras.Model) -> ModelSpec:
    """The model's inputs, outputs and layers.

    Shapes and dtypes are the ones that Keras declares. A tensor without a batch axis in front (a scalar, a transposed one) is not listed: its rows cannot be told
    apart. A fixed batch size is reported as free unless a layer keeps state between batches.

    Raises:
        LoadError: the model is no graph of layers, was never built, or has an output without a batch axis.
    """
    if is_code(model):
        return describe_subclassed(model)
    graph = flatten(model)
    batch = graph.functional._inputs[0].shape[0]
    keep = batch if any(getattr(step.operation, "stateful", False) for step in graph.steps) else None
    rows = _Rows(batch, keep)
    shares, axes = compute_shares(graph), _channel_axes(graph)
    layers = tuple(
        LayerSpec(
            path=tensor.path,
            class_name=type(tensor.operation).__name__,
            shape=rows.shape(tensor.symbolic),
            dtype=crossing_dtype(tensor.symbolic),
            parameters=parameters(tensor.operation),
            compute_share=shares[tensor.value],
            channel_axis=axes[tensor.value],
        )
        for tensor in graph.tensors
        if rows.has(tensor.symbolic)
    )
    paths = {layer.path for layer in layers}
    return ModelSpec(
        inputs=_inputs(graph, rows),
        outputs=_outputs(graph, rows),
        layers=layers,
        aliases={name: path for name, path in graph.aliases.items() if path in paths},
        bottleneck=_bottleneck(graph, paths),
    )


class _Rows:
    """Knows which tensors have rows: their first axis is the batch's."""

    def __init__(self, batch: int | None, keep: int | None) -> None:
        self._batch = batch
        self._keep = keep

    def has(self, symbolic: Any) -> bool:
        return len(symbolic.shape) > 0 and symbolic.shape[0] in (None, self._batch)

    def shape(self, symbolic: Any) -> tuple[int | None, ...]:
        return (self._keep, *symbolic.shape[1:])


def _inputs(graph: Graph, rows: _Rows) -> tuple[TensorSpec, ...]:
    found = []
    for symbolic in graph.functional._inputs:
        name = symbolic._keras_history.operation.name
        if symbolic.sparse or not symbolic.shape:
            raise LoadError(
                f"Expected dense inputs with a batch axis. Received: input '{name}' "
                f"({'sparse' if symbolic.sparse else 'a scalar'}).",
                mend="Save the model with dense inputs.",
            )
        found.append(TensorSpec(name, rows.shape(symbolic), crossing_dtype(symbolic)))
    return tuple(found)


def _outputs(graph: Graph, rows: _Rows) -> tuple[OutputSpec, ...]:
    last = {tensor.value: tensor for tensor in graph.tensors}  # the outermost name of a value comes last
    found = []
    for name, symbolic, value in zip(
        _output_names(graph.functional), graph.functional._outputs, graph.outputs, strict=True
    ):
        if not rows.has(symbolic):
            raise LoadError(
                f"Expected outputs with one row for each input row. Received: '{name}' of shape {symbolic.shape}.",
                mend="Save the model with outputs that keep the batch axis in front.",
            )
        found.append(
            OutputSpec(
                name,
                rows.shape(symbolic),
                crossing_dtype(symbolic),
                path=last[value].path,
                activation=_activation(graph, value),
            )
        )
    return tuple(found)


def _output_names(functional: Any) -> list[str]:
    """Keys where the outputs are a dict, else the names of the layers; numbered where one comes twice."""
    names: list[str] = []
    flat = tree.flatten_with_path(functional._outputs_struct)
    for (keys, _), layer_name in zip(flat, functional.output_names, strict=True):
        words = [key for key in keys if isinstance(key, str)]
        name = ".".join(words) or layer_name
        unique, count = name, 0
        while unique in names:
            count += 1
            unique = f"{name}_{count}"
        names.append(unique)
    return names


def _producer(graph: Graph, value: int) -> Step | None:
    index = graph.producers().get(value)
    return None if index is None else graph.steps[index]


def _first_source(step: Step) -> int:
    return step.sources[id(step.node.input_tensors[0])]


def _activation(graph: Graph, value: int) -> str | None:
    """The activation that a tensor ends with; layers that only rearrange values are looked through."""
    while (step := _producer(graph, value)) is not None:
        operation = step.operation
        name = type(operation).__name__
        if isinstance(operation, keras.layers.TimeDistributed):
            operation = operation.layer
        if isinstance(operation, keras.layers.RNN | keras.layers.Bidirectional):
            return None  # its activation acts on the state, not on what comes out
        activation = getattr(operation, "activation", None)
        if step.opens is not None or name in _KEEPS_VALUES or _is_linear_layer(operation):
            value = _first_source(step)
        elif callable(activation):
            return str(getattr(activation, "__name__", None) or to_snake_case(type(activation).__name__))
        else:
            return str(to_snake_case(name)) if name in _ACTIVATION_CLASSES else None
    return None


def _is_linear_layer(operation: Any) -> bool:
    return isinstance(operation, keras.layers.Activation) and operation.activation is keras.activations.linear


def _bottleneck(graph: Graph, paths: set[str]) -> str | None:
    """The input of the last layer with weights on the way to the first output, Dropout skipped."""
    weighted = [
        step
        for step in graph.needed(graph.outputs[:1])
        if step.opens is None and parameters(step.operation) and step.sources
    ]
    if not weighted:
        return None
    value = _first_source(weighted[-1])
    while (step := _producer(graph, value)) is not None and (
        step.opens is not None or type(step.operation).__name__ in _DROPOUTS
    ):
        value = _first_source(step)
    if value in graph.inputs:
        return None
    named: dict[int, NamedTensor] = {tensor.value: tensor for tensor in graph.tensors}
    path = named[value].path
    return path if path in paths else None


def _channel_axes(graph: Graph) -> dict[int, int]:
    """Value -> where its channels are: what its layer says, else as in what the layer takes."""
    axes = dict.fromkeys(graph.inputs, -1)
    for step in graph.steps:
        first = step.node.input_tensors[0]
        outputs = _symbolic_results(step)
        for value, symbolic in zip(step.results, outputs, strict=True):
            axes[value] = _channel_axis(step, symbolic, first, axes[_first_source(step)])
    return axes


def _symbolic_results(step: Step) -> list[Any]:
    """Keras' descriptions of what a step yields."""
    return list(step.opens._inputs if step.opens is not None else step.node.outputs)


def _channel_axis(step: Step, symbolic: Any, source: Any, inherited: int) -> int:
    rank = len(symbolic.shape)
    data_format = getattr(step.operation, "data_format", None)
    if rank < 3:
        return -1
    if data_format is not None:
        return 1 if data_format == "channels_first" else -1
    if isinstance(step.operation, keras.layers.BatchNormalization) and step.operation.axis == 1:
        return 1
    if rank != len(source.shape) or type(step.operation).__name__ in _MOVES_AXES:
        return -1
    return inherited
