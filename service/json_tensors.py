"""Owns the short way from JSON text to an array: even lists of numbers, without a Python object for each of them.

`orjson` and `numpy.array` make every number an object first; for a picture of 224x224x3 that takes seven times as
long as simdjson, which reads the numbers straight into memory. It flattens nested lists, so whether they were even is
told by what is left of the text without its numbers: of even lists, one block again and again.

Whatever is not a short document with one long member of even numbers is left to the long way, whose errors say what
is wrong. What is read here equals what the long way reads, bit for bit and in dtype.

Each step holds the interpreter lock for a millisecond or two on a picture. Between them it is let go of, so that an
event loop that waits for it need not wait for all of them.
"""

from __future__ import annotations

import math
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import simdjson

from service.tensors import Array

WORTH_IT = 4096
"""Bytes of text; below, the long way is as quick."""

_MAX_REST = 4096  # of what is around the numbers
_LONG_TEXT = 256 * 1024
_MAX_DEPTH = 32  # half of what numpy takes; no model's input has as many axes
_NUMBERS_AND_SPACE = b"0123456789+-.eE \n\r\t"
_MEMBER = re.compile(rb":[ \n\r\t]*(?=\[[\[ \n\r\t]*-?[0-9])")
_REFUSED = (ValueError, TypeError, OverflowError, RuntimeError)
# Stands for the numbers in the rest of the text. No text can hold it by chance, and none on purpose.
_STAND_IN = f"numbers-{secrets.token_hex(16)}"
_STAND_IN_TEXT = f'"{_STAND_IN}"'.encode()


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """A list of a JSON text, as an array.

    Args:
        array: what `numpy.array` makes of the lists: int64 where all numbers are whole, else float64.
        text: the JSON text of the lists.
    """

    array: Array
    text: bytes

    def lists(self) -> Any:
        """The lists themselves, where something else than numbers was wanted."""
        return orjson.loads(self.text)


def lift_array(body: bytes, at_least: int = WORTH_IT) -> dict[str, Any] | None:
    """A JSON object in which one long list is `Numbers`: a member, or a member of a member.

    Args:
        body: JSON text, right or wrong.
        at_least: how many bytes the list must have.

    Returns:
        `None` for anything else, and wherever the text is wrong: read it the long way, then.
    """
    found = _MEMBER.search(body) if len(body) >= at_least else None
    if found is None:
        return None
    start = found.end()
    ends = [end for end in (body.find(b"}", start), body.find(b'"', start)) if end >= 0]
    if not ends or start + len(body) - min(ends) > _MAX_REST:
        return None
    text = body[start : min(ends)].rstrip(b", \n\r\t")
    array = read_numbers(text) if len(text) >= at_least else None
    if array is None:
        return None
    try:
        document = orjson.loads(b"".join((body[:start], _STAND_IN_TEXT, body[start + len(text) :])))
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) and _put(document, Numbers(array, text)) else None


def read_numbers(text: bytes) -> Array | None:
    """Even lists of numbers as an array; as `Numbers.array`.

    Args:
        text: JSON text, `[[1, 2.5], [3, 4]]`.

    Returns:
        `None` for any other text, be it right or wrong, and for whole numbers beyond int64.
    """
    brackets = text.translate(None, _NUMBERS_AND_SPACE)
    _let_others_run(text)
    shape = _even_shape(brackets)
    if shape is None:
        return None
    _let_others_run(text)
    whole = not (b"." in text or b"e" in text or b"E" in text)
    try:
        # The parser's memory is 10 times that of the text, so it is not kept.
        parsed: Any = simdjson.Parser().parse(text)
        _let_others_run(text)
        numbers = parsed.as_buffer(of_type="i" if whole else "d")
    except _REFUSED:
        return None
    array = np.frombuffer(numbers, np.int64 if whole else np.float64)
    return array.reshape(shape) if array.size == math.prod(shape) else None


def _even_shape(brackets: bytes) -> tuple[int, ...] | None:
    """The shape of nested lists, from their brackets and commas; `None` where they are not even.

    From the inside out: a list is even where it is its first entry again and again.
    """
    depth = len(brackets) - len(brackets.lstrip(b"["))
    if not 0 < depth <= _MAX_DEPTH:
        return None
    block = b""
    sizes: list[int] = []
    for level in range(1, depth + 1):
        start = depth - level
        end = brackets.find(b"]" * level, start) + level
        size = (end - start - 1) // (len(block) + 1)
        expected = b"[" + b",".join([block] * size) + b"]"
        if size < 1 or not brackets.startswith(expected, start):
            return None
        block = expected
        sizes.append(size)
    return tuple(reversed(sizes)) if block == brackets else None


def _let_others_run(text: bytes) -> None:
    """Lets go of the interpreter lock between the steps of a long text.

    Whoever waits for it would else do so for five milliseconds. It costs a system call that may take a tenth of one.
    """
    if len(text) > _LONG_TEXT:
        time.sleep(0)


def _put(document: dict[str, Any], numbers: Numbers) -> bool:
    """Puts the numbers in the place of their stand-in; returns whether there was exactly one."""
    places = [(document, name) for name, value in document.items() if value == _STAND_IN]
    for inner in document.values():
        if isinstance(inner, dict):
            places += [(inner, name) for name, value in inner.items() if value == _STAND_IN]
    for place, name in places:
        place[name] = numbers
    return len(places) == 1
