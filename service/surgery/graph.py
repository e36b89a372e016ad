"""Owns the picture of a Keras model as one flat list of steps, nested models opened, every tensor named.

Keras keeps a functional model as operations whose nodes record their calls. Here the nodes of a model and of
all models nested in it become one list in order of computation, joined by numbered values, so that a tensor
deep inside is reached from the outer inputs, and nothing is ever added to the model.

It runs nothing and lists nothing; `surgery` and `layer_listing` do.

Source: keras/src/ops/function.py (`Function._run_through_graph`), keras/src/models/functional.py
(`Functional.call`, `_standardize_inputs`) and keras/src/layers/layer.py (`Layer.__call__`) of Keras 3.15.1.
"""
# ruff: noqa: SLF001  -- Keras keeps nodes, their order and a Sequential's graph in private attributes

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import keras
from keras.src import backend
from keras.src.layers.layer import Layer
from keras.src.models.functional import Functional
from keras.src.ops.function import make_node_key

from service.errors import LoadError

CROSSING_AS_FLOAT32 = frozenset({"bfloat16", "float8_e4m3fn", "float8_e5m2"})
"""Types that numpy lacks."""


def crossing_dtype(tensor: Any) -> str:
    """The dtype in which a tensor leaves the model: its own, in numpy's words, or float32 where numpy lacks it."""
    name: str = backend.standardize_dtype(tensor.dtype)
    return "float32" if name in CROSSING_AS_FLOAT32 else name


_CALL_WORDS = {"training", "mask"}


@dataclass(frozen=True, slots=True)
class Step:
    """One call of an operation, or (`opens` set) the way of tensors into a nested model.

    Args:
        operation: the Keras operation, layer or nested model.
        node: the recorded call.
        sources: id of each symbolic tensor that the call takes -> the value that stands for it.
        results: the values that it yields, in Keras' flattened order.
        opens: the graph of the nested model whose inputs are the results.
    """

    operation: Any
    node: Any
    sources: dict[int, int]
    results: tuple[int, ...]
    opens: Any = None


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """A tensor that can be asked for.

    Args:
        path: its canonical path.
        value: the value it is.
        symbolic: Keras' own description of it: shape and dtype.
        operation: the operation, layer or nested model that yields it.
    """

    path: str
    value: int
    symbolic: Any
    operation: Any


@dataclass(slots=True)
class Graph:
    """A model, flattened.

    Args:
        functional: the Keras graph behind the model.
        inputs: the values of the model's inputs, in its own order.
        outputs: the values of its outputs, in its own order.
        steps: in order of computation.
        tensors: every tensor with a path, in order of computation.
        aliases: other spellings of a path.
    """

    functional: Any
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    steps: list[Step] = field(default_factory=list)
    tensors: list[NamedTensor] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    values: int = 0

    def producers(self) -> dict[int, int]:
        """Value -> the index of the step that yields it; the model's inputs have none."""
        return {value: index for index, step in enumerate(self.steps) for value in step.results}

    def needed(self, values: Iterable[int]) -> list[Step]:
        """The steps that these values depend on, in order of computation."""
        wanted = set(values)
        found: list[Step] = []
        for step in reversed(self.steps):
            if not wanted.isdisjoint(step.results):
                wanted.update(step.sources.values())
                found.append(step)
        return found[::-1]


def flatten(model: keras.Model) -> Graph:
    """The model's graph.

    Raises:
        LoadError: the model is no graph of layers, or has never been given an input shape.
    """
    functional = graph_of(model)
    if functional is None:
        raise _no_graph(model)
    builder = _Builder(Graph(functional))
    environment = {id(tensor): builder.new_value() for tensor in functional._inputs}
    builder.graph.inputs = tuple(environment[id(tensor)] for tensor in functional._inputs)
    environment = builder.expand(functional, environment, [""])
    builder.graph.outputs = tuple(environment[id(tensor)] for tensor in functional._outputs)
    builder.add_aliases()
    return builder.graph


def graph_of(operation: Any) -> Any:
    """The functional graph that calling `operation` runs, or `None` where its call is code of its own."""
    if isinstance(operation, keras.Sequential):
        functional, call = operation._functional, keras.Sequential.call
    elif isinstance(operation, Functional):
        functional, call = operation, Functional.call
    else:
        return None
    kind = type(operation)
    own_code = kind.call is not call or kind.__call__ is not Layer.__call__ or operation.supports_masking
    return None if own_code else functional


def _no_graph(model: keras.Model) -> LoadError:
    if isinstance(model, keras.Sequential) and model._functional is None:
        return LoadError(
            f"Expected a Sequential model with a known input shape. Received: '{model.name}', never built.",
            mend="Save it again after model.build((None, ...)), or with keras.Input as its first layer.",
        )
    return LoadError(
        f"Expected a functional or Sequential model. Received: {type(model).__name__}.",
        mend="Wrap it: keras.Model(inputs, model(inputs)) with keras.Input inputs, and save that.",
    )


def is_code(model: keras.Model) -> bool:
    """Whether the model's forward pass is Python code of its own, which has no graph to walk."""
    return graph_of(model) is None and type(model) is not keras.Sequential


@dataclass(frozen=True, slots=True)
class _Use:
    """One use of an operation inside its own graph: the `number`-th of several if it is `shared`."""

    name: str
    number: int
    shared: bool

    def spellings(self) -> list[str]:
        """`base`, or `base:0, base` for the first use of several; the canonical one first."""
        if not self.shared:
            return [self.name]
        return [f"{self.name}:{self.number}", *([self.name] if self.number == 0 else [])]

    def tensor_spellings(self, place: int, count: int) -> list[str]:
        """As `spellings`, of one of `count` tensors: `lstm:0:2`; the shorter ones lead to the first tensor."""
        if count == 1:
            return self.spellings()
        shorter = [f"{self.name}:{self.number}", *([self.name] if self.number == 0 else [])]
        return [f"{self.name}:{self.number}:{place}", *(shorter if place == 0 else [])]


class _Builder:
    """Fills a `Graph` while it walks the models from the outside in."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._paths: set[str] = set()
        self._aliases: list[tuple[str, str]] = []

    def new_value(self) -> int:
        self.graph.values += 1
        return self.graph.values - 1

    def expand(self, functional: Any, environment: dict[int, int], prefixes: list[str]) -> dict[int, int]:
        """Appends a graph's steps; `prefixes` are the spellings of the way here, the canonical one first."""
        uses = _uses(functional)
        for node in _in_order(functional, uses):
            use = uses[id(node)]
            if not node.is_input:
                if any(id(tensor) not in environment for tensor in node.input_tensors):
                    continue  # not computable from these inputs; Keras skips it as well
                environment |= self._call(node, environment, _joined(prefixes, use.spellings(), "/"))
            if all(id(tensor) in environment for tensor in node.outputs):
                self._name(node, environment, prefixes, use)
        return environment

    def _call(self, node: Any, environment: dict[int, int], inside: list[str]) -> dict[int, int]:
        sources = {id(tensor): environment[id(tensor)] for tensor in node.input_tensors}
        inner = graph_of(node.operation)
        if inner is None or not _plain_call(node):
            results = tuple(self.new_value() for _ in node.outputs)
            self.graph.steps.append(Step(node.operation, node, sources, results))
        else:
            entered = {id(tensor): self.new_value() for tensor in inner._inputs}
            entries = tuple(entered[id(tensor)] for tensor in inner._inputs)
            self.graph.steps.append(Step(node.operation, node, sources, entries, opens=inner))
            values = self.expand(inner, entered, inside)
            results = tuple(values[id(tensor)] for tensor in inner._outputs)
        return {id(tensor): value for tensor, value in zip(node.outputs, results, strict=True)}

    def _name(self, node: Any, environment: dict[int, int], prefixes: list[str], use: _Use) -> None:
        for place, tensor in enumerate(node.outputs):
            path, *others = _joined(prefixes, use.tensor_spellings(place, len(node.outputs)), "")
            while path in self._paths:  # another layer may itself be called "dense:0"
                path += "'"
            self._paths.add(path)
            self._aliases += [(other, path) for other in others]
            self.graph.tensors.append(NamedTensor(path, environment[id(tensor)], tensor, node.operation))

    def add_aliases(self) -> None:
        """A canonical path wins over an alias, and an earlier alias over a later one."""
        for name, path in self._aliases:
            if name not in self._paths:
                self.graph.aliases.setdefault(name, path)


def _joined(prefixes: list[str], names: list[str], end: str) -> list[str]:
    return [prefix + name + end for prefix in prefixes for name in names]


def _in_order(functional: Any, uses: dict[int, _Use]) -> list[Any]:
    """Nodes in order of computation; among equals as in `model.layers`, so that -2 means Keras' layers[-2]."""
    places = {id(operation): place for place, operation in enumerate(functional._operations)}
    by_depth = functional._nodes_by_depth
    return [
        node
        for depth in sorted(by_depth, reverse=True)
        for node in sorted(
            by_depth[depth], key=lambda node: (places[id(node.operation)], uses[id(node)].number)
        )
    ]


def _plain_call(node: Any) -> bool:
    """Whether a nested model was called with one structure of tensors, as `model(x)` does."""
    return len(node.arguments.args) == 1 and set(node.arguments.kwargs) <= _CALL_WORDS


def _uses(functional: Any) -> dict[int, _Use]:
    """Id of each node -> the use of an operation that it is; calls from elsewhere do not count."""
    found: dict[int, _Use] = {}
    for operation in functional._operations:
        nodes = [
            node
            for index, node in enumerate(operation._inbound_nodes)
            if make_node_key(operation, index) in functional._nodes
        ]
        for number, node in enumerate(nodes):
            found[id(node)] = _Use(operation.name, number, shared=len(nodes) > 1)
    return found
