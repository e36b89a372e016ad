"""A small model beside the flood of a large one: `.venv/bin/python benchmarks/neighbours.py`, two minutes.

MobileNetV2 is asked for three times what it manages, and digits for 400 pictures a second, both at once and by Poisson
arrivals that do not wait for answers; `/readyz` is probed meanwhile. Prints how much of the 400 was answered in time, for
each round, and what became of the flood.
"""

from __future__ import annotations

import argparse
import http.client
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from inputs import make_models
from load import closed_loop, drain
from open_loop import OpenReading, open_loop
from peers.dialects import within
from peers.registry import find_peer
from servers import stop_with_servers
from starting import started
from workloads import find_workloads

_SMALL_RATE = 400.0
_FLOOD = 3.0
_PROBE_EVERY_S, _PROBE_WITHIN_S = 0.2, 1.0


def main() -> None:
    stop_with_servers()
    options = _options()
    peer = find_peer("layertap")
    small, large = find_workloads("b,e-mobilenet")
    with started(peer, make_models(), (*small.asked(), *large.asked())) as (port, _):
        floods = [within(options.deadline_s, each, peer.dialect) for each in large.requests(peer.dialect)]
        asked = [within(options.deadline_s, each, peer.dialect) for each in small.requests(peer.dialect)]
        for workload, requests in ((small, asked), (large, floods)):
            closed_loop(port, requests, 2, workload.connections)
            drain(port, requests[0])
        capacity = closed_loop(port, floods, 4, large.connections).rate
        print(f"MobileNetV2 alone: {capacity:.1f}/s")
        print("| round | digits answered | p50, p99 ms | otherwise | MobileNetV2 answered | probes, failed |")
        print("|--:|--:|--:|---|--:|--:|")
        for number in range(1, options.rounds + 1):
            drain(port, floods[0])
            with ThreadPoolExecutor(2) as pool, _Probes(port) as probes:
                flood = pool.submit(
                    open_loop, port, floods, _FLOOD * capacity, options.seconds, deadline_s=options.deadline_s
                )
                beside = open_loop(port, asked, _SMALL_RATE, options.seconds, deadline_s=options.deadline_s)
                flooded = flood.result()
            print(
                f"| {number} | {_row(beside, flooded, capacity)} | {probes.made}, {probes.failed} |",
                flush=True,
            )


def _row(beside: OpenReading, flooded: OpenReading, capacity: float) -> str:
    otherwise = ", ".join(f"{status}: {count}" for status, count in beside.statuses.items() if count) or "-"
    late = f" (the client was {beside.late_ms:.0f} ms late)" if beside.late_ms > 5 else ""
    return (
        f"{beside.goodput / beside.offered:.1%} | {beside.p50_ms:.0f}, {beside.p99_ms:.0f} | {otherwise}{late} | "
        f"{flooded.goodput / capacity:.1%} of alone"
    )


class _Probes:
    """Asks whether the service is ready, every so often."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.made = self.failed = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._over.wait(_PROBE_EVERY_S):
            self.made += 1
            begun = time.monotonic()
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_PROBE_WITHIN_S)
                connection.request("GET", "/readyz")
                good = connection.getresponse().status == 200
                connection.close()
            except OSError:
                good = False
            self.failed += not good or time.monotonic() - begun > _PROBE_WITHIN_S


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15, help="of each round")
    parser.add_argument("--deadline-s", type=float, default=1.0, help="a reply after it is none")
    return parser.parse_args()


if __name__ == "__main__":
    main()
