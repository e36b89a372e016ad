"""Owns the rows that a model is warmed up and compared with: seeded, of the right dtypes, within its vocabulary.

An input that ends in an Embedding gets indices which that Embedding has, whatever the input's dtype says.
"""
# ruff: noqa: SLF001  -- Keras lists the layers inside a layer in a private method

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from service.surgery.graph import Graph, Step, flatten, is_code
from service.surgery.layer_listing import describe
from service.surgery.subclassed import input_specs
from service.tensors import Array, TensorSpec

FREE_STEPS = 64
"""The size given to a free axis of a sequence, `(N, steps)` or `(N, steps, features)`."""

FREE_PIXELS = 128
"""The size given to a free axis of a picture, `(N, height, width, channels)`: enough for five halvings."""

_KEEPS_INDICES = frozenset(
    [
        "InputLayer",
        "Identity",
        "Cast",
        "Reshape",
        "Flatten",
        "Permute",
        "Transpose",
        "ExpandDims",
        "Squeeze",
        "GetItem",
        "Concatenate",
        "Stack",
        "Split",
        "RepeatVector",
        "Dropout",
        "Masking",
    ]
)


def seeded_rows(model: keras.Model, rows: int, *, seed: int = 0) -> dict[str, Array]:
    """Input name -> `(rows, *row shape)` in the input's dtype, the same for the same seed.

    Floats are normally distributed, booleans fair, integers 0 or 1 unless an Embedding takes them, free axes
    `FREE_STEPS` or `FREE_PIXELS` long.

    Raises:
        LoadError: the model is no graph of layers.
    """
    generator = np.random.default_rng(seed)
    if is_code(model):  # no graph tells which input an Embedding takes
        limit = _smallest_vocabulary(model)
        return {spec.name: _fill(spec, rows, limit, generator) for spec in input_specs(model)}
    graph = flatten(model)
    limits = _index_limits(graph)
    return {
        spec.name: _fill(spec, rows, limits.get(value), generator)
        for spec, value in zip(describe(model).inputs, graph.inputs, strict=True)
    }


def _fill(spec: TensorSpec, rows: int, limit: int | None, generator: np.random.Generator) -> Array:
    free = FREE_PIXELS if len(spec.shape) == 4 else FREE_STEPS
    shape = (rows, *(free if size is None else size for size in spec.row_shape))
    if spec.dtype == "string":
        return generator.choice(np.array([b"one", b"two", b"three"], dtype=object), shape)
    if limit is not None:
        return generator.integers(0, limit, shape).astype(spec.dtype)
    if spec.dtype == "bool" or np.issubdtype(np.dtype(spec.dtype), np.integer):
        return generator.integers(0, 2, shape).astype(spec.dtype)
    return generator.standard_normal(shape).astype(spec.dtype)


def _index_limits(graph: Graph) -> dict[int, int]:
    """Model input -> the exclusive upper bound of the indices that the layers behind it take."""
    origins: dict[int, set[int]] = {value: {value} for value in graph.inputs}
    limits: dict[int, int] = {}
    for step in graph.steps:
        reached: set[int] = set().union(*(origins.get(source, set()) for source in step.sources.values()))
        limit = None if step.opens is not None else _smallest_vocabulary(step.operation)
        if limit is not None:
            limits |= {value: min(limit, limits.get(value, limit)) for value in reached}
        if _passes_indices(step):
            origins |= dict.fromkeys(step.results, reached)
    return limits


def _smallest_vocabulary(operation: Any) -> int | None:
    if not hasattr(operation, "_flatten_layers"):
        limit: int | None = getattr(operation, "index_limit", None)  # a layer of tf_keras
        return limit
    sizes = [
        layer.input_dim if isinstance(layer, keras.layers.Embedding) else layer.num_tokens
        for layer in operation._flatten_layers()
        if isinstance(layer, keras.layers.Embedding | keras.layers.CategoryEncoding)
    ]
    return min((size for size in sizes if size), default=None)


def _passes_indices(step: Step) -> bool:
    if step.opens is not None:
        return True
    return type(step.operation).__name__ in _KEEPS_INDICES
