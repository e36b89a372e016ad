"""Owns the calls that a functional config records, brought from Keras 1's and 2's lists to Keras 3's arguments.

A *place* is one tensor of one call: `[layer, node index, tensor index]`, with keyword arguments as a fourth
element where the call had some.

Source: keras-team/keras@2.2.4 `keras/engine/network.py`, get_config; keras-team/tf-keras@v2.21.0
`tf_keras/engine/node.py`, serialize; keras/src/models/functional.py (`deserialize_node`, `get_tensor`) of
Keras 3.15.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from service.errors import LoadError
from service.loading.legacy.record import Entry, Record, layer_name, unrepairable
from service.loading.legacy.recurrent import RECURRENT

_CONSTANT = "_CONSTANT_VALUE"
_NOTHING_IF_NONE = {"training", "mask", "initial_state", "constants"}
_SAVE_AGAIN = "Save the model again with model.save where it was trained."


def is_functional(entry: Entry) -> bool:
    """Whether the entry is a model with a graph, of whatever class."""
    config = entry.get("config")
    return isinstance(config, dict) and all(
        key in config for key in ("layers", "input_layers", "output_layers")
    )


def is_model(entry: Entry) -> bool:
    """Whether the entry holds layers of its own."""
    return entry.get("class_name") == "Sequential" or is_functional(entry)


def calls(entry: Entry, record: Record) -> None:
    """Before Keras 3: every call of every layer as `args` and `kwargs`, models counted as Keras 3 counts them."""
    config = entry["config"]
    layers = {layer["name"]: layer for layer in config["layers"]}
    if any(isinstance(node, dict) for layer in layers.values() for node in layer["inbound_nodes"]):
        return  # Keras 3 wrote it
    offsets = _offsets(config, layers)
    if any(offsets.values()):
        record.changed(
            "nested-models",
            "a nested model's own call is no longer counted",
            ", ".join(filter(offsets.get, offsets)),
        )

    def tensor(place: list[Any]) -> Entry:
        name, node, index = place[:3]
        if name not in layers:
            raise LoadError(
                f"Expected a call of a layer in the model. Received: a call of {name!r}.", mend=_SAVE_AGAIN
            )
        history = [name, node - offsets[name], index]
        own = {
            "shape": [None],
            "dtype": "float32",
            "keras_history": history,
        }  # Keras looks at the history alone
        return {"class_name": "__keras_tensor__", "config": own}

    for layer in layers.values():
        nodes = [_call(layer, node, tensor, record) for node in layer["inbound_nodes"] if node]
        layer["inbound_nodes"] = nodes
        layer.pop("call_arguments", None)
    for key in ("input_layers", "output_layers"):
        places = _mapped(config[key], lambda place: _end(place, layers, offsets))
        config[key] = places[0] if isinstance(places, list) and len(places) == 1 else places


def _offsets(config: dict[str, Any], layers: dict[str, Entry]) -> dict[str, int]:
    """What to take off each layer's node numbers: 1 for models that counted their own node as the first call.

    Keras 1 and 2 count it, tf.keras does for models with an input layer, Keras 3 never. The numbers themselves
    tell: without that node, the last call's number is one less than the number of calls.
    """
    last = dict.fromkeys(layers, 0)
    for place in _places([layer["inbound_nodes"] for layer in layers.values()] + [config["output_layers"]]):
        if place[0] in last:
            last[place[0]] = max(last[place[0]], place[1])
    return {
        name: int(is_model(layer) and 0 < len(layer["inbound_nodes"]) <= last[name])
        for name, layer in layers.items()
    }


def _end(place: list[Any], layers: dict[str, Entry], offsets: dict[str, int]) -> list[Any]:
    """A place at the model's border, where Keras 3 itself takes one off for functional models."""
    name, node, index = place[:3]
    functional = name in layers and is_functional(layers[name])
    return [name, node - offsets.get(name, 0) + int(functional), index]


def _call(layer: Entry, node: Any, tensor: Callable[[list[Any]], Entry], record: Record) -> Entry:
    added = layer.get("call_arguments", {})
    first = _mapped(node, lambda place: place[2] if place[0] == _CONSTANT else tensor(place))
    kwargs: dict[str, Any] = {}
    for place in _places(node):
        kwargs |= (place[3] if len(place) == 4 else {}) or {}
    kwargs = {
        key: _mapped(value, tensor)
        for key, value in (kwargs | added).items()
        if not (value is None and key in _NOTHING_IF_NONE)
    }
    if layer["class_name"] == "TensorFlowOperator":  # keeps the structure of its first argument
        kwargs.pop("name", None)
        return _operator_call(first, kwargs)
    if isinstance(first, list) and len(first) == 1:
        first = first[0]
    if layer["class_name"] in RECURRENT and isinstance(first, list):
        first, *states = first
        if layer["config"].get("num_constants"):
            raise unrepairable(layer, "constants beside its states", _SAVE_AGAIN)
        kwargs["initial_state"] = states
        record.changed("initial-state", "states given as inputs become initial_state", layer_name(layer))
    return {"args": [first], "kwargs": kwargs}


def _operator_call(first: Any, named: dict[str, Any]) -> Entry:
    """Keras 3 takes no mixture of tensors and numbers: the tensors in one list, and where each of them goes."""
    tensors: list[Entry] = []

    def taken_out(value: Any) -> Any:
        if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            tensors.append(value)
            return {"tensor": len(tensors) - 1}
        if isinstance(value, list):
            return [taken_out(item) for item in value]
        return {key: taken_out(item) for key, item in value.items()} if isinstance(value, dict) else value

    arguments = {"first": taken_out(first), "named": taken_out(named)}
    return {"args": [tensors], "kwargs": {"arguments": arguments}}


def _is_place(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) in {3, 4}
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and (isinstance(value[2], int) or value[0] == _CONSTANT)
    )


def _mapped(value: Any, change: Callable[[list[Any]], Any]) -> Any:
    """A nested structure with its places changed."""
    if _is_place(value):
        return change(value)
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    return value


def _places(value: Any) -> Iterator[list[Any]]:
    """The places in a nested structure, those in keyword arguments included."""
    if _is_place(value):
        yield value
        value = value[3] if len(value) == 4 else []
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _places(item)
