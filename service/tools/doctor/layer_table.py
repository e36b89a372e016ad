"""Owns the table of a config's layers: path, class, weights and output shape, with the model's inputs and outputs."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from service.loading.hdf5 import Contents, SavedArray
from service.tools.doctor.graph import Node, ends, entry_of, is_model, nodes
from service.tools.doctor.report import LayerRow, TensorRow
from service.tools.doctor.shapes import output_shapes

MAX_ROWS = 5000
_MAX_NESTING = 20
_OPTIMIZER = frozenset(["optimizer", "optimizer_weights"])


def layer_rows(model: dict[str, Any], parameters: Mapping[str, int]) -> tuple[LayerRow, ...]:
    """The layers of a model's config, nested ones by path.

    Args:
        model: the config.
        parameters: the top layers' numbers of weights, by name.
    """
    rows: list[LayerRow] = []
    for row in _rows(model, "", parameters, 0):
        rows.append(row)
        if len(rows) == MAX_ROWS:
            break
    return tuple(rows)


def _rows(
    model: dict[str, Any], prefix: str, parameters: Mapping[str, int], depth: int
) -> Iterator[LayerRow]:
    shapes = output_shapes(model)
    for node in nodes(model):
        count = parameters.get(node.name, 0) if depth == 0 else None
        yield LayerRow(prefix + node.name, node.label, count, shapes.get(node.name))
        if is_model(node) and depth < _MAX_NESTING:
            yield from _rows(entry_of(node), f"{prefix}{node.name}/", parameters, depth + 1)


def model_ends(model: dict[str, Any]) -> tuple[tuple[TensorRow, ...], tuple[TensorRow, ...]]:
    """The model's inputs and outputs."""
    known = nodes(model)
    shapes = output_shapes(model)
    by_name: dict[str, Node] = {node.name: node for node in known}
    inputs = ends(model, "input_layers", known)
    outputs = ends(model, "output_layers", known)
    return (
        tuple(TensorRow(name, by_name[name].input_shape) for name in inputs),
        tuple(TensorRow(name, shapes.get(name)) for name in outputs),
    )


def numbers_by_layer(contents: Contents, model: dict[str, Any], names: Mapping[str, str]) -> dict[str, int]:
    """How many weights each top layer has.

    Args:
        contents: of the file.
        model: its config.
        names: a layer's name in the config -> its name in the file, where they differ.
    """
    if contents.layers:
        stored = {layer.name: _numbers(layer.arrays) for layer in contents.layers}
        return {node.name: stored.get(names.get(node.name, node.name), 0) for node in nodes(model)}
    by_folder: Counter[str] = Counter()
    for array in contents.arrays:
        parts = array.path.split("/")
        if parts[0] == "layers" and len(parts) > 2:
            by_folder[parts[1]] += math.prod(array.shape)
    return {node.name: by_folder[folder] for folder, node in _folders(nodes(model))}


def _folders(layers: Iterable[Node]) -> Iterator[tuple[str, Node]]:
    """Keras 3 keeps a layer's weights under its class in snake case, numbered from the second on.

    Source: keras/src/saving/saving_lib.py (`_save_container_state`) and keras/src/utils/naming.py of 3.15.1.
    """
    used: Counter[str] = Counter()
    for node in layers:
        word = _snake(node.class_name.rpartition(">")[2])
        yield (f"{word}_{used[word]}" if used[word] else word), node
        used[word] += 1


def _snake(name: str) -> str:
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def weights_of(contents: Contents) -> int:
    """How many numbers the model's own weights have."""
    if contents.layers or contents.top_level:
        layers = [*contents.layers, *([contents.top_level] if contents.top_level else [])]
        return sum(_numbers(layer.arrays) for layer in layers)
    return _numbers(array for array in contents.arrays if array.path.split("/")[0] not in _OPTIMIZER)


def optimizer_bytes(contents: Contents) -> int:
    """The size of the optimiser's state, unpacked."""
    return sum(array.size_bytes for array in contents.arrays if array.path.split("/")[0] in _OPTIMIZER)


def _numbers(arrays: Iterable[SavedArray]) -> int:
    return sum(math.prod(array.shape) for array in arrays)
