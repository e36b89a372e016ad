"""Owns putting saved weights into a built model: every array matched and checked before one is assigned.

Source: keras/src/legacy/saving/legacy_h5_format.py (order: trainable, then the others) and
keras/src/saving/saving_lib.py of Keras 3.15.1.
"""
# ruff: noqa: SLF001  -- a model's own weights, outside its layers, are private attributes of Keras

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import keras

from service.errors import LoadError
from service.loading.hdf5 import Contents, SavedArray, SavedLayer, look, read

_TABLE_ROWS = 12

Pair = tuple[Any, SavedArray]
Row = tuple[str, Any, Any]


def assign_legacy(model: keras.Model, path: Path, contents: Contents) -> None:
    """Fills the model from the legacy layout: layers by name if the names agree, else in order.

    Raises:
        LoadError: layers, weights or shapes do not agree; the message holds a table of them.
    """
    layers = [layer for layer in model.layers if layer.weights]
    saved = {layer.name: layer for layer in contents.layers}
    by_name = {layer.name for layer in layers} == set(saved)
    if not by_name and len(layers) != len(contents.layers):
        raise _mismatch(
            (layer.name if layer else saved.name if saved else "", _shapes(layer), _saved_shapes(saved))
            for layer, saved in zip_longest(layers, contents.layers)
        )
    pairs: list[Pair] = []
    wrong: list[Row] = []
    for place, layer in enumerate(layers):
        source = saved[layer.name] if by_name else contents.layers[place]
        _match(layer.name, layer.trainable_weights + layer.non_trainable_weights, source, pairs, wrong)
    if contents.top_level is not None:
        known = {id(weight) for weight in model.weights}
        own = [w for w in model._trainable_variables + model._non_trainable_variables if id(w) in known]
        _match(model.name, own, contents.top_level, pairs, wrong)
    if wrong:
        raise _mismatch(wrong)
    _complete(model, [weight for weight, _ in pairs])
    for (weight, _), value in zip(pairs, read(path, [array for _, array in pairs]), strict=True):
        weight.assign(value)
    for layer in layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _match(
    layer_name: str, weights: Sequence[Any], source: SavedLayer, pairs: list[Pair], wrong: list[Row]
) -> None:
    arrays = _in_order_of(weights, source)
    for weight, array in zip_longest(weights, arrays):
        if weight is not None and array is not None and tuple(weight.shape) == array.shape:
            pairs.append((weight, array))
        else:
            name = weight.path if weight is not None else f"{layer_name} (file: {array.path})"
            wrong.append((name, None if weight is None else tuple(weight.shape), array and array.shape))


def _in_order_of(weights: Sequence[Any], source: SavedLayer) -> list[SavedArray]:
    """By the ends of their names where these agree; the order alone changes when a layer is frozen."""
    wanted = [_name_end(weight.path) for weight in weights]
    by_end = dict(zip(map(_name_end, source.names), source.arrays, strict=True))
    if len(set(wanted)) == len(wanted) == len(source.arrays) and set(wanted) == set(by_end):
        return [by_end[end] for end in wanted]
    return list(source.arrays)


def _name_end(name: str) -> str:
    return "/".join(name.rsplit(":", 1)[0].split("/")[-2:])


def _complete(model: keras.Model, assigned: Iterable[Any]) -> None:
    found = {id(weight) for weight in assigned}
    left = [weight.path for weight in model.weights if id(weight) not in found]
    if left:
        raise LoadError(
            f"Expected values for all {len(model.weights)} weights. Received: none for {', '.join(left[:5])}.",
            mend="Save the weights of this very architecture again.",
        )


def assign_keras3(model: keras.Model, path: Path, contents: Contents) -> None:
    """Fills the model from the layout of Keras 3's `save_weights`, whatever the file is called.

    The model's own weights are written once in that layout, so that the two lists can be compared.

    Raises:
        LoadError: weights or shapes do not agree; the message holds a table of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "own.weights.h5"
        model.save_weights(own)
        expected = _variables(look(own))
        own.unlink()
        found = _variables(contents)
        if expected != found:
            raise _mismatch(
                (name, expected.get(name), found.get(name))
                for name in sorted(expected.keys() | found.keys())
                if expected.get(name) != found.get(name)
            )
        link = Path(folder) / "saved.weights.h5"  # Keras tells the layout by the ending of the name
        link.symlink_to(path.resolve())
        model.load_weights(link)


def _variables(contents: Contents) -> dict[str, tuple[int, ...]]:
    """Path -> shape of what belongs to the model; `_layer_checkpoint_dependencies` is Keras 2.12's `layers`."""
    return {
        array.path.replace("_layer_checkpoint_dependencies", "layers"): array.shape
        for array in contents.arrays
        if array.path.split("/")[0] != "optimizer"
    }


def _shapes(layer: Any) -> Any:
    return layer and [tuple(weight.shape) for weight in layer.trainable_weights + layer.non_trainable_weights]


def _saved_shapes(layer: SavedLayer | None) -> Any:
    return layer and [array.shape for array in layer.arrays]


def _mismatch(rows: Iterable[Row]) -> LoadError:
    table = [("weight", "expected", "found")]
    table += [(name, _cell(expected), _cell(found)) for name, expected, found in rows]
    shown = table[: _TABLE_ROWS + 1]
    widths = [max(len(row[column]) for row in shown) for column in range(2)]
    lines = [f"  {name:<{widths[0]}}  {expected:<{widths[1]}}  {found}" for name, expected, found in shown]
    if len(table) > len(shown):
        lines.append(f"  and {len(table) - len(shown)} more")
    return LoadError(
        "Expected weights of the architecture's shapes. Received:\n" + "\n".join(lines),
        mend="Give the architecture that these weights were saved from.",
    )


def _cell(shape: Any) -> str:
    return "nothing" if shape is None else str(shape)
