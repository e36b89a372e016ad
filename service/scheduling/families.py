"""Owns when jobs that want different tensors of one model share a batch.

The lanes of one version of one model are a family. Some lane's function may yield what the jobs of several want:
that of `/features?include=predictions` yields predictions and features. It is then run once, instead of one
function after the other. Whether that is quicker depends on the model: where a call costs as much as its
rows, uniting halves the calls; where time is in the rows and one of the layers is an early one, its jobs are better
off with a function that computes nothing behind it.

The rule, asked when a batch has room left and all rows that wait in another lane of the family fit:

- What each of the two functions takes by itself is known from the batches that ran (`costs.Cost`). Unless their sum
  beats the slower of the two on all rows by the margin, they stay apart: no function of both can be quicker than that.
- A function of both that was measured must beat the sum by the margin; one that was not is tried.
- Where there is none, and there was often enough a use for one, it is asked for. It is made on the compiler thread,
  is bounded with the other functions that nobody named in advance, and until it is there the lanes stay apart.
- Every so often the other of the two ways is taken, so that what is known of both stays true.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from service.scheduling.jobs import Lane

MARGIN = 0.9
"""The part of the time apart that a united batch may take at most."""

_CHANCES = 64  # batches that might have been united, before a function is made for them
_OTHER_WAY = 32  # one decision of so many is turned round
_MOST_ASKED = 4  # functions that one family asks for, ever: each may hold a copy of the weights


class LaneFamily:
    """The lanes of one version of one model; see `jobs.Family`.

    Args:
        ask: asks for a lane that yields all of these outputs; called on the engine thread, so it must not block.
    """

    def __init__(self, ask: Callable[[frozenset[str]], None]) -> None:
        self._ask = ask
        self._lanes: tuple[Lane, ...] = ()  # replaced, never changed: the engine thread may be reading it
        self._chances: Counter[frozenset[str]] = Counter()
        self._asked: set[frozenset[str]] = set()
        self._decisions = 0

    def join(self, lane: Lane) -> None:
        """Takes in a lane whose function may be used for others' jobs."""
        self._lanes = (*self._lanes, lane)

    def leave(self, lane: Lane) -> None:
        """Lets go of a lane; its own jobs still run."""
        self._lanes = tuple(other for other in self._lanes if other is not lane)

    def close(self) -> None:
        """Lets go of all lanes."""
        self._lanes = ()

    def unite(self, lane: Lane, rows: int, other: Lane, more: int) -> Lane | None:
        """The lane whose function is to compute the rows of both; `None`: they stay apart. See the module."""
        apart = _sum(lane.cost.seconds(rows), other.cost.seconds(more))
        at_best = _largest(lane.cost.seconds(rows + more), other.cost.seconds(rows + more))
        if apart is None or at_best is None or at_best > apart * MARGIN:
            return None
        wanted = frozenset((*lane.outputs, *other.outputs))
        known = {
            function: seconds if seconds is not None else at_best
            for function in self._lanes
            if function.run is not None and wanted.issubset(function.outputs)
            for seconds in [function.cost.seconds(rows + more)]
        }
        if not known:
            self._missed(wanted)
            return None
        function = min(known, key=known.__getitem__)
        self._decisions += 1
        better = known[function] <= apart * MARGIN
        if self._decisions % _OTHER_WAY == 0:
            better = not better
        return function if better else None

    def _missed(self, wanted: frozenset[str]) -> None:
        if wanted in self._asked or len(self._asked) >= _MOST_ASKED:
            return
        self._chances[wanted] += 1
        if self._chances[wanted] >= _CHANCES:
            self._chances.clear()
            self._asked.add(wanted)
            self._ask(wanted)


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second


def _largest(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else max(first, second)
