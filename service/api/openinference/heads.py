"""Owns what is remembered of requests: heads that were found good, and the model that they were found good for.

Clients send the same head again and again, another id in it at most, and only other numbers behind it. A head of
which all tensors are binary numbers is therefore read once: for the next request only the bytes are looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from service.api.openinference import inputs
from service.api.openinference.datatypes import BYTES
from service.api.openinference.outputs import OutputPlan
from service.api.openinference.requests import Head
from service.tensors import Array

_REMEMBERED = 1024
_MAX_BYTES = 1024
# Clients write the id first. One that JSON would write with escapes is read the long way.
_LEADING_ID = re.compile(rb'\{\s*"id"\s*:\s*"([ !#-\[\]-~]*)"\s*,')


class HeadKey(NamedTuple):
    """What tells one head from another.

    Args:
        path: of the request.
        text: the JSON without the id that it begins with.
        generation: of the runtime.
    """

    path: str
    text: bytes
    generation: int


@dataclass(frozen=True, slots=True)
class KnownHead:
    """A head that was found good.

    Args:
        head: what it says; its `id` means nothing.
        dtypes: of the model's inputs, in the order of the head's.
        plan: what its outputs mean.
    """

    head: Head
    dtypes: tuple[str, ...]
    plan: OutputPlan

    def read(self, binary: memoryview) -> dict[str, Array]:
        """The inputs of a request with this head.

        Raises:
            InvalidInput: the bytes are more or fewer than the head announces.
        """
        heads = self.head.inputs
        pieces = inputs.cut_binary(heads, binary)
        return {
            head.name: inputs.read_binary(head, piece, dtype)
            for head, piece, dtype in zip(heads, pieces, self.dtypes, strict=True)
        }


def key_of(path: str, text: bytes | memoryview, generation: int) -> tuple[HeadKey | None, str | None]:
    """The key of a head and the id that it begins with; no key where it is too long to be remembered."""
    if len(text) > _MAX_BYTES:
        return None, None
    text = bytes(text)
    leading = _LEADING_ID.match(text)
    if leading is None:
        return HeadKey(path, text, generation), None
    return HeadKey(path, b"{" + text[leading.end() :], generation), leading[1].decode("ascii")


class KnownHeads:
    """The heads that were found good while the same models were served."""

    def __init__(self) -> None:
        self._known: dict[HeadKey, KnownHead] = {}

    def find(self, key: HeadKey) -> KnownHead | None:
        """The head of this key, if it was found good before."""
        return self._known.get(key)

    def remember(self, key: HeadKey, head: Head, dtypes: dict[str, str], plan: OutputPlan) -> None:
        """Notes a good head where all that follows from it is known: binary numbers, and no id besides the first.

        Args:
            key: its key.
            head: what it says.
            dtypes: input name -> the model's dtype.
            plan: what its outputs mean.
        """
        if b'"id"' in key.text or any(one.size is None or one.datatype == BYTES for one in head.inputs):
            return
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[key] = KnownHead(head, tuple(dtypes[one.name] for one in head.inputs), plan)

    def clear(self) -> None:
        """Forgets all, because other models are served."""
        self._known.clear()
