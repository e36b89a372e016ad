"""Owns the outline that every model's config has, whichever Keras wrote it: entries, names, calls and shapes.

A config is JSON that anybody may have written. What repairs and Keras take for granted is checked here first, so
that a damaged one is told by the place of the damage and not by what stumbles over it. It knows no layer's own
arguments, save those that hold other layers.

Source: keras-team/keras@2.2.4 `keras/engine/network.py`, get_config; keras/src/models/functional.py
(`functional_from_config`) and keras/src/saving/serialization_lib.py of Keras 3.15.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.errors import LoadError
from service.loading.legacy.graph import is_functional
from service.loading.legacy.record import Entry, layer_name

_HOLDERS = {
    "TimeDistributed": ("layer",),
    "Bidirectional": ("layer", "backward_layer"),
    "RNN": ("cell",),
    "StackedRNNCells": ("cells",),
    "Merge": ("layers",),
}
_SHAPES = ("batch_input_shape", "batch_shape")
_CONSTANT = "_CONSTANT_VALUE"
_SHOWN = 80
_MAX_TENSORS = 10_000  # outputs of one call
_MEND = "Save the model again with model.save and copy the whole file."


def refuse_misshapen(config: Any) -> None:
    """Checks that a config consists of layers, each with its class, its arguments and its calls.

    Args:
        config: a model's, as it stands in the file or with lists for its tuples.

    Raises:
        LoadError: names the layer and what it has in the wrong place.
    """
    waiting: list[tuple[Any, str]] = [(config, "the model")]
    while waiting:
        entry, place = waiting.pop()
        _check_entry(entry, place)
        waiting += _inner(entry)
        if is_functional(entry):
            _check_graph(entry)


def _check_entry(entry: Any, place: str) -> None:
    if not isinstance(entry, dict):
        raise _misshapen(f"{place} to be an object with class_name and config", entry)
    if not isinstance(entry.get("class_name"), str):
        raise _misshapen(f"a class_name for {place}", entry.get("class_name"))
    config = entry.get("config")
    if isinstance(config, list) and entry["class_name"] == "Sequential":
        return  # before Keras 2.2.3
    of_keras3 = "module" in entry and (config is None or isinstance(config, str))
    if not isinstance(config, dict) and not of_keras3:
        raise _misshapen(f"a config for the {_told(entry)}", config)
    inner = config if isinstance(config, dict) else {}
    for name in (entry.get("name"), inner.get("name")):
        if not isinstance(name, str | None):
            raise _misshapen(f"a word as the name of {place}", name)
    for key in _SHAPES:
        _check_shape(inner.get(key), key, entry)


def _check_shape(shape: Any, key: str, entry: Entry) -> None:
    if shape is None:
        return
    is_shape = isinstance(shape, list) and bool(shape)
    if not is_shape or not all(size is None or type(size) is int or isinstance(size, list) for size in shape):
        raise _misshapen(f"a list of sizes as {key} of the {_told(entry)}", shape)


def _inner(entry: Entry) -> Iterator[tuple[Any, str]]:
    """The layers that an entry holds, each with the words for it until its name is known."""
    kind, config = entry["class_name"], entry["config"]
    if isinstance(config, list):
        config = {"layers": config}
    if not isinstance(config, dict):
        return
    is_model = kind == "Sequential" or is_functional(entry)
    if is_model and not isinstance(config.get("layers"), list):
        raise _misshapen(f"a list of layers in the {_told(entry)}", config.get("layers"))
    for key in ("layers",) if is_model else _HOLDERS.get(kind, ()):
        value = config.get(key)
        for number, item in enumerate(value if isinstance(value, list) else [value]):
            if value is not None:
                name = layer_name(item) if isinstance(item, dict) else ""
                yield item, f"layer {name or number + 1!r} of the {_told(entry)}"


def _check_graph(entry: Entry) -> None:
    config = entry["config"]
    for layer in config["layers"]:
        if not isinstance(layer, dict) or not isinstance(layer.get("name"), str):
            raise _misshapen(f"a name for each layer of the {_told(entry)}", layer)
        nodes = layer.get("inbound_nodes")
        if not isinstance(nodes, list) or not all(isinstance(node, list | dict) for node in nodes):
            raise _misshapen(f"a list of calls as inbound_nodes of the {_told(layer)}", nodes)
        _check_places(nodes, layer)
    for key in ("input_layers", "output_layers"):
        _check_ends(config[key], key, entry)


def _check_ends(value: Any, key: str, entry: Entry) -> None:
    """The model's border: nothing but tensors of calls that there are, in lists and dicts."""
    calls = {layer["name"]: max(len(layer["inbound_nodes"]), 1) for layer in entry["config"]["layers"]}
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list) and len(item) == 3 and isinstance(item[0], str):
            # models of Keras 1 and 2 count the node that they were built with as their first call
            is_there = type(item[1]) is int and 0 <= item[1] <= calls.get(item[0], -1)
            if not is_there or type(item[2]) is not int or not 0 <= item[2] < _MAX_TENSORS:
                raise _misshapen(f"a tensor of one of its layers in {key} of the {_told(entry)}", item)
        elif isinstance(item, list | dict):
            waiting += item.values() if isinstance(item, dict) else item
        else:
            raise _misshapen(f"[layer, node, tensor] in {key} of the {_told(entry)}", item)


def _check_places(value: Any, entry: Entry) -> None:
    """Old places are `[layer, node, tensor]`, with keyword arguments as a fourth where the call had some."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list):
            is_place = len(item) in {3, 4} and isinstance(item[0], str) and type(item[1]) is int
            if is_place and item[0] != _CONSTANT:
                is_right = type(item[2]) is int and isinstance((*item, None)[3], dict | None)
                if not is_right or item[1] < 0 or item[2] < 0:
                    raise _misshapen(f"[layer, node, tensor] in a call of the {_told(entry)}", item)
            waiting += item


def _told(entry: Entry) -> str:
    return f"{entry.get('class_name'):.{_SHOWN}} {layer_name(entry)[:_SHOWN]!r}"


def _misshapen(expected: str, received: Any) -> LoadError:
    shown = "nothing" if received is None else f"{type(received).__name__} {received!r:.{_SHOWN}}"
    return LoadError(f"Expected {expected}. Received: {shown}.", mend=_MEND)
