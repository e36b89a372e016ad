"""Owns what is taken out of a JSON document before it is parsed: long lists of numbers, and rows keyed by name.

The text is split at its quotation marks; a list of numbers then is one piece, or the beginning of one (rows:
`json_rows`). In what is left a string stands in for each, and that is parsed as usual. A piece that was inside a
string all along, behind an escaped quotation mark, does no harm: the mark that its stand-in begins with would end that
string, and what is left would be no JSON.

Whatever is wrong or uncommon is left to the long way, whose errors say what is wrong.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterator
from typing import Any, TypeAlias

import orjson

from service.json_rows import NamedRows, read_rows, start_of_rows
from service.json_tensors import Numbers, read_numbers

Place: TypeAlias = tuple[str | None, ...]
"""Where a value may stand in a document: the members on the way to it; `None` for any member or any entry."""

WORTH_IT = 4096
"""Bytes of text; below, the long way is as quick."""

_MAX_REST = 4096  # of what is around the numbers, besides as much as they have themselves
_ROWS_TIMES = 4  # as many bytes as a list must have, make rows worth it
_FEW_MARKS = 64
_LIST = re.compile(rb"[ \n\r\t]*:[ \n\r\t]*(?=\[[\[ \n\r\t]*-?[0-9])")
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
    pieces = _split(body)
    start = start_of_rows(pieces, rows)
    if start and len(body) < _ROWS_TIMES * at_least:
        return None
    lifted = _lift_rows(pieces, start) if start else _lift_lists(pieces, at_least)
    if not lifted:
        return None
    try:
        document = orjson.loads(b'"'.join(pieces))
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict) or not _put(document, lifted, (*lists, *((name,) for name in rows))):
        return None
    return document


Lifted: TypeAlias = dict[str, Numbers | NamedRows]


def _split(body: bytes) -> list[bytes]:
    """The text between the quotation marks; `bytes.split` looks at one byte at a time, `find` at many."""
    pieces: list[bytes] = []
    start = 0
    while (end := body.find(b'"', start)) >= 0:
        pieces.append(body[start:end])
        start = end + 1
        if len(pieces) > _FEW_MARKS:
            return body.split(b'"')
    pieces.append(body[start:])
    return pieces


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
    """A string, and its JSON text behind the colon of a member."""
    name = f"{_STAND_IN}{number}"
    return name, f':"{name}"'.encode()


def _lift_lists(pieces: list[bytes], at_least: int) -> Lifted:
    """Replaces the long lists among the pieces; empty where there are none, or any is not even."""
    found = list(_long_lists(pieces, at_least))
    taken = sum([end - start for _, start, end in found])
    if sum(map(len, pieces)) > 2 * taken + _MAX_REST:
        return {}
    lifted: Lifted = {}
    for place, start, end in found:
        piece = pieces[place]
        text = piece[start:end]
        array = read_numbers(text)
        if array is None:
            return {}
        stand_in, replacement = _stand_in(place)
        lifted[stand_in] = Numbers(array, text)
        pieces[place] = replacement + piece[end:]
    return lifted


def _long_lists(pieces: list[bytes], at_least: int) -> Iterator[tuple[int, int, int]]:
    """Where long lists are that may be even: the piece, and from where to where in it."""
    for place, piece in enumerate(pieces):
        found = _LIST.match(piece) if len(piece) >= at_least else None
        if found is not None:
            start = found.end()
            end = piece.find(b"}", start)
            end = len(piece[: end if end >= 0 else None].rstrip(b", \n\r\t"))
            if end - start >= at_least:
                yield place, start, end


def _lift_rows(pieces: list[bytes], start: int) -> Lifted:
    """Replaces the rows among the pieces; empty where they cannot be read."""
    found = read_rows(pieces, start)
    if found is None:
        return {}
    stand_in, replacement = _stand_in(start)
    pieces[start : found.end + 1] = [replacement + pieces[found.end][found.offset :]]
    return {stand_in: found.rows}
