"""Owns which of a layer's saved arrays belong to which layer inside it.

A file lists the arrays of each top-level layer in one row: of a nested model all trained ones, then the others,
as they were trained then. The *units* are the layers inside that hold weights; arrays are dealt to them by the
names that they carry, or in the row's order where these tell nothing.

Source: keras-team/keras@1.2.2 `keras/engine/topology.py` and keras-team/keras@2.2.4 `keras/engine/saving.py` for
the names; keras/src/legacy/saving/legacy_h5_format.py of Keras 3.15.1 for the order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from service.loading.hdf5 import SavedArray, SavedLayer
from service.loading.legacy.weight_layouts import Unit, saved_count

_RANDOM_STATE = "StateVar"  # of tf.keras' preprocessing layers; Keras 3 keeps it elsewhere


@dataclass(frozen=True, slots=True)
class Writer:
    """How the arrays of a file are laid out.

    Args:
        keras1: whether Keras 1 wrote them.
        theano: whether Theano computed with them.
        unknown: whether nobody says what computed with them.
    """

    keras1: bool = False
    theano: bool = False
    unknown: bool = False


@dataclass(slots=True)
class Share:
    """A unit, its weights in Keras 3, and its arrays with the names that the file gives them."""

    unit: Unit
    name: str
    weights: list[Any]
    arrays: list[SavedArray]
    names: list[str]


def shares(layer: Any, saved: SavedLayer, writer: Writer) -> list[Share] | None:
    """Each unit of a top-level layer with its arrays, or `None` where their numbers do not fit."""
    kept = [
        (name, array)
        for name, array in zip(saved.names, saved.arrays, strict=True)
        if _RANDOM_STATE not in name
    ]
    units = [(inner, _unit(inner, writer)) for inner in _units(layer)]
    if sum(len(unit.shapes) for _, unit in units) != len(layer.weights):
        units = [(layer, _unit(layer, writer))]  # weights outside its inner layers: one unit, in Keras' order
    dealt = _by_name(units, kept) or _in_order(units, kept)
    if dealt is None:
        return None
    found = []
    for (inner, unit), own in zip(units, dealt, strict=True):
        names, arrays = [name for name, _ in own], [array for _, array in own]
        found.append(Share(unit, inner.name, _weights(inner), arrays, names))
    return [arranged(share) for share in found]


def _weights(layer: Any) -> list[Any]:
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _units(layer: Any) -> Iterator[Any]:
    """The layers that hold weights, in Keras 3's order."""
    if isinstance(layer, keras.Model):
        inner = layer.layers
    elif isinstance(layer, keras.layers.Bidirectional):
        inner = [layer.forward_layer, layer.backward_layer]
    elif isinstance(layer, keras.layers.RNN) and isinstance(layer.cell, keras.layers.StackedRNNCells):
        inner = layer.cell.cells
    elif isinstance(getattr(layer, "layer", None), keras.layers.Layer):
        inner = [layer.layer]
    else:
        if layer.weights:
            yield layer
        return
    seen: set[int] = set()
    for item in inner:
        if id(item) not in seen:
            seen.add(id(item))
            yield from _units(item)


def _unit(layer: Any, writer: Writer) -> Unit:
    cell = getattr(layer, "cell", layer) if isinstance(layer, keras.layers.RNN) else layer
    first = getattr(layer, "data_format", None) or getattr(cell, "data_format", None)
    return Unit(
        kind=type(layer if type(layer) is not keras.layers.RNN else cell).__name__.removesuffix("Cell"),
        shapes=[tuple(weight.shape) for weight in _weights(layer)],
        channels_first=first == "channels_first",
        keras1=writer.keras1,
        theano=writer.theano,
    )


Named = tuple[str, SavedArray]
Dealt = list[list[Named]]


def _by_name(units: Sequence[tuple[Any, Unit]], kept: Sequence[Named]) -> Dealt | None:
    """By the layers' names in the arrays' names, if each array has exactly one owner and the numbers fit."""
    dealt: Dealt = [[] for _ in units]
    for name, array in kept:
        owners = [place for place, (layer, _) in enumerate(units) if _owns(layer.name, name)]
        if len(owners) != 1:
            return None
        dealt[owners[0]].append((name, array))
    fits = all(len(own) in _counts(unit) for own, (_, unit) in zip(dealt, units, strict=True))
    return dealt if fits else None


def _counts(unit: Unit) -> set[int]:
    return {len(unit.shapes), saved_count(unit)}


def _owns(layer: str, weight: str) -> bool:
    """`dense_1/kernel:0`, `td/dense_1/kernel:0`, or Keras 1's `dense_1_W:0` and `dense_1_W_i:0`."""
    path = weight.split("/")
    return layer in path[:-1] or (len(path) == 1 and weight.startswith(f"{layer}_"))


def _in_order(units: Sequence[tuple[Any, Unit]], kept: Sequence[Named]) -> Dealt | None:
    """The trained ones of all units, then the others; with Keras 1's numbers if only those fit."""
    for count in (_as_many, _as_keras1):
        dealt: Dealt = [[] for _ in units]
        rest = list(kept)
        for trained in (True, False):
            for place, (layer, unit) in enumerate(units):
                number = count(layer, unit, trained=trained)
                dealt[place] += rest[:number]
                rest = rest[number:]
        if not rest and all(len(own) in _counts(unit) for own, (_, unit) in zip(dealt, units, strict=True)):
            return dealt
    return None


def _as_many(layer: Any, _: Unit, *, trained: bool) -> int:
    return len(layer.trainable_weights if trained else layer.non_trainable_weights)


def _as_keras1(layer: Any, unit: Unit, *, trained: bool) -> int:
    own = _as_many(layer, unit, trained=trained)
    return saved_count(unit) if own == len(unit.shapes) else own


def arranged(share: Share) -> Share:
    """The arrays in the order of the weights, where the ends of their names agree; else as the file has them."""
    if len(share.arrays) != len(share.weights):
        return share
    for end in (_last_two, _last):
        wanted = [end(weight.path) for weight in share.weights]
        found = dict(zip(map(end, share.names), share.arrays, strict=True))
        if len(set(wanted)) == len(wanted) and set(wanted) == set(found):
            share.arrays = [found[name] for name in wanted]
            return share
    return share


def _last_two(name: str) -> str:
    return "/".join(name.rsplit(":", 1)[0].split("/")[-2:])


def _last(name: str) -> str:
    """Keras 1's `highway_1_W_carry` ends as Keras 3's `carry_kernel` does, once both are spelt alike."""
    end = name.rsplit(":", 1)[0].rsplit("/", maxsplit=1)[-1]
    for old, new in _KERAS1_ENDS:
        if end.endswith(old):
            return new
    return end


_KERAS1_ENDS = (
    ("_W_carry", "carry_kernel"),
    ("_b_carry", "carry_bias"),
    ("_running_mean", "moving_mean"),
    ("_running_std", "moving_variance"),
    ("_gamma", "gamma"),
    ("_beta", "beta"),
    ("_W", "kernel"),
    ("_U", "recurrent_kernel"),
    ("_b", "bias"),
)
