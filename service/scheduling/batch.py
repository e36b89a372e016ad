"""Owns what a batch is: what is to be run before it has run, and what is told of it afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.scheduling.jobs import Job, Lane, Run


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be run next.

    Args:
        lane: whose function computes it.
        run: that function.
        jobs: those whose parts in flight make the batch, in order; empty where all that were due are late.
        late: those met on the way whose deadline has passed; they still wait.
        shares: where jobs of several lanes are united: each lane's function and its jobs, which run apart where
            the one for all of them raises, since it computes what some of them do not want. Else empty.
    """

    lane: Lane
    run: Run
    jobs: list[Job]
    late: list[Job]
    shares: Sequence[tuple[Run, list[Job]]] = ()


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What one batch was.

    Args:
        lane: the lane's name.
        label: the lane's label.
        jobs: how many jobs took part.
        rows: how many rows they had in it.
        seconds: from its first row gathered to its last result, retries after a failure included.
        failed: whether the forward pass raised, for all of them or for some.
        passes: rows and seconds of each forward pass that did not raise; other than one only where `failed`,
            or where jobs were deferred.
    """

    lane: str
    label: tuple[str, int]
    jobs: int
    rows: int
    seconds: float
    failed: bool
    passes: Sequence[tuple[int, float]]
