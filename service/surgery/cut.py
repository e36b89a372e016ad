"""Owns the cut: a function of a model's inputs that yields exactly the tensors asked for, wherever they lie.

Keras' own way, `keras.Model(model.inputs, layer.output)`, cannot reach into nested models and adds nodes to the
layers it touches. Here the recorded calls are run again, only those that the wanted tensors depend on, with
`training=False`, masks passed on as Keras passes them. The model is not changed, not even its state: what a
layer would assign during the pass (a stateful RNN, a random seed) is forgotten after it.

Source: keras/src/models/functional.py (`Functional.call`, `operation_fn`), keras/src/ops/function.py
(`Function._run_through_graph`) and keras/src/layers/layer.py (`Layer.__call__`, steps 1 and 6) of Keras 3.15.1.
"""
# ruff: noqa: SLF001  -- Keras keeps what a nested model does to its inputs in private methods

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras.src import backend, tree

from service.errors import LoadError
from service.surgery.graph import Graph, Step, crossing_dtype, flatten, is_code
from service.surgery.layer_listing import describe
from service.surgery.seeded_rows import seeded_rows
from service.surgery.subclassed import cut_subclassed

__all__ = ["cut", "describe", "seeded_rows"]

Forward = Callable[[Sequence[Any]], list[Any]]


def cut(model: keras.Model, paths: tuple[str, ...], dtypes: dict[str, str] | None = None) -> Forward:
    """A function that computes these tensors and what they depend on, nothing else.

    Args:
        model: a loaded model.
        paths: canonical paths or aliases, as `describe` lists them.
        dtypes: is told, when the function is traced or called, which dtype each tensor on the way has: path -> dtype
            as it crosses the border. Keras' own declaration is float32 for many layers that pass integers on.

    Returns:
        A function of the model's inputs, tensors of shape `(N, *row shape)` in the order of the spec, that
        returns one tensor a path in the same order. It can be traced by `tf.function` with a free batch axis
        and called from any thread. Types that numpy lacks (bfloat16) come out as float32.

    Raises:
        LoadError: the model is no graph of layers, or has no such tensor.
    """
    if is_code(model):
        return cut_subclassed(model, paths, dtypes)
    graph = flatten(model)
    values = _values(graph, paths)
    steps = graph.needed(values)

    def forward(tensors: Sequence[Any]) -> list[Any]:
        entered = graph.functional._convert_inputs_to_tensors(list(tensors))
        computed = dict(zip(graph.inputs, entered, strict=True))
        with backend.StatelessScope():  # assignments stay in the scope: equal requests get equal replies
            for step in steps:
                computed.update(zip(step.results, _run(step, computed), strict=False))
        if dtypes is not None:
            named = (tensor for tensor in graph.tensors if hasattr(computed.get(tensor.value), "dtype"))
            dtypes.update((tensor.path, crossing_dtype(computed[tensor.value])) for tensor in named)
        return [_crossing(computed[value]) for value in values]

    return forward


def _values(graph: Graph, paths: tuple[str, ...]) -> list[int]:
    by_path = {tensor.path: tensor.value for tensor in graph.tensors}
    found = []
    for path in paths:
        value = by_path.get(graph.aliases.get(path, path))
        if value is None:
            raise LoadError(
                f"Expected a layer of the model. Received: {path!r}.", mend="Ask for a listed layer."
            )
        found.append(value)
    return found


def _run(step: Step, computed: dict[int, Any]) -> list[Any]:
    tensors = {symbolic: computed[value] for symbolic, value in step.sources.items()}
    args, kwargs = step.node.arguments.fill_in(tensors)
    if step.opens is not None:
        return _enter(step.operation, step.opens, args[0], kwargs.get("mask"))
    if "training" in getattr(step.operation, "_call_context_args", ()):
        kwargs = {**kwargs, "training": False}  # wins over a recorded training=True, as in Functional.call
    results: list[Any] = tree.flatten(step.operation(*args, **kwargs))
    return results


def _enter(model: Any, functional: Any, inputs: Any, mask: Any) -> list[Any]:
    """What calling a nested model does to its inputs before its first layer runs."""
    if mask is None:
        mask = tree.map_structure(backend.get_keras_mask, inputs)
    if model._convert_input_args:  # a Sequential; a functional model converts each input for itself
        inputs = tree.map_structure(
            lambda x: model.dtype_policy.convert_input(x, model.autocast, model.input_dtype), inputs
        )
    entered: list[Any] = functional._standardize_inputs(inputs)
    for tensor, its_mask in zip(entered, tree.flatten(mask), strict=False):
        if its_mask is not None:
            backend.set_keras_mask(tensor, its_mask)
    return entered


def _crossing(tensor: Any) -> Any:
    dtype = crossing_dtype(tensor)
    return tensor if dtype == backend.standardize_dtype(tensor.dtype) else backend.cast(tensor, dtype)
