"""Owns the reading of a config's layers and of what feeds them, in the dialects of Keras 1 to 3.

It builds nothing. What it cannot make sense of it leaves out: the config may be anybody's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Shape = tuple[int | None, ...]

_INPUT_SHAPES = ("batch_shape", "batch_input_shape", "build_input_shape")
_INNER = ("layer", "forward_layer")
_MAX_REFERENCES = 1000


@dataclass(frozen=True, slots=True)
class Node:
    """One layer of a model.

    Args:
        name: in its model.
        class_name: of the layer.
        config: its arguments.
        feeds: the names of the layers whose outputs it takes at its first use; empty for inputs.
        input_shape: as the config says it, batch axis first; `None` where it does not.
    """

    name: str
    class_name: str
    config: dict[str, Any]
    feeds: tuple[str, ...]
    input_shape: Shape | None

    @property
    def inner(self) -> Node | None:
        """The layer that a wrapper holds."""
        entry = next((self.config[key] for key in _INNER if isinstance(self.config.get(key), dict)), None)
        return _node(entry, "") if entry is not None else None

    @property
    def label(self) -> str:
        """The class, with that of the layer inside: `TimeDistributed(Dense)`."""
        inner = self.inner
        return f"{self.class_name}({inner.label})" if inner else self.class_name


def nodes(model: dict[str, Any]) -> list[Node]:
    """The layers of a model's config, in its order; a Sequential's feed one another."""
    found: list[Node] = []
    sequential = _word(model.get("class_name")) == "Sequential"
    for place, entry in enumerate(_layers(model)):
        node = _node(entry, f"layer {place + 1}")
        if node is None:
            continue
        if sequential and found:
            node = Node(node.name, node.class_name, node.config, (found[-1].name,), node.input_shape)
        found.append(node)
    return found


def is_model(node: Node) -> bool:
    """Whether a layer is itself a model with layers."""
    return isinstance(node.config.get("layers"), list)


def entry_of(node: Node) -> dict[str, Any]:
    """The config of a nested model, as `nodes` takes it."""
    return {"class_name": node.class_name, "config": node.config}


def ends(model: dict[str, Any], key: str, known: list[Node]) -> list[str]:
    """The names of a model's input or output layers; `key` is `input_layers` or `output_layers`."""
    config = model.get("config")
    listed = config.get(key) if isinstance(config, dict) else None
    names = [name for name in _references(listed) if any(node.name == name for node in known)]
    if names or not known:
        return list(dict.fromkeys(names))
    return [known[0].name if key == "input_layers" else known[-1].name]


def _layers(model: dict[str, Any]) -> list[Any]:
    config = model.get("config")
    if isinstance(config, list):  # a Sequential before Keras 2.2.3
        return config
    layers = config.get("layers") if isinstance(config, dict) else None
    return layers if isinstance(layers, list) else []


def _node(entry: Any, fallback: str) -> Node | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str):
        return None
    config = entry.get("config")
    config = {"layers": config} if isinstance(config, list) else config if isinstance(config, dict) else {}
    name = next((n for n in (entry.get("name"), config.get("name")) if isinstance(n, str)), fallback)
    uses = entry.get("inbound_nodes")
    first = uses[0] if isinstance(uses, list) and uses else None
    return Node(name, entry["class_name"], config, tuple(_references(first)), _input_shape(entry, config))


def _input_shape(entry: dict[str, Any], config: dict[str, Any]) -> Shape | None:
    built = entry.get("build_config")
    if isinstance(built, dict) and (shape := as_shape(built.get("input_shape"))):
        return shape
    return next((shape for key in _INPUT_SHAPES if (shape := as_shape(config.get(key)))), None)


def as_shape(value: Any) -> Shape | None:
    """A list of whole numbers and nulls as a shape; `None` for anything else."""
    if not isinstance(value, list | tuple) or not value:
        return None
    return tuple(value) if all(size is None or type(size) is int for size in value) else None


def _references(value: Any) -> Iterator[str]:
    """Layer names in `inbound_nodes`, `input_layers` and the like: `["name", 0, 0]` or a `__keras_tensor__`."""
    waiting: list[Any] = [value]
    for _ in range(_MAX_REFERENCES):
        if not waiting:
            return
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [item[key] for key in reversed(item)]
        elif isinstance(item, list):
            if len(item) >= 3 and isinstance(item[0], str) and type(item[1]) is int and type(item[2]) is int:
                yield item[0]
                waiting += item[3:4]
            else:
                waiting += item[::-1]


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""
