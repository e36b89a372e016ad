"""Owns what is known of a function's cost: the seconds of a batch by its rows, learnt from the batches that ran."""

from __future__ import annotations

_KEPT = 0.97  # the weight that each batch leaves to those before it: about the last thirty count
_LONGEST = 3.0  # times what was expected
_FORGET = 1.01  # how much slower the quickest batch is taken to be after each batch that was not as quick
_ENOUGH = 4  # batches; the first ones are slower than all later ones


class Cost:
    """A line through the batches that one function ran: so long for any batch, and so much more for each row.

    While all of them had the same number of rows, nobody can tell the one from the other, and every row more or
    less is taken to be free: an optimist tries, and then knows.
    """

    __slots__ = ("_batches", "_quickest", "_rows", "_rows_rows", "_rows_seconds", "_seconds", "_weight")

    def __init__(self) -> None:
        self._batches = 0
        self._quickest: dict[
            int, float
        ] = {}  # bits of the rows -> seconds of the quickest batch of such a size
        self._weight = self._rows = self._seconds = self._rows_rows = self._rows_seconds = 0.0

    def measured(self, rows: int, seconds: float) -> None:
        """Learns from one batch; from one that took far longer than it should have, only that it was long.

        A process that loses its core for a moment would else look slow for the next thirty batches.
        """
        expected = self.seconds(rows)
        if expected:
            seconds = min(seconds, _LONGEST * expected)
        size = rows.bit_length()
        self._quickest[size] = min(seconds, self._quickest.get(size, seconds) * _FORGET)
        self._batches += 1
        self._weight = self._weight * _KEPT + 1
        self._rows = self._rows * _KEPT + rows
        self._seconds = self._seconds * _KEPT + seconds
        self._rows_rows = self._rows_rows * _KEPT + rows * rows
        self._rows_seconds = self._rows_seconds * _KEPT + rows * seconds

    def seconds(self, rows: int) -> float | None:
        """What a batch of so many rows is likely to take; `None` while too few have run."""
        line = self._line()
        return None if line is None else line[0] + line[1] * rows

    def at_best(self, rows: int) -> float | None:
        """What a batch of about so many rows takes when nothing holds it up; `None` while no such batch has run.

        A thread that waits for the interpreter lock or for its core makes every function look slow, and then it is
        never taken for a quick one again.
        """
        return self._quickest.get(rows.bit_length()) if self._batches >= _ENOUGH else None

    def price(self) -> tuple[float, float] | None:
        """Seconds of any batch, and more for each row; `None` while too few batches have run.

        For those who must not promise too much: while all batches had the same number of rows, the rows are taken
        to cost everything.
        """
        if self._batches >= _ENOUGH and not self._variance():
            return 0.0, self._seconds / self._rows
        return self._line()

    def _line(self) -> tuple[float, float] | None:
        if self._batches < _ENOUGH:
            return None
        mean_rows, mean_s = self._rows / self._weight, self._seconds / self._weight
        variance = self._variance()
        if not variance:
            return mean_s, 0.0
        together = self._rows_seconds / self._weight - mean_rows * mean_s
        # Neither a row nor a batch costs less than nothing: the line is turned about its middle until that holds.
        per_row = min(max(0.0, together / variance), mean_s / mean_rows)
        return mean_s - per_row * mean_rows, per_row

    def _variance(self) -> float:
        """Of the rows; 0 where all batches had the same number of them."""
        mean_rows = self._rows / self._weight
        variance = self._rows_rows / self._weight - mean_rows * mean_rows
        return variance if variance >= 1e-6 * mean_rows * mean_rows else 0.0  # less than that is rounding
