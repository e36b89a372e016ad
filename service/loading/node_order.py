"""Owns the check that a graph of layers can be put together: every reference is one, and none waits for itself.

`tf_keras` puts a node off until what it refers to is there, and goes on for ever when that never comes.

Source: tf_keras/src/engine/functional.py (`reconstruct_from_config`) of tf_keras 2.21.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.errors import LoadError

_CONSTANT = "_CONSTANT_VALUE"
_MEND = "Save the model again with model.save and copy the whole file."

Reference = tuple[str, int]


def refuse_endless_graphs(config: Any) -> None:
    """Checks every graph in a config, nested ones too.

    Args:
        config: in the dialect of Keras 2: `["layer", node, tensor, {}]` says what a node takes.

    Raises:
        LoadError: a layer refers to what is not there, or a circle of layers feeds itself.
    """
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("layers"), list) and "output_layers" in value:
                _refuse_endless(value["layers"])
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _refuse_endless(layers: list[Any]) -> None:
    left = {_name(layer): _nodes(layer) for layer in layers if isinstance(layer, dict)}
    # Inputs have a node from the start, and so do nested models: the one they were built with.
    made = {
        _name(layer): int(layer.get("class_name") == "InputLayer" or _is_model(layer))
        for layer in layers
        if isinstance(layer, dict)
    }
    progress = True
    while progress:
        progress = False
        for name, nodes in left.items():
            while nodes and all(index < made.get(other, 0) for other, index in _references(nodes[0], made)):
                nodes.pop(0)
                made[name] += 1
                progress = True
    stuck = [name for name, nodes in left.items() if nodes]
    if stuck:
        raise LoadError(
            f"Expected layers that feed one another in an order. Received: {', '.join(map(repr, stuck[:5]))}, which "
            "wait for themselves or for what is not there.",
            mend=_MEND,
        )


def _name(layer: dict[str, Any]) -> str:
    config = layer.get("config")
    return str(layer.get("name") or (config.get("name") if isinstance(config, dict) else ""))


def _nodes(layer: dict[str, Any]) -> list[Any]:
    nodes = layer.get("inbound_nodes")
    return list(nodes) if isinstance(nodes, list) else []


def _is_model(layer: dict[str, Any]) -> bool:
    config = layer.get("config")
    return isinstance(config, list) or (isinstance(config, dict) and isinstance(config.get("layers"), list))


def _references(node: Any, known: dict[str, int]) -> Iterator[Reference]:
    """What a node takes, its keyword arguments included."""
    waiting = [node]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            if len(value) >= 3 and isinstance(value[0], str) and value[0] in known:
                if type(value[1]) is not int or type(value[2]) is not int or min(value[1:3]) < 0:
                    raise LoadError(
                        f"Expected a layer's name, a node and a tensor. Received: {str(value[:3])[:200]}.",
                        mend=_MEND,
                    )
                yield value[0], value[1]
                waiting += value[3:4]
            elif not (len(value) >= 3 and value[0] == _CONSTANT):
                waiting += value
