"""Owns the reading of marshalled Python code into plain values, bounded, for any Python from 2.7 on.

`marshal.loads` may crash on what somebody made up, and bytecode of another Python is not for this one. Nothing
here is turned into a code object.

Source: Python/marshal.c (`r_object`) of CPython 2.7, 3.7, 3.10 and 3.14.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAX_VALUES = 100_000
MAX_DEPTH = 50


class Unreadable(ValueError):
    """Not the format, or more of it than a layer needs."""


@dataclass(slots=True)
class Code:
    """A function: its name, the names it uses, its constants with the functions inside it."""

    name: str
    names: tuple[Any, ...]
    constants: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a code object is written: numbers, bytecode, constants, names, then values around its name and line."""

    python: str
    numbers: int
    before_name: int
    after_name: int
    after_line: int


LAYOUTS = (
    Layout("Python 3.11 or later", 5, before_name=3, after_name=1, after_line=2),
    Layout("Python 3.8 to 3.10", 6, before_name=4, after_name=0, after_line=1),
    Layout("Python 3.0 to 3.7", 5, before_name=4, after_name=0, after_line=1),
    Layout("Python 2", 4, before_name=4, after_name=0, after_line=1),
)


def read_code(data: bytes, layout: Layout) -> Code:
    """The function in `data`, as a Python of this layout marshalled it.

    Raises:
        Unreadable: no function, not in this layout, or more than a function holds.
    """
    code = _Reader(data, layout).read()
    if not isinstance(code, Code):
        raise Unreadable("it is no function")
    return code


@dataclass(slots=True)
class _Reader:
    """Reads one marshalled value whose code objects have this layout."""

    data: bytes
    layout: Layout
    place: int = 0
    values: int = 0
    references: list[Any] = field(default_factory=list)
    interned: list[Any] = field(default_factory=list)

    def read(self) -> Any:
        return self._value(0)

    def take(self, size: int) -> bytes:
        if size < 0 or self.place + size > len(self.data):
            raise Unreadable("it is cut off")
        self.place += size
        return self.data[self.place - size : self.place]

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def text(self, size_form: str, encoding: str) -> str:
        try:
            return self.take(self.number(size_form)).decode(encoding)
        except UnicodeDecodeError as error:
            raise Unreadable("it holds a text that is none") from error

    def _value(self, depth: int) -> Any:
        self.values += 1
        if self.values > MAX_VALUES or depth > MAX_DEPTH:
            raise Unreadable("it holds more than a function does")
        mark = self.number("<B")
        kind, shared = chr(mark & 0x7F), bool(mark & 0x80)
        if kind in "rR":
            return self._reference(kind)
        place = len(self.references)
        if shared:  # what refers to it may stand inside it
            self.references.append(None)
        value = self._content(kind, depth)
        if kind == "t" and not shared:
            self.interned.append(value)  # Python 2 counts these apart
        if shared:
            self.references[place] = value
        return value

    def _content(self, kind: str, depth: int) -> Any:
        if kind == "c":
            return self._code(depth)
        if kind == "{":
            return self._pairs(depth)
        if kind in "()[<>":
            size = self.number("<B") if kind == ")" else self.number("<i")
            if not 0 <= size <= len(self.data) - self.place:
                raise Unreadable("it is cut off")
            return tuple(self._value(depth + 1) for _ in range(size))
        if kind not in _SCALARS:
            raise Unreadable(f"it holds {kind!r}, which is no mark of the format")
        return _SCALARS[kind](self)

    def _reference(self, kind: str) -> Any:
        place = self.number("<I")
        known = self.references if kind == "r" else self.interned
        if place >= len(known):
            raise Unreadable("it refers to what is not there")
        return known[place]

    def _pairs(self, depth: int) -> tuple[Any, ...]:
        found: list[Any] = []
        while self.data[self.place : self.place + 1] != b"0":
            found += [self._value(depth + 1), self._value(depth + 1)]
        self.take(1)
        return tuple(found)

    def _code(self, depth: int) -> Code:
        layout = self.layout
        self.take(4 * layout.numbers)
        bytecode, constants, names = (self._value(depth + 1) for _ in range(3))
        for _ in range(layout.before_name):
            self._value(depth + 1)
        name = self._value(depth + 1)
        for _ in range(layout.after_name):
            self._value(depth + 1)
        self.number("<i")
        for _ in range(layout.after_line):
            self._value(depth + 1)
        if not (isinstance(bytecode, bytes) and isinstance(constants, tuple) and isinstance(names, tuple)):
            raise Unreadable("it is not laid out as a function")
        name = name.decode("latin-1") if isinstance(name, bytes) else name
        if not isinstance(name, str):
            raise Unreadable("it is not laid out as a function")
        return Code(name, tuple(_decoded(item) for item in names), constants)


def _decoded(name: Any) -> Any:
    return name.decode("latin-1") if isinstance(name, bytes) else name


def _long(reader: _Reader) -> str:
    """A long number, by its size only: nobody needs its digits to judge a layer."""
    count = reader.number("<i")
    digits = reader.take(2 * abs(count))
    if abs(count) > 8:
        return f"a number of {15 * abs(count)} bits"
    parts = struct.unpack(f"<{abs(count)}H", digits)
    return str(sum(part << (15 * place) for place, part in enumerate(parts)) * (1 if count > 0 else -1))


_SCALARS: dict[str, Callable[[_Reader], Any]] = {
    "N": lambda _: None,
    "T": lambda _: True,
    "F": lambda _: False,
    "S": lambda _: "StopIteration",
    ".": lambda _: ...,
    "i": lambda reader: reader.number("<i"),
    "I": lambda reader: reader.number("<q"),
    "l": _long,
    "f": lambda reader: reader.text("<B", "latin-1"),
    "g": lambda reader: struct.unpack("<d", reader.take(8))[0],
    "x": lambda reader: reader.text("<B", "latin-1") + "+" + reader.text("<B", "latin-1") + "j",
    "y": lambda reader: complex(*struct.unpack("<dd", reader.take(16))),
    "s": lambda reader: reader.take(reader.number("<i")),
    "t": lambda reader: reader.text("<i", "utf-8"),
    "u": lambda reader: reader.text("<i", "utf-8"),
    "a": lambda reader: reader.text("<i", "latin-1"),
    "A": lambda reader: reader.text("<i", "latin-1"),
    "z": lambda reader: reader.text("<B", "latin-1"),
    "Z": lambda reader: reader.text("<B", "latin-1"),
}
