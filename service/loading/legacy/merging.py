"""Owns Keras 1's `Merge` layer: its modes as layers of their own, and Sequential models that begin with one.

Source: keras-team/keras@1.2.2 `keras/engine/topology.py`, class Merge, and `keras/models.py`, Sequential.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from service.loading.legacy.record import Entry, Record, layer_name, unrepairable

_MODES = {"sum": "Add", "mul": "Multiply", "ave": "Average", "max": "Maximum", "concat": "Concatenate"}
_MODES |= {"dot": "Dot", "cos": "layertap>Cosine"}


def merge_modes(entry: Entry, record: Record) -> None:
    """Keras 1: one layer with a mode; its Python functions become Lambda layers, which are judged as such."""
    if entry["class_name"] != "Merge":
        return
    old, mode = entry["config"], entry["config"].get("mode", "sum")
    new: dict[str, Any] = {"name": old.get("name")}
    if old.get("mode_type", "raw") != "raw":
        parts = ("output_shape", "output_shape_type", "arguments")
        entry["class_name"] = "Lambda"
        new |= {"function": mode, "function_type": old["mode_type"]} | {part: old.get(part) for part in parts}
    elif mode in _MODES:
        entry["class_name"] = _MODES[mode]
        if mode == "concat":
            new["axis"] = old.get("concat_axis", -1)
        if mode in {"dot", "cos"}:
            new["axes"] = _axes(old.get("dot_axes", -1))
    else:
        raise unrepairable(entry, f"mode {mode!r}", "Use one of sum, mul, ave, max, concat, dot, cos.")
    entry["config"] = new
    record.changed("merge", f"Merge runs as {entry['class_name'].rpartition('>')[2]}", layer_name(entry))


def _axes(value: Any) -> Any:
    """A number, or one a side; 1.0 also wrote `[[1], [2]]`."""
    if not isinstance(value, list):
        return value
    return [side[0] if isinstance(side, list) and len(side) == 1 else side for side in value]


def merged_sequential(entry: Entry, record: Record) -> None:
    """Keras 1: a Sequential that begins with a Merge of other models is a graph with several inputs."""
    layers = entry["config"].get("layers") if isinstance(entry["config"], dict) else None
    if entry["class_name"] != "Sequential" or not layers or not _is_merge(layers[0]):
        return
    graph = _Graph()
    end = graph.chain(layers)
    name = layer_name(entry) or "sequential"
    entry["class_name"] = "Model"
    entry["config"] = {
        "name": name,
        "layers": graph.layers,
        "input_layers": graph.inputs,
        "output_layers": [end],
    }
    record.changed("merged-sequential", "a Sequential that begins with a Merge is built as a graph", name)


def _is_merge(entry: Entry) -> bool:
    return entry.get("class_name") == "Merge" and bool(entry["config"].get("layers"))


@dataclass(slots=True)
class _Graph:
    """The layers of branches, joined; a place is `[layer, node index, tensor index]`."""

    layers: list[Entry] = field(default_factory=list)
    inputs: list[list[Any]] = field(default_factory=list)

    def chain(self, layers: list[Entry]) -> list[Any]:
        """Adds one layer after another and returns the place of the last one's result."""
        first, *rest = layers
        if _is_merge(first):
            branches = [self._branch(branch) for branch in first["config"].pop("layers")]
            end = self._add(first, branches)
        elif first["class_name"] == "InputLayer":
            end = self._input(layer_name(first), first["config"])
        else:
            end = self._add(first, [self._input(f"{layer_name(first)}_input", first["config"])])
        for entry in rest:
            end = self._add(entry, [end])
        return end

    def _branch(self, branch: Entry) -> list[Any]:
        config = branch["config"]
        if branch["class_name"] == "Sequential":
            return self.chain(config if isinstance(config, list) else config["layers"])
        if "input_layers" not in config:
            return self.chain([branch])
        own = {layer["name"]: layer for layer in config["layers"]}
        names = [place[0] for place in config["input_layers"]]
        sources = [self._input(f"{layer_name(branch)}_{name}", own[name]["config"]) for name in names]
        return self._add(branch, sources, node=1)  # Keras 1 counts a model's own node

    def _input(self, name: str, config: dict[str, Any]) -> list[Any]:
        shape = config.get("batch_input_shape")
        dtype = config.get("input_dtype") or config.get("dtype") or "float32"
        own = {"name": name, "batch_input_shape": copy.copy(shape), "dtype": dtype}
        place = self._add({"class_name": "InputLayer", "config": own}, [])
        self.inputs.append(place)
        return place

    def _add(self, entry: Entry, sources: list[list[Any]], node: int = 0) -> list[Any]:
        name = layer_name(entry)
        self.layers.append({**entry, "name": name, "inbound_nodes": [sources] if sources else []})
        return [name, node, 0]
