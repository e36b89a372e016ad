"""Owns the histograms of where requests' time goes: decoding, waiting, computing, encoding.

`prometheus_client` counts one number at a time, which for four of them took 2 to 4 us of each request on the event
loop. Here they are put aside and counted many at once, in a loop that stays in the processor's cache.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from operator import attrgetter

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from service.pending import Pending
from service.tensors import Timings

_BOUNDS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
_NAMES = (*map(floatToGoString, _BOUNDS_S), "+Inf")


class _Histogram:
    """One stage of one model: how many times lay between two bounds, and their sum in seconds."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * len(_NAMES)
        self.total_s = 0.0

    def count(self, times: list[float]) -> None:
        counts = self.counts
        for time in times:
            counts[bisect_left(_BOUNDS_S, time)] += 1
        self.total_s += sum(times)

    def cumulated(self) -> list[tuple[str, float]]:
        """Bound -> how many times were at most that long."""
        seen = 0
        return [(name, seen := seen + count) for name, count in zip(_NAMES, self.counts, strict=True)]


class StageTimes(Collector):
    """The histograms of all models; a collector of `prometheus_client`.

    Args:
        stages: metric's name -> its stage, an attribute of `Timings` in seconds, and what the metric means.
    """

    labels = ("model",)

    def __init__(self, stages: Mapping[str, tuple[str, str]]) -> None:
        self._stages = [(name, attrgetter(stage), meaning) for name, (stage, meaning) in stages.items()]
        self._histograms: dict[str, list[_Histogram]] = {}  # by model, one for each stage
        self._pending: Pending[tuple[str, Timings]] = Pending(self._count)

    def add(self, model: str, timings: Timings) -> None:
        """Counts one answered request of a model, from any thread; `timings` must not change any more."""
        self._pending.add((model, timings))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The histograms as of now; models without requests have none."""
        with self._pending.lock:
            self._pending.settle()
            for place, (name, _, meaning) in enumerate(self._stages):
                family = HistogramMetricFamily(name, meaning, labels=self.labels)
                for model, histograms in self._histograms.items():
                    found = histograms[place]
                    family.add_metric([model], found.cumulated(), found.total_s)
                yield family

    def _count(self, pending: list[tuple[str, Timings]]) -> None:
        by_model: dict[str, list[Timings]] = {}
        for model, timings in pending:
            by_model.setdefault(model, []).append(timings)
        for model, requests in by_model.items():
            if model not in self._histograms:
                self._histograms[model] = [_Histogram() for _ in self._stages]
            for (_, stage, _), histogram in zip(self._stages, self._histograms[model], strict=True):
                histogram.count([stage(timings) for timings in requests])
