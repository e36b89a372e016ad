"""Owns Lambda layers: their spellings since Keras 1.0, and functions of custom_objects.py in their place.

Stored code is brought to Keras 3's one spelling, in which `vetting` sees and refuses it; nothing is decoded here.

Source: keras-team/keras@1.0.8, 1.2.2 and 2.2.4 `keras/layers/core.py`, class Lambda;
keras/src/layers/core/lambda_layer.py of Keras 3.15.1.
"""

from __future__ import annotations

from typing import Any

from service.loading.legacy.activations import function
from service.loading.legacy.record import Entry, Record, layer_name

_PARTS = ("function", "output_shape", "mask")


def registered_function(entry: Entry, record: Record) -> None:
    """Any: a function that custom_objects.py has under the layer's name runs instead of stored code."""
    name = layer_name(entry)
    if entry["class_name"] == "Lambda" and name in record.custom:
        entry["config"]["function"] = function(name)
        for key in [
            key for key in entry["config"] if key.startswith(("function_", "output_shape", "mask", "module"))
        ]:
            del entry["config"][key]
        record.changed("lambda", "the function of this name in custom_objects.py runs in its place", name)


def stored_function(entry: Entry, _: Record) -> None:
    """Before Keras 3: a bare string (1.0), `[code, defaults, closure]`, or the name of a function."""
    if entry["class_name"] != "Lambda":
        return
    config = entry["config"]
    for part in _PARTS:
        kind, value = config.pop(f"{part}_type", None), config.get(part)
        config.pop(f"{part}_module", None)
        if value is None:
            config.pop(part, None)
        elif kind == "lambda" or (part == "function" and isinstance(value, list)):
            config[part] = _code(value)
        elif isinstance(value, str):
            config[part] = function(value)
    config.pop("module", None)
    if not config.get("arguments"):
        config.pop("arguments", None)


def _code(value: Any) -> Any:
    if isinstance(value, str):
        value = [value, None, None]
    if not isinstance(value, list) or len(value) != 3:
        return value
    code, defaults, closure = value
    return {"class_name": "__lambda__", "config": {"code": code, "defaults": defaults, "closure": closure}}
