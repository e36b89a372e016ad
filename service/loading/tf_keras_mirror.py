"""Owns the face that a `tf_keras` model shows to the service: a `keras.Model` of the same graph, layer for layer.

Each layer of `tf_keras` becomes an operation of Keras 3 that calls it; nested models become nested models, shared
layers stay shared. So everything that lists, cuts, compiles and proves models works on it as on any other, and
nothing is computed twice: the operations hold the very layers. Masks travel on the tensors, where both libraries
keep them under the same name.

Source: tf_keras/src/engine/node.py and functional.py of tf_keras 2.21.0, keras/src/ops/operation.py and
keras/src/backend/common/masking.py of Keras 3.15.1.
"""
# ruff: noqa: SLF001  -- both libraries keep the graph of a model in private attributes

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from service.errors import LoadError

_RECURRENT = ("RNN", "Bidirectional")


class MirroredLayer(keras.Operation):  # type: ignore[misc]  # Keras publishes no types
    """One layer of `tf_keras`, called as it is when a model is served.

    Args:
        inner: the built layer.

    `weights`, `activation`, `data_format` and `index_limit` are what the listing asks layers for.
    """

    def __init__(self, inner: Any) -> None:
        super().__init__(name=_plain(inner.name))
        self.inner = inner
        self.weights = list(inner.weights)
        self.activation = _activation(inner)
        self.data_format = _data_format(inner)
        self.index_limit = getattr(inner, "input_dim", None) if _is_a(inner, ("Embedding",)) else None

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """What the layer gives outside training."""
        if self.inner._expects_training_arg:
            kwargs["training"] = False
        return self.inner(*args, **kwargs)


def mirror(model: Any) -> keras.Model:
    """A `keras.Model` that computes what this model of `tf_keras` does.

    Raises:
        LoadError: it is no graph of layers, or was never built.
    """
    return _Mirror().of(model)


class _Mirror:
    """Remembers what stands for a layer or model, so that shared ones stay shared."""

    def __init__(self) -> None:
        self._operations: dict[int, Any] = {}

    def of(self, model: Any) -> keras.Model:
        if not getattr(model, "_is_graph_network", False) or not model.inputs:
            raise LoadError(
                f"Expected a functional or Sequential model with a known input shape. Received: '{model.name}'.",
                mend="Save it again where it was trained, with an Input as its first layer.",
            )
        tensors = {id(tensor): _input(tensor) for tensor in model.inputs}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if not node.is_input:
                    self._call(node, tensors)
        inputs = _replaced(model._nested_inputs, tensors)
        outputs = _replaced(model._nested_outputs, tensors)
        return keras.Model(inputs, outputs, name=_plain(model.name))

    def _call(self, node: Any, tensors: dict[int, Any]) -> None:
        args = _replaced(list(node.call_args), tensors)
        kwargs = _replaced(dict(node.call_kwargs), tensors)
        kwargs.pop("training", None)
        returned = self._operation(node.layer)(*args, **kwargs)
        for old, new in zip(_flat(node.outputs), _flat(returned), strict=True):
            tensors[id(old)] = new

    def _operation(self, layer: Any) -> Any:
        if id(layer) not in self._operations:
            self._operations[id(layer)] = self.of(layer) if _is_plain_model(layer) else _wrapped(layer)
        return self._operations[id(layer)]


def _wrapped(layer: Any) -> MirroredLayer:
    kind = type(
        type(layer).__name__, (MirroredLayer,), {}
    )  # the listing tells layers by the name of their class
    operation: MirroredLayer = kind(layer)
    return operation


def _is_plain_model(layer: Any) -> bool:
    """Whether calling it runs its graph, and no code of its own."""
    kinds: dict[str, Any] = {
        kind.__name__: kind for kind in type(layer).__mro__ if kind.__module__.startswith("tf_keras")
    }
    kind = kinds.get("Sequential") or kinds.get("Functional")
    return kind is not None and layer._is_graph_network and type(layer).call is kind.call


def _input(tensor: Any) -> Any:
    name = _plain(tensor._keras_history.layer.name)
    return keras.Input(batch_shape=tuple(tensor.shape), dtype=tensor.dtype.name, name=name)


def _replaced(value: Any, tensors: dict[int, Any]) -> Any:
    """The structure in plain containers, each symbolic tensor replaced by its counterpart."""
    return _mapped(value, lambda leaf: tensors.get(id(leaf), leaf))


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_mapped(item, change) for item in value))
    if isinstance(value, list | tuple):
        items = [_mapped(item, change) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    return change(value)


def _flat(value: Any) -> list[Any]:
    found: list[Any] = []
    _mapped(value, found.append)
    return found


def _plain(name: str) -> str:
    return name.replace("/", "_")  # Keras 3 allows no slash


def _is_a(layer: Any, names: tuple[str, ...]) -> bool:
    return any(kind.__name__ in names for kind in type(layer).__mro__)


def _activation(layer: Any) -> Any:
    if _is_a(layer, _RECURRENT):
        return None  # it acts on the state, not on what comes out
    return getattr(getattr(layer, "layer", layer), "activation", None)


def _data_format(layer: Any) -> Any:
    axis = getattr(layer, "axis", None)
    if _is_a(layer, ("BatchNormalizationBase", "BatchNormalization")) and axis in (1, [1]):
        return "channels_first"
    return getattr(layer, "data_format", None)
