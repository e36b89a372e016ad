"""Owns the comparison of a config with the weights in its file, as far as it can be made without Keras.

A config that asks for more than its file holds is damaged or made to fill the service's memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from service.loading.config_text import MAX_ROW_VALUES, MAX_STEPS, RECURRENT
from service.tools.doctor.graph import Node, nodes
from service.tools.doctor.report import LayerRow

_UNITS = {"Dense": 1, "LSTM": 4, "GRU": 3, "SimpleRNN": 1}
_FILTERS = frozenset(f"{kind}{n}D" for kind in ("Conv", "SeparableConv") for n in (1, 2, 3))


def too_large(model: dict[str, Any], parameters: Mapping[str, int], rows: Sequence[LayerRow]) -> str | None:
    """What the config asks for beyond reason, in words; `None` if nothing.

    Args:
        model: the config.
        parameters: how many numbers the file has for each top layer.
        rows: the layers with their shapes.
    """
    for node in nodes(model):
        least = _least(node)
        if least > parameters.get(node.name, 0):
            return f"the layer '{node.name}' with {parameters.get(node.name, 0)} weights for {least} or more"
    shapes = {row.path: row.shape or () for row in rows}
    for node in nodes(model):
        steps = max((shapes[name][1] or 0 for name in node.feeds if len(shapes.get(name, ())) > 1), default=0)
        if steps > MAX_STEPS and node.class_name in {*RECURRENT, "Bidirectional"}:
            return f"the layer '{node.name}' with {steps} steps"
    for row in rows:
        values = math.prod(abs(size) for size in (row.shape or ())[1:] if size is not None)
        if values > MAX_ROW_VALUES:
            return f"the layer '{row.path}' with {values} numbers a row"
    return None


def _least(node: Node) -> int:
    """The fewest weights that a layer of the usual classes can have; 0 for others."""
    config = node.config
    if node.class_name in _UNITS:
        return _number(config.get("units")) * _UNITS[node.class_name]
    if node.class_name in _FILTERS:
        return _number(config.get("filters"))
    if node.class_name == "Embedding":
        return _number(config.get("input_dim")) * _number(config.get("output_dim"))
    return 0


def _number(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0
