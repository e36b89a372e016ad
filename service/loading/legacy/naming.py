"""Owns layer names that Keras 3 refuses: those with a slash, as old DenseNets and SqueezeNets have them.

Source: keras/src/ops/operation.py of Keras 3.15.1, `Argument name ... cannot contain character /`.
"""

from __future__ import annotations

from typing import Any

from service.loading.legacy.graph import is_functional, is_model
from service.loading.legacy.record import Entry, Record


def slashes(entry: Entry, record: Record) -> None:
    """All before Keras 3: slashes in the names of a model's layers become underscores, in every mention."""
    config = entry["config"]
    if not is_model(entry) or not isinstance(config, dict):
        return
    layers = [layer for layer in config["layers"] if isinstance(layer.get("config"), dict)]
    taken = {str(layer.get("name") or layer["config"].get("name")) for layer in layers}
    renamed: dict[str, str] = {}
    for layer in layers:
        old = layer.get("name") or layer["config"].get("name")
        if isinstance(old, str) and "/" in old:
            renamed[old] = _free(old.replace("/", "_"), taken)
    for layer in layers:
        _rename(layer, renamed)
    if is_functional(entry):
        for key in ("input_layers", "output_layers"):
            config[key] = _mentions(config[key], renamed)
        for layer in layers:
            layer["inbound_nodes"] = _mentions(layer["inbound_nodes"], renamed)
    if isinstance(config.get("name"), str):
        config["name"] = config["name"].replace("/", "_")
    for old, new in renamed.items():
        record.names[new] = old
        record.changed("slash", "slashes in layer names become underscores", old)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _rename(layer: Entry, renamed: dict[str, str]) -> None:
    for holder in (layer, layer["config"]):
        if holder.get("name") in renamed:
            holder["name"] = renamed[holder["name"]]


def _mentions(value: Any, renamed: dict[str, str]) -> Any:
    """Places name their layer first; nothing else in them is a name."""
    if isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int):
            return [renamed.get(value[0], value[0]), *(_mentions(item, renamed) for item in value[1:])]
        return [_mentions(item, renamed) for item in value]
    if isinstance(value, dict):
        return {key: _mentions(item, renamed) for key, item in value.items()}
    return value
