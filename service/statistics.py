"""Owns what each version of each model has done since the process began: requests, rows, batches, and their time.

The numbers are those of the Open Inference Protocol's statistics extension; nothing is ever taken back, and a
version that is loaded again goes on counting. It knows no HTTP and no metrics library.

Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from service.pending import Pending
from service.scheduling.batch import BatchReport
from service.tensors import Timings

_NS = 1e9


@dataclass(frozen=True, slots=True)
class Tally:
    """How often something happened, and the nanoseconds it took in all."""

    count: int = 0
    total_ns: int = 0


@dataclass(frozen=True, slots=True)
class BatchTally:
    """The batches of one size.

    Args:
        rows: the size, without padding.
        compute_infer: the forward passes, putting rows together and handing them back included.
    """

    rows: int
    compute_infer: Tally


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """One version of one model.

    Args:
        model: its name.
        version: its number.
        last_inference_ms: when its last batch ended, milliseconds since 1970; 0 for never.
        inference_count: rows that ran.
        execution_count: forward passes that ran.
        success: answered requests, from decoding to encoding.
        fail: requests that were understood and ended with an error or whose client left, from their arrival.
        queue: of answered requests, the wait for their batches.
        compute_input: of answered requests, from the body to valid arrays.
        compute_infer: of answered requests, the batches that they were part of.
        compute_output: of answered requests, from arrays to the reply's body.
        batches: by size, the smallest first.
    """

    model: str
    version: int
    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: Tally = field(default_factory=Tally)
    fail: Tally = field(default_factory=Tally)
    queue: Tally = field(default_factory=Tally)
    compute_input: Tally = field(default_factory=Tally)
    compute_infer: Tally = field(default_factory=Tally)
    compute_output: Tally = field(default_factory=Tally)
    batches: tuple[BatchTally, ...] = ()


@dataclass(slots=True)
class _Account:
    """Sums in seconds; `ModelStatistics` says what they are."""

    last_inference_ms: int = 0
    rows: int = 0
    answered: int = 0
    failed: int = 0
    failed_s: float = 0.0
    stages: Timings = field(default_factory=Timings)
    batches: dict[int, tuple[int, float]] = field(default_factory=dict)  # rows -> batches, seconds


class Ledger:
    """Counts, from any thread.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._accounts: dict[tuple[str, int], _Account] = {}
        self._pending: Pending[tuple[str, int, Timings]] = Pending(self._count)
        self._lock = self._pending.lock

    def answered(self, model: str, version: int, timings: Timings) -> None:
        """Counts an answered request; what it adds up to is worked out later, for many at once."""
        self._pending.add((model, version, timings))

    def failed(self, model: str, version: int, seconds: float) -> None:
        """Counts a request that was understood and failed, this long after it came."""
        with self._lock:
            account = self._account(model, version)
            account.failed += 1
            account.failed_s += seconds

    def ran(self, model: str, version: int, report: BatchReport) -> None:
        """Counts a batch: the forward passes of it that did not raise."""
        if not report.passes:
            return
        now_ms = int(self._clock() * 1e3)
        with self._lock:
            account = self._account(model, version)
            account.last_inference_ms = max(account.last_inference_ms, now_ms)
            for rows, seconds in report.passes:
                count, total_s = account.batches.get(rows, (0, 0.0))
                account.batches[rows] = count + 1, total_s + seconds
                account.rows += rows

    def read(self, model: str, version: int) -> ModelStatistics:
        """The numbers of one version, as of now; zeros where it did nothing yet."""
        with self._lock:
            self._pending.settle()
            account = self._accounts.get((model, version), _NOTHING)
            answered, stages = account.answered, account.stages
            total_s = stages.decode_s + stages.queue_s + stages.compute_s + stages.encode_s
            return ModelStatistics(
                model=model,
                version=version,
                last_inference_ms=account.last_inference_ms,
                inference_count=account.rows,
                execution_count=sum(count for count, _ in account.batches.values()),
                success=_tally(answered, total_s),
                fail=_tally(account.failed, account.failed_s),
                queue=_tally(answered, stages.queue_s),
                compute_input=_tally(answered, stages.decode_s),
                compute_infer=_tally(answered, stages.compute_s),
                compute_output=_tally(answered, stages.encode_s),
                batches=tuple(
                    BatchTally(rows, _tally(*sums)) for rows, sums in sorted(account.batches.items())
                ),
            )

    def _account(self, model: str, version: int) -> _Account:
        account = self._accounts.get((model, version))
        if account is None:
            account = self._accounts[model, version] = _Account()
        return account

    def _count(self, pending: list[tuple[str, int, Timings]]) -> None:
        for model, version, timings in pending:
            account = self._account(model, version)
            account.answered += 1
            stages = account.stages
            stages.decode_s += timings.decode_s
            stages.queue_s += timings.queue_s
            stages.compute_s += timings.compute_s
            stages.encode_s += timings.encode_s


_NOTHING = _Account()


def _tally(count: int, seconds: float) -> Tally:
    return Tally(count, round(seconds * _NS))
