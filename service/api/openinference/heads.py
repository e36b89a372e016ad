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
from service.api.remembered import LONGEST, Remembered
from service.tensors import Array

# Clients write the id first. One that JSON would write with escapes is read the long way.
_LEADING_ID = re.compile(rb'\{\s*"id"\s*:\s*"([ !#-\[\]-~]*)"\s*,')


class HeadKey(NamedTuple):
    """What tells one head from another.

    Args:
        path: of the request.
        text: the JSON without the id that it begins with.
    """

    path: str
    text: bytes


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


def key_of(path: str, text: bytes | memoryview) -> tuple[HeadKey | None, str | None]:
    """The key of a head and the id that it begins with; no key where it is too long to be remembered."""
    if len(text) > LONGEST:
        return None, None
    text = bytes(text)
    leading = _LEADING_ID.match(text)
    if leading is None:
        return HeadKey(path, text), None
    return HeadKey(path, b"{" + text[leading.end() :]), leading[1].decode("ascii")


class KnownHeads:
    """The heads that were found good while the same models were served."""

    def __init__(self) -> None:
        self._known: Remembered[HeadKey, KnownHead] = Remembered()

    def find(self, key: HeadKey, generation: int) -> KnownHead | None:
        """The head of this key, if it was found good before."""
        return self._known.find(key, generation)

    def remember(
        self, key: HeadKey, generation: int, head: Head, dtypes: dict[str, str], plan: OutputPlan
    ) -> None:
        """Notes a good head where all that follows from it is known: binary numbers, and no id besides the first.

        Args:
            key: its key.
            generation: of the runtime.
            head: what it says.
            dtypes: input name -> the model's dtype.
            plan: what its outputs mean.
        """
        if b'"id"' in key.text or any(one.size is None or one.datatype == BYTES for one in head.inputs):
            return
        known = KnownHead(head, tuple(dtypes[one.name] for one in head.inputs), plan)
        self._known.keep(key, generation, known)
