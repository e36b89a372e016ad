"""Measures the service beside eight other servers, all in one run: `make bench-peers`.

The same models, rows and client for all; the server has one core, the load the other; servers and workloads come in
random order, round after round. Prints one table of closed loops and one of open loops, and writes
bench-results/peers.json. benchmarks/README.md says how to read them.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from inputs import make_models
from load import ask, closed_loop, drain
from open_loop import open_loop
from peers.dialects import within
from peers.environments import EnvironmentFailed
from peers.registry import DEFAULT, ONCE, Peer, find_peer
from peers_report import ALL, closed_rows, print_closed, print_open
from servers import ROOT, ServerFailed, stop_with_servers
from starting import started
from workloads import WORKLOADS, Workload, find_workloads

_RESULTS = ROOT / "bench-results"
_OPEN_WORKLOADS = ("a", "e-mobilenet")
_LOADS = (0.5, 0.8, 1.5)
_TOLERANCE = {"layertap-bfloat16": 0.1}  # relative to the largest value; float32 servers: 1e-3
_DEADLINE_S = 0.5  # short beside the run, so that a growing queue shows

Record = dict[str, Any]


class Run:
    """One run's measurements.

    Args:
        models: the folder of the models.
        workloads: what is measured.
        seconds: of a closed loop.
        answers: workload -> the right outputs, one for each of its endpoints.
    """

    def __init__(
        self, models: Path, workloads: Sequence[Workload], seconds: int, answers: dict[str, list[Any]]
    ) -> None:
        self._models = models
        self._workloads = list(workloads)
        self._seconds = seconds
        self._answers = answers
        self.closed: list[Record] = []
        self.open: list[Record] = []
        self.starts: list[Record] = []

    def measure(self, peer: Peer, number: int) -> None:
        """One round of one server: every workload, in random order; open loops in the first round."""
        shuffled = random.sample(self._workloads, len(self._workloads))
        for workloads in [[each] for each in shuffled] if peer.apart else [shuffled]:
            self._one_start(peer, workloads, number)

    def _one_start(self, peer: Peer, workloads: Sequence[Workload], number: int) -> None:
        endpoints = tuple(
            {endpoint.name: endpoint for each in workloads for endpoint in each.asked()}.values()
        )
        begun = time.perf_counter()
        try:
            with started(peer, self._models, endpoints) as (port, server):
                ready_s = time.perf_counter() - begun
                print(f"  {peer.name}: ready after {ready_s:.1f} s", flush=True)
                for workload in workloads:
                    self._workload(peer, port, workload, number)
                found = {"ready_s": ready_s, "memory_bytes": server.memory_bytes()}
                self.starts.append({"server": peer.name, "round": number, **found})
        except (ServerFailed, EnvironmentFailed) as error:
            self._note(peer, ALL, number, problem=f"did not start: {error}")

    def _workload(self, peer: Peer, port: int, workload: Workload, number: int) -> None:
        problem = self._check(peer, port, workload) if peer.real else None
        if problem:
            self._note(peer, workload.name, number, problem=problem)
            return
        requests = workload.requests(peer.dialect)
        closed_loop(port, requests, 1, workload.connections)
        drain(port, requests[0])
        reading = closed_loop(port, requests, self._seconds * workload.patience, workload.connections)
        self._note(peer, workload.name, number, **asdict(reading))
        if not reading.rate:
            self._note(peer, workload.name, number, problem="no reply in the time")
        if reading.failed:
            self._note(peer, workload.name, number, problem=f"{reading.failed} requests failed")
        if number == 0 and workload.name in _OPEN_WORKLOADS and reading.rate:
            self._open_loops(peer, port, workload, reading.rate)

    def _check(self, peer: Peer, port: int, workload: Workload) -> str | None:
        """What is wrong with the server's answers; `None` where they are right."""
        requests = workload.requests(peer.dialect)
        tolerance = _TOLERANCE.get(peer.name, 1e-3)
        for endpoint, request, right in zip(
            workload.asked(), requests, self._answers[workload.name], strict=True
        ):
            try:
                status, headers, body = ask(port, request)
            except (OSError, http.client.HTTPException) as error:
                return f"no answer: {error!r}"
            if status != 200:
                return f"status {status}: {body[:200].decode(errors='replace')}"
            outputs, wanted = peer.dialect.read(endpoint, headers, body).ravel(), np.ravel(right)
            if outputs.shape != wanted.shape:
                return f"wrong answer: {outputs.size} values, not {wanted.size}"
            off = float(np.abs(outputs - wanted).max() / np.abs(wanted).max())
            if off > tolerance:
                return f"wrong answer: off by {off:.1g} of the largest value"
        return None

    def _open_loops(self, peer: Peer, port: int, workload: Workload, capacity: float) -> None:
        seconds = self._seconds * workload.patience
        for load in random.sample(_LOADS, len(_LOADS)):
            requests = [within(_DEADLINE_S, each, peer.dialect) for each in workload.requests(peer.dialect)]
            drain(port, requests[0])
            reading = open_loop(port, requests, load * capacity, seconds, deadline_s=_DEADLINE_S)
            self.open.append(
                {"server": peer.name, "workload": workload.name, "load": load, **asdict(reading)}
            )

    def _note(self, peer: Peer, workload: str, number: int, **what: Any) -> None:
        self.closed.append({"server": peer.name, "workload": workload, "round": number, **what})
        said = what.get("problem") or f"{what['rate']:,.1f} req/s"
        print(f"    {peer.name}, {workload}: {said}", flush=True)


def read_limits(models: Path, workloads: Sequence[Workload]) -> tuple[dict[str, float], dict[str, list[Any]]]:
    """The in-process limits and the right answers, by workload; see cell_limits.py."""
    names = ",".join(workload.name for workload in workloads)
    command = [
        sys.executable,
        "-W",
        "ignore",
        str(ROOT / "benchmarks" / "cell_limits.py"),
        str(models),
        names,
    ]
    finished = subprocess.run(command, check=False, capture_output=True, text=True)
    if finished.returncode:
        sys.exit(f"the in-process limits were not measured:\n{finished.stderr[-2000:]}")
    found = [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]
    limits = {each["workload"]: each["limit"] for each in found}
    return limits, {each["workload"]: each["answers"] for each in found}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", default=",".join(DEFAULT), help="servers, separated by commas; NAME+compiled too"
    )
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="a letter, or one of its lines")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of a closed loop on small requests")
    parser.add_argument("--once", default=",".join(ONCE), help="servers measured in the first round only")
    parser.add_argument("--install", action="store_true", help="only make the environments")
    return parser.parse_args()


def _install(peers: Sequence[Peer]) -> None:
    for peer in peers:
        if peer.environment:
            try:
                peer.environment.make()
            except EnvironmentFailed as error:
                print(f"{peer.name}: {error}", flush=True)  # its row will say so, too


def main() -> None:
    if len(os.sched_getaffinity(0)) < 2 or shutil.which("wrk") is None:
        sys.exit("the benchmark needs two cores and wrk (Debian package wrk)")
    stop_with_servers()
    options = _options()
    peers = [find_peer(name) for name in options.only.split(",")]
    workloads = find_workloads(options.workloads)
    _install(peers)
    if options.install:
        return
    begun = time.perf_counter()
    models = make_models()
    limits, answers = read_limits(models, workloads)
    once = options.once.split(",")
    run = Run(models, workloads, options.seconds, answers)
    try:
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", flush=True)
            due = [peer for peer in peers if number == 0 or peer.name not in once]
            for peer in random.sample(due, len(due)):
                run.measure(peer, number)
    finally:  # a run that is stopped tells what it has
        rows = closed_rows(run.closed, workloads, limits)
        _write(run, rows, limits, peers, vars(options) | {"took_s": round(time.perf_counter() - begun)})
        print_closed(rows)
        if run.open:
            print_open(sorted(run.open, key=lambda each: (each["workload"], each["server"], each["load"])))
        print(f"\nIt took {(time.perf_counter() - begun) / 60:.1f} minutes.")


def _write(
    run: Run, rows: list[Any], limits: dict[str, float], peers: Sequence[Peer], options: Record
) -> None:
    servers = {
        peer.name: {
            "settings": peer.settings(),
            "requests": peer.dialect.says,
            "call": peer.call,
            "requirements": list(peer.environment.requirements) if peer.environment else [],
            "environment": dict(peer.environ),
        }
        for peer in peers
    }
    found = {
        "options": options, "machine": platform.platform(), "cores": os.cpu_count(), "servers": servers,
        "limits": limits, "rows": rows, "closed": run.closed, "open": run.open, "starts": run.starts,
    }  # fmt: skip
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / "peers.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
