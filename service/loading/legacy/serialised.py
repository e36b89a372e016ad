"""Owns the last step: every object of a config with its module, as Keras 3 writes it.

A config in that form never meets Keras' reader for old files, which drops lists of axes, takes strings for
functions of `keras.layers` and forgets the batch axis.

Source: keras/src/saving/serialization_lib.py and keras/src/legacy/saving/saving_utils.py of Keras 3.15.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.loading.legacy.arguments import taken
from service.loading.legacy.graph import is_functional
from service.loading.legacy.record import Entry, Record

_INNER = ("layer", "cell", "cells", "layers", "forward_layer", "backward_layer")
_KEPT = {"class_name", "config", "name", "inbound_nodes"}
_FUNCTIONAL = "keras.src.models.functional"


def inner_entries(entry: Entry) -> Iterator[Entry]:
    """The layers that a layer's or model's config holds, and layers that stand for activations."""
    config = entry.get("config")
    if not isinstance(config, dict):
        return
    for key in (*_INNER, "activation", "recurrent_activation"):
        value = config.get(key)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and is_entry(item):
                yield item


def is_entry(value: Any) -> bool:
    """Whether a value is a serialised layer; tf.keras from 2.12 on names a module for some, Keras 1 and 2 for none."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("class_name"), str)
        and isinstance(value.get("config"), dict | list)
    )


def module_keys(entry: Entry, record: Record) -> None:
    """All `.h5` files: where Keras finds the class, or under which name it is registered."""
    kind = str(entry["class_name"])
    registered = entry.get("registered_name") or kind
    is_custom = record.is_custom(entry)
    for key in entry.keys() - _KEPT:
        del entry[key]
    if is_custom or kind.startswith("layertap>"):
        name = registered if is_custom else kind
        entry |= {"module": None, "class_name": kind.rpartition(">")[2], "registered_name": name}
    elif kind in {"Functional", "Model"} and is_functional(entry):
        entry |= {"module": _FUNCTIONAL, "class_name": "Functional", "registered_name": "Functional"}
    elif kind == "Sequential":
        entry |= {"module": "keras", "registered_name": None}
    elif kind in taken():
        entry |= {"module": "keras.layers", "registered_name": None}
    else:  # nobody's: `vetting` says so
        entry |= {"module": None, "registered_name": kind}
