"""Owns the way from a config's text to its values: JSON of a size and depth that a model can have.

What Keras makes of a config grows with it, and most readers of one are recursive; so both are bounded here,
before anybody looks at what it says. Shapes that no model has are refused as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from service.errors import LoadError

MAX_CHARACTERS = 2**25
MAX_VALUES = 1_000_000
MAX_DEPTH = 200
MAX_ROW_VALUES = 2**28
"""Numbers in one row of any tensor: 1 GiB of float32, 16,000 x 16,000 pixels."""

MAX_STEPS = 100_000
"""Steps of a recurrent layer, which are computed one after another."""

RECURRENT = ("RNN", "SimpleRNN", "LSTM", "GRU", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")

_SHAPES = frozenset(
    ["batch_input_shape", "batch_shape", "input_shape", "shape", "target_shape", "build_input_shape"]
)
_MEND = "Save the model again with model.save and copy the whole file."


def parse(text: str, where: str) -> dict[str, Any]:
    """The JSON object in `text`.

    Args:
        text: the config as it stands in the file.
        where: names the file in messages.

    Raises:
        LoadError: not JSON, not an object, larger or deeper than a model's, or with shapes that no model has.
    """
    if len(text) > MAX_CHARACTERS:
        raise LoadError(
            f"Expected a config of at most {MAX_CHARACTERS} characters in {where}. Received: {len(text)}.",
            mend=_MEND,
        )
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LoadError(
            f"Expected the config in {where} to be JSON. Received: {type(error).__name__}: {error}.",
            mend=_MEND,
        ) from error
    if not isinstance(value, dict):
        raise LoadError(
            f"Expected the config in {where} to be a JSON object. Received: {type(value).__name__}.",
            mend="Save the model again with model.save.",
        )
    _bound(value, where)
    return value


def _bound(config: dict[str, Any], where: str) -> None:
    for key, value, depth, count in _walk(config):
        if depth > MAX_DEPTH or count > MAX_VALUES:
            raise _absurd(
                where, f"more than {MAX_DEPTH} levels" if depth > MAX_DEPTH else f"over {MAX_VALUES} values"
            )
        if key in _SHAPES and isinstance(value, list):
            sizes = [size for size in value if isinstance(size, int)]
            if _product(sizes) > MAX_ROW_VALUES:
                raise _absurd(where, f"a '{key}' of {'x'.join(map(_digits, sizes[:8]))}")
        _roll_up(value)


def _roll_up(value: Any) -> None:
    """Turns `unroll` off: it changes nothing but that Keras builds the layer step by step, however many there are."""
    if (
        isinstance(value, dict)
        and isinstance(value.get("config"), dict)
        and value.get("class_name") in RECURRENT
    ):
        value["config"].update(dict.fromkeys(value["config"].keys() & {"unroll"}, False))


def _walk(config: dict[str, Any]) -> Iterator[tuple[str, Any, int, int]]:
    """Every value with the key it stands under, its depth and how many came before it."""
    waiting: list[tuple[str, Any, int]] = [("", config, 0)]
    count = 0
    while waiting:
        key, value, depth = waiting.pop()
        yield key, value, depth, count
        count += 1
        if isinstance(value, dict):
            waiting += [(name, item, depth + 1) for name, item in value.items()]
        elif isinstance(value, list):
            waiting += [(key, item, depth + 1) for item in value]


def _product(sizes: list[int]) -> int:
    total = 1
    for size in sizes[:64]:
        total *= max(abs(size), 1)
    return total


def _digits(number: int) -> str:
    return (
        str(number) if abs(number) < 10**12 else f"{'-' if number < 0 else ''}10^{len(str(abs(number))) - 1}"
    )


def _absurd(where: str, what: str) -> LoadError:
    return LoadError(f"Expected a config as Keras writes it in {where}. Received: {what}.", mend=_MEND)
