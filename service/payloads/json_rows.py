"""Owns rows keyed by name in JSON text, `[{"a": [1, 2], "b": 3}, ...]`: each member of all rows is read as one list.

The text comes split at its quotation marks. Rows of one form are then the same names again and again, and between
them numbers with the same brackets, commas and space around them; the numbers of one member, put together with commas
between them, are a list that `json_tensors` reads. Rows that differ in more than their numbers are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from service.payloads.json_tensors import NUMBERS_AND_SPACE, Numbers, read_numbers

_MAX_MEMBERS = 64  # of a row
_MAX_AROUND = 18  # pieces before the rows, and behind them: a few members of the document
_MAX_SPACE = 64  # bytes between two values
_BETWEEN = b",\r"  # entries; rows whose own space has carriage returns are left alone
_NUMBERS_AND_BLANKS = NUMBERS_AND_SPACE.replace(b"\r", b"")
_SPACE = rb"[ \n\r\t]*"
_BEGIN = re.compile(rb"%b:%b(?=\[%b\{%b\Z)" % (_SPACE, _SPACE, _SPACE, _SPACE))
_END = re.compile(rb"\}%b\]" % _SPACE)
_COLON = re.compile(rb"%b:%b" % (_SPACE, _SPACE))
_NEXT_MEMBER = re.compile(rb"%b,%b\Z" % (_SPACE, _SPACE))
_NEXT_ROW = re.compile(rb"%b\}(%b,%b\{%b)\Z" % (_SPACE, _SPACE, _SPACE, _SPACE))


@dataclass(frozen=True, slots=True, eq=False)
class NamedRows:
    """A list of objects of a JSON text that have the same members, as one list for each member.

    Args:
        columns: name -> its values in all rows, in their order.
    """

    columns: Mapping[str, Numbers]

    def lists(self) -> list[dict[str, Any]]:
        """The objects themselves, where something else was wanted."""
        values = [numbers.lists() for numbers in self.columns.values()]
        return [dict(zip(self.columns, row, strict=True)) for row in zip(*values, strict=True)]


class Found(NamedTuple):
    """Rows, and where they end.

    Args:
        rows: what they hold.
        end: the piece that their list ends in.
        offset: where in it.
    """

    rows: NamedRows
    end: int
    offset: int


def start_of_rows(body: bytes, marks: Sequence[int], members: Collection[str]) -> int:
    """The piece that ends with the beginning of the first row, of those between quotation marks; 0 for no rows.

    Args:
        body: JSON text, right or wrong.
        marks: where its first quotation marks are.
        members: the names that a list of rows may have in the document.
    """
    for place in range(2, min(len(marks), _MAX_AROUND), 2):
        before, mark, following = marks[place - 2 : place + 1]
        if _BEGIN.match(body, mark + 1, following) and body[before + 1 : mark].decode("latin-1") in members:
            return place
    return 0


def read_rows(pieces: list[bytes], start: int) -> Found | None:
    """The rows that begin in a piece; `None` where they are not alike, or hold anything but numbers.

    Args:
        pieces: JSON text, right or wrong, without its quotation marks.
        start: what `start_of_rows` gave.
    """
    names = _names_of_first(pieces, start)
    width = 2 * len(names)  # a name, and what follows it
    end = _end_of_rows(pieces, start, width) if names else 0
    if not end or pieces[start + 1 : end : 2] != names * ((end - start) // width):
        return None
    last = pieces[end]
    closed = last.index(b"}") + 1
    over = _END.match(last, closed - 1)
    if over is None:
        return None
    columns: dict[str, Numbers] = {}
    for place, name in enumerate(names):
        values = pieces[start + 2 + 2 * place : end + 1 : width]
        following = _NEXT_MEMBER
        if place == len(names) - 1:
            following = _NEXT_ROW
            opening = _NEXT_ROW.search(values[0][-_MAX_SPACE:])
            values[-1] = last[:closed] + (opening[1] if opening else b",{")
        text, numbers = _plain_name(name), _read_column(values, following)
        if text is None or text in columns or numbers is None:
            return None
        columns[text] = numbers
    return Found(NamedRows(columns), end, over.end())


def _names_of_first(pieces: list[bytes], start: int) -> list[bytes]:
    """The names of the first row's members, as they are written; none where there are many, or it has no end."""
    for place in range(start + 2, min(len(pieces), start + 2 + 2 * _MAX_MEMBERS), 2):
        if b"}" in pieces[place]:
            return pieces[start + 1 : place : 2]
    return []


def _end_of_rows(pieces: list[bytes], start: int, width: int) -> int:
    """The piece that the last row ends in; 0 where there is none after whole rows and near the end of the text."""
    for end in range(len(pieces) - 1, max(start, len(pieces) - _MAX_AROUND), -1):
        if (end - start) % width == 0 and _END.search(pieces[end]):
            return end
    return 0


def _plain_name(name: bytes) -> str | None:
    """What a name says; `None` for one with escapes, or that is no JSON."""
    try:
        return str(orjson.loads(b'"%b"' % name)) if b"\\" not in name else None
    except orjson.JSONDecodeError:
        return None


def _read_column(values: list[bytes], following: re.Pattern[bytes]) -> Numbers | None:
    """One member of all rows, one entry a row.

    Args:
        values: what stands between its name and the next, in each row. All must be of one form.
        following: what stands between a value and the next name.
    """
    colon, comma = _COLON.match(values[0]), following.search(values[0][-_MAX_SPACE:])
    if colon is None or comma is None:
        return None
    before, behind = colon[0], comma[0]
    entries = [
        value[len(before) : -len(behind)]
        for value in values
        if value.startswith(before) and value.endswith(behind)
    ]
    if len(entries) < len(values):
        return None
    text = b"[%b]" % _BETWEEN.join(entries)
    # Each entry must have the same brackets: together they could make a list though one of them closes in the next.
    marked = text.translate(None, _NUMBERS_AND_BLANKS)
    first = marked[1:-1].partition(_BETWEEN)[0]
    if b"\r" in first or marked != b"[%b]" % _BETWEEN.join([first] * len(entries)):
        return None
    array = read_numbers(text, marked.replace(b"\r", b""))
    return None if array is None or len(array) != len(entries) else Numbers(array, text)
