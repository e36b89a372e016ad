"""Owns putting saved weights into a built model: every array matched and checked before one is assigned.

Source: keras/src/legacy/saving/legacy_h5_format.py (order: trainable, then the others) and
keras/src/saving/saving_lib.py of Keras 3.15.1.
"""
# ruff: noqa: SLF001  -- a model's own weights, outside its layers, are private attributes of Keras

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import keras
import numpy as np

from service.errors import LoadError
from service.loading.hdf5 import Contents, SavedLayer, look, read
from service.loading.legacy import Origin
from service.loading.legacy.weight_layouts import ROTATED, Unit, converted
from service.loading.weight_units import Share, Writer, arranged, shares

_TABLE_ROWS = 12

Row = tuple[str, Any, Any]


def assign_legacy(
    model: keras.Model,
    path: Path,
    contents: Contents,
    names: Mapping[str, str] | None = None,
    writer: Writer | None = None,
) -> tuple[str, ...]:
    """Fills the model from the legacy layout: layers by name if the names agree, else in order.

    Args:
        model: built; its weights are assigned once all of them are found to fit.
        path: the file.
        contents: what the file holds.
        names: a layer's name -> its name in the file, where the two differ.
        writer: how the file's arrays are laid out.

    Returns:
        What was changed in the layout of the arrays, one sentence each.

    Raises:
        LoadError: layers, weights or shapes do not agree; the message holds a table of them.
    """
    layers = [layer for layer in model.layers if layer.weights]
    writer = writer or Writer()
    found: list[Share] = []
    wrong: list[Row] = []
    for layer, saved in _matched(layers, contents, names or {}):
        dealt = shares(layer, saved, writer)
        if dealt is None:
            wrong.append((layer.name, _shapes(layer), _saved_shapes(saved)))
        else:
            found += dealt
    if contents.top_level is not None:
        found.append(_own_weights(model, contents.top_level))
    for share in found:
        wrong += _misfits(share)
    if wrong:
        raise _mismatch(wrong)
    _complete(model, [weight for share in found for weight in share.weights])
    values = read(path, [array for share in found for array in share.arrays])
    for share in found:
        arrays = converted(share.unit, list(islice(values, len(share.arrays))))
        for weight, value in zip(share.weights, arrays, strict=True):
            weight.assign(value)
    for layer in model._flatten_layers():
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return _sentences(writer, found)


def writer_of(contents: Contents, origin: Origin, kernels: str) -> Writer:
    """How the arrays of a file are laid out.

    Args:
        contents: what the file holds.
        origin: what it says of its writer.
        kernels: the operator's word on what computed its convolutions: `auto`, `tensorflow` or `theano`.
    """
    names = [name for layer in contents.layers for name in layer.names]
    keras1 = origin.major == 1 and not any("/" in name for name in names)  # weights alone say no version
    theano = kernels == "theano" or (kernels == "auto" and origin.backend == "theano")
    return Writer(keras1, theano, unknown=keras1 and kernels == "auto" and origin.backend is None)


def _sentences(writer: Writer, found: Sequence[Share]) -> tuple[str, ...]:
    kinds = {share.unit.kind for share in found}
    said = []
    if writer.keras1:
        said.append("keras1-weights: arrays are brought from Keras 1's order and layout to Keras 3's.")
    if writer.theano and not kinds.isdisjoint(ROTATED):
        said.append(
            "theano-kernels: convolution kernels are turned by half a circle, as Theano applied them."
        )
    if writer.unknown and not kinds.isdisjoint(ROTATED):
        said.append(
            "kernels: taken for TensorFlow's, as Keras 1 does not say; "
            'kernels = "theano" in model.toml if Theano trained it.'
        )
    return tuple(said)


def _matched(
    layers: Sequence[Any], contents: Contents, names: Mapping[str, str]
) -> list[tuple[Any, SavedLayer]]:
    """Each layer with weights and what the file has for it."""
    saved = {layer.name: layer for layer in contents.layers}
    wanted = [names.get(layer.name, layer.name) for layer in layers]
    if len(wanted) == len(saved) and set(wanted) == set(saved):
        return [(layer, saved[name]) for layer, name in zip(layers, wanted, strict=True)]
    if len(layers) != len(contents.layers):
        raise _mismatch(
            (layer.name if layer else saved.name if saved else "", _shapes(layer), _saved_shapes(saved))
            for layer, saved in zip_longest(layers, contents.layers)
        )
    return list(zip(layers, contents.layers, strict=True))


def _own_weights(model: keras.Model, saved: SavedLayer) -> Share:
    """The model's own weights, outside its layers."""
    known = {id(weight) for weight in model.weights}
    own = [w for w in model._trainable_variables + model._non_trainable_variables if id(w) in known]
    unit = Unit(type(model).__name__, [tuple(weight.shape) for weight in own])
    return arranged(Share(unit, model.name, own, list(saved.arrays), list(saved.names)))


def _misfits(share: Share) -> list[Row]:
    """The weights whose arrays, once converted, have other shapes; told from shapes alone."""
    blank = [np.broadcast_to(np.float32(0), array.shape) for array in share.arrays]
    try:
        found: list[Any] = [array.shape for array in converted(share.unit, blank)]
    except ValueError:  # arrays of shapes that no version of this layer has
        found = [array.shape for array in share.arrays]
    wanted = [tuple(weight.shape) for weight in share.weights]
    if found == wanted:
        return []
    names = [weight.path for weight in share.weights]
    rows = zip_longest(names, wanted, found)
    return [(name or f"{share.name} (file)", want, have) for name, want, have in rows if want != have]


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
