"""Owns the code to paste into a custom_objects.py for what a model names and nobody defines.

A stub has the arguments that the file stores and the weights that it holds; what the class computes is for its
owner to fill in. It is text: nothing here runs anything or knows Keras.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Weights = Mapping[str, Sequence[tuple[str, tuple[int, ...]]]]
"""Layer name -> its weights in the file's order: name and shape."""

LAYER, FUNCTION, OBJECT = "layer", "function", "object"

_OF_EVERY_LAYER = frozenset(
    [
        *["activity_regularizer", "autocast", "batch_input_shape", "batch_shape", "dtype", "input_dtype"],
        *["input_shape", "name", "trainable"],
    ]
)
_LONGEST_DEFAULT = 60


@dataclass(frozen=True, slots=True)
class Need:
    """A class or function that a config names and nobody defines.

    Args:
        name: what to define: `MyLayer`, also where the file says `package>MyLayer`.
        saved: as the file names it, for messages.
        kind: `LAYER`, `FUNCTION` or `OBJECT` (an initialiser, a constraint, ...).
        layer: the layer that needs it; `None` where no layer does.
        arguments: what the file stores for its constructor.
    """

    name: str
    saved: str
    kind: str = OBJECT
    layer: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


def stub(needs: Sequence[Need], weights: Weights) -> str:
    """Python code that defines all of `needs`, each once."""
    parts = ["import keras"]
    declared = []
    for name, uses in _by_name(needs).items():
        identifier = (
            name if name.isidentifier() else "function_" + (re.sub(r"\W", "", name) or "of_the_model")
        )
        if identifier != name:
            declared.append(f"{name!r}: {identifier}")
        parts.append(_DRAFTS[uses[0].kind](identifier, uses, weights))
    if declared:
        parts.append(f"CUSTOM_OBJECTS = {{{', '.join(declared)}}}")
    return "\n\n\n".join(parts) + "\n"


def _by_name(needs: Sequence[Need]) -> dict[str, list[Need]]:
    found: dict[str, list[Need]] = {}
    for need in needs:
        found.setdefault(need.name, []).append(need)
    return found


def _function(name: str, uses: Sequence[Need], weights: Weights) -> str:
    del uses, weights
    return f'def {name}(x):\n    raise NotImplementedError("what {name} computes")'


def _object(name: str, uses: Sequence[Need], weights: Weights) -> str:
    del weights
    arguments = _arguments(uses)
    lines = [
        f"class {name}:",
        *_constructor(arguments, "self", ""),
        "",
        "    def __call__(self, *args, **kwargs):",
        f'        raise NotImplementedError("what {name} computes")',
        "",
        "    def get_config(self):",
        f"        return {_own(arguments)}",
    ]
    return "\n".join(lines)


def _layer(name: str, uses: Sequence[Need], weights: Weights) -> str:
    arguments = {key: value for key, value in _arguments(uses).items() if key not in _OF_EVERY_LAYER}
    saved = next((weights[use.layer] for use in uses if use.layer is not None and use.layer in weights), ())
    lines = [
        f"class {name}(keras.layers.Layer):",
        *_constructor(arguments, "self", "**kwargs"),
        *_weights(saved, uses[0].layer or ""),
        "",
        "    def call(self, inputs):",
        f'        raise NotImplementedError("what {name} computes")',
        "",
        "    def get_config(self):",
        f"        return {{**super().get_config(), {_own(arguments)[1:-1]}}}".replace(", }", "}"),
    ]
    return "\n".join(lines)


_DRAFTS = {LAYER: _layer, FUNCTION: _function, OBJECT: _object}


def _arguments(uses: Sequence[Need]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for use in reversed(uses):  # the first use's values are the defaults
        found |= {key: value for key, value in use.arguments.items() if _is_name(key)}
    return found


def _constructor(arguments: Mapping[str, Any], first: str, last: str) -> list[str]:
    taken = ", ".join(
        [first, *(f"{key}={_default(value)}" for key, value in arguments.items()), *filter(None, [last])]
    )
    body = [f"        super().__init__({last})"] if last else []
    body += [f"        self.{key} = {key}" for key in arguments]
    return [f"    def __init__({taken}):", *(body or ["        pass"])]


def _default(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_DEFAULT else "None"


def _is_name(text: str) -> bool:
    return text.isidentifier() and not keyword.iskeyword(text)


def _own(arguments: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f'"{key}": self.{key}' for key in arguments) + "}"


def _weights(saved: Sequence[tuple[str, tuple[int, ...]]], layer: str) -> list[str]:
    if not saved:
        return []
    lines = ["", "    def build(self, input_shape):", "        # what the file holds, in its order"]
    for path, shape in saved:
        name = path.rpartition("/")[2].partition(":")[0].removeprefix(f"{layer}_")
        name = re.sub(r"\W", "_", name) or "weight"
        name = name if _is_name(name) else f"w_{name}"
        lines.append(f'        self.{name} = self.add_weight(shape={shape}, name="{name}")')
    return lines
