"""Owns what is taken out of a JSON document before it is parsed: long lists of numbers, and rows keyed by name.

A list of numbers lies between two quotation marks; how rows are found says `json_rows`. In what is left a string
stands in for each, and that is parsed as usual. A list that was inside a string all along, behind an escaped quotation
mark, does no harm: the mark that its stand-in begins with would end that string, and what is left would be no JSON.

Whatever is wrong or uncommon is left to the long way, whose errors say what is wrong.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Any, TypeAlias

import orjson

from service.memory import pay
from service.payloads.codecs import load_json
from service.payloads.json_rows import NamedRows, read_rows, start_of_rows
from service.payloads.json_tensors import Numbers, read_numbers

Place: TypeAlias = tuple[str | None, ...]
"""Where a value may stand in a document: the members on the way to it; `None` for any member or any entry."""

Lifted: TypeAlias = dict[str, Numbers | NamedRows]

WORTH_IT = 4096
"""Bytes of text; below, the long way is as quick."""

_MAX_REST = 4096  # of what is around the numbers, besides as much as they have themselves
_ROWS_TIMES = 4  # as many bytes as a list must have, make rows worth it
_COPIES_OF_ROWS = (
    12  # bytes for each of a text that is split at its quotation marks; most are the pieces' own
)
_MAX_MARKS = 512  # of quotation; a document with more of them is hardly one of long lists
_MAX_SPACE = 64  # bytes behind a list
_LIST = re.compile(rb"[ \n\r\t]*:[ \n\r\t]*(?=\[[\[ \n\r\t]*-?[0-9])")
_NOTHING: tuple[bytes, Lifted] = (b"", {})
# Stands for what was taken out. No text can hold it by chance, and none on purpose.
_STAND_IN = f"numbers-{secrets.token_hex(16)}-"


def lift(
    body: bytes, lists: Collection[Place], rows: Collection[str] = (), at_least: int = WORTH_IT
) -> dict[str, Any] | None:
    """A JSON object whose long lists of numbers are `Numbers`, or whose rows keyed by name are `NamedRows`.

    Args:
        body: JSON text, right or wrong.
        lists: where `Numbers` are wanted; elsewhere lists stay lists.
        rows: the members in which `NamedRows` are wanted.
        at_least: how many bytes the body must have, and each list that is lifted.

    Returns:
        `None` for anything else, and wherever the text is wrong: read it the long way, then.
    """
    if len(body) < at_least:
        return None
    marks = _first_marks(body)
    start = start_of_rows(body, marks, rows)
    if start:
        rest, lifted = _without_rows(body, start) if len(body) >= _ROWS_TIMES * at_least else _NOTHING
    else:
        rest, lifted = _without_lists(body, marks, at_least)
    if not lifted:
        return None
    try:
        document = load_json(rest)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict) or not _put(document, lifted, (*lists, *((name,) for name in rows))):
        return None
    return document


def _first_marks(body: bytes) -> list[int]:
    """Where the quotation marks are; of many, the first."""
    marks: list[int] = []
    place = body.find(b'"')
    while place >= 0 and len(marks) <= _MAX_MARKS:
        marks.append(place)
        place = body.find(b'"', place + 1)
    return marks


def _put(document: dict[str, Any], lifted: Lifted, wanted: Collection[Place]) -> bool:
    """Puts what was lifted in the places of its stand-ins; returns whether each had one.

    One of them has none where a name stands twice in an object, of which the last counts.
    """
    missing = dict(lifted)
    unseen: list[tuple[tuple[Any, ...], Any]] = [((), document)]
    while unseen:
        path, holder = unseen.pop()
        for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
            if isinstance(value, dict | list):
                unseen.append(((*path, key), value))
            elif isinstance(value, str) and value in missing:
                found = missing.pop(value)
                holder[key] = found if _is_at((*path, key), wanted) else found.lists()
    return not missing


def _is_at(path: tuple[Any, ...], places: Collection[Place]) -> bool:
    return path in places or any(
        len(place) == len(path) and all(name in (None, key) for name, key in zip(place, path, strict=True))
        for place in places
    )


def _stand_in(number: int) -> tuple[str, bytes]:
    """A string, and its JSON text."""
    name = f"{_STAND_IN}{number}"
    return name, f'"{name}"'.encode()


def _without_lists(body: bytes, marks: list[int], at_least: int) -> tuple[bytes, Lifted]:
    """What is left of the text, and its long lists; nothing where there are none, or any is not even."""
    found = list(_long_lists(body, marks, at_least)) if len(marks) <= _MAX_MARKS else []
    if len(body) > 2 * sum([end - start for start, end in found]) + _MAX_REST:
        return _NOTHING
    lifted: Lifted = {}
    rest: list[bytes] = []
    place = 0
    for start, end in found:
        text = body[start:end]
        array = read_numbers(text)
        if array is None:
            return _NOTHING
        name, stand_in = _stand_in(start)
        lifted[name] = Numbers(array, text)
        rest += (body[place:start], stand_in)
        place = end
    return b"".join([*rest, body[place:]]), lifted


def _long_lists(body: bytes, marks: list[int], at_least: int) -> Iterator[tuple[int, int]]:
    """From where to where long lists are that may be even."""
    for mark, following in pairwise([*marks, len(body)]):
        found = _LIST.match(body, mark + 1, following) if following - mark > at_least else None
        if found is not None:
            start = found.end()
            brace = body.find(b"}", start, following)
            end = brace if brace >= 0 else following
            tail = body[max(start, end - _MAX_SPACE) : end]
            end -= len(tail) - len(tail.rstrip(b", \n\r\t"))
            if end - start >= at_least:
                yield start, end


def _without_rows(body: bytes, start: int) -> tuple[bytes, Lifted]:
    """What is left of the text, and its rows; nothing where they cannot be read.

    Args:
        body: the text.
        start: what `start_of_rows` gave.
    """
    pay(_COPIES_OF_ROWS * len(body), "rows keyed by name")
    pieces = body.split(b'"')
    found = read_rows(pieces, start)
    if found is None:
        return _NOTHING
    name, stand_in = _stand_in(start)
    rest = [*pieces[:start], b":" + stand_in + pieces[found.end][found.offset :], *pieces[found.end + 1 :]]
    return b'"'.join(rest), {name: found.rows}
