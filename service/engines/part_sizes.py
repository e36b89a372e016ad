"""Owns how a batch is cut into parts of sizes that a function is prepared for."""

from __future__ import annotations

from collections.abc import Iterable


class PartSizes:
    """The sizes, and the cut of every batch into few of them.

    Args:
        sizes: rows; 1 is one of them in any case.
    """

    def __init__(self, sizes: Iterable[int]) -> None:
        self.sizes = tuple(sorted({1, *sizes}))
        self._cuts = {rows: _few(rows, self.sizes) for rows in range(1, self.sizes[-1] + 1)}

    def cut(self, rows: int) -> tuple[int, ...]:
        """Sizes, the larger ones first, whose sum is `rows`, at least 1."""
        known = self._cuts.get(rows)
        if known is not None:
            return known
        whole, rest = divmod(rows, self.sizes[-1])
        return (self.sizes[-1],) * whole + (self._cuts[rest] if rest else ())


def _few(rows: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    parts: list[int] = []
    for size in reversed(sizes):
        count, rows = divmod(rows, size)
        parts += [size] * count
    return tuple(parts)
