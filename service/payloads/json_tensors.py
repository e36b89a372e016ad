"""Owns the short way from JSON text to an array: even lists of numbers, without a Python object for each of them.

`orjson` and `numpy.array` make every number an object first; for a picture of 224x224x3 that takes seven times as
long as simdjson, which reads the numbers straight into memory. It flattens nested lists, so whether they were even is
told by what is left of the text without its numbers: of even lists, one block again and again.

What is read here equals what the long way reads, bit for bit and in dtype. `json_lifting` finds such lists in a
document.

Each step holds the interpreter lock for a millisecond or two on a picture. Between them it is let go of, so that an
event loop that waits for it need not wait for all of them.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import simdjson

from service.memory import paid, pay
from service.tensors import Array

NUMBERS_AND_SPACE = b"0123456789+-.eE \n\r\t"
"""Every byte that numbers and the space between them may have."""

_NUMBER_BYTES = 12  # of a number, as it is read and as the model takes it
_PARSER_TEXT, _PARSER_NUMBER = 3, 16  # what simdjson needs for each byte of text, and besides for each number

_LONG_TEXT = 256 * 1024
_KEPT_TEXT = 2 * 1024 * 1024
_MAX_DEPTH = 32  # half of what numpy takes; no model's input has as many axes
_REFUSED = (ValueError, TypeError, OverflowError, RuntimeError)
_kept = threading.local()  # `parser`: of this thread


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


def read_numbers(text: bytes, brackets: bytes | None = None) -> Array | None:
    """Even lists of numbers as an array; as `Numbers.array`.

    Args:
        text: JSON text, `[[1, 2.5], [3, 4]]`.
        brackets: the text without NUMBERS_AND_SPACE, where that is known.

    Returns:
        `None` for any other text, be it right or wrong, and for whole numbers beyond int64.
    """
    shape = _even_shape(text.translate(None, NUMBERS_AND_SPACE) if brackets is None else brackets)
    _let_others_run(text)
    if shape is None:
        return None
    whole = not (b"." in text or b"e" in text or b"E" in text)
    count = math.prod(shape)
    pay(len(text) + _NUMBER_BYTES * count, f"{count} numbers")
    with paid(_PARSER_TEXT * len(text) + _PARSER_NUMBER * count, f"parsing {count} numbers"):
        numbers = _flat_numbers(text, whole=whole)
    if numbers is None:
        return None
    array = np.frombuffer(numbers, np.int64 if whole else np.float64)
    return array.reshape(shape) if array.size == count else None


def _flat_numbers(text: bytes, *, whole: bool) -> Any:
    """The numbers' memory; `None` where simdjson refuses the text.

    A parser's memory is up to 10 times its text. Asking the system for it takes as long as parsing, so each thread
    keeps its own, unless the text was uncommonly long.
    """
    parser = getattr(_kept, "parser", None) or simdjson.Parser()
    _kept.parser = None  # one that failed is not used again: what it parsed may still be alive in a traceback
    try:
        parsed: Any = parser.parse(text)
        _let_others_run(text)
        numbers = parsed.as_buffer(of_type="i" if whole else "d")
    except _REFUSED:
        return None
    if len(text) <= _KEPT_TEXT:
        _kept.parser = parser
    return numbers


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
        end = brackets.find(b"]" * level, start) + level if level < depth else len(brackets)
        size = (end - start - 1) // (len(block) + 1)
        if size < 1:
            return None
        expected = b"[" + (block + b",") * (size - 1) + block + b"]"
        if not brackets.startswith(expected, start):
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
