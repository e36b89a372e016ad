"""Drives servers past their capacity: `make bench-overload`.

Each server is asked at 50 to 300 % of what it manages in a closed loop, by Poisson arrivals that do not wait for
answers. Prints the curve of goodput, p99, refusals and memory for the service beside two peers, and writes
bench-results/overload.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
from dataclasses import asdict
from typing import Any

from inputs import make_models
from load import closed_loop, drain
from open_loop import open_loop
from peers.dialects import within
from peers.environments import EnvironmentFailed
from peers.registry import Peer, find_peer
from servers import ROOT, Running, ServerFailed, stop_with_servers
from starting import started
from workloads import Workload, find_workloads

_LOADS = (0.5, 0.8, 1.0, 1.5, 2.0, 3.0)

Record = dict[str, Any]


def main() -> None:
    stop_with_servers()
    options = _options()
    workloads, models = find_workloads(options.workloads), make_models()
    curve: list[Record] = []
    problems: list[Record] = []
    for name in options.only.split(","):
        known = find_peer(name)
        deadline = {"PEER_DEADLINE_S": str(options.deadline_s)}
        peer = dataclasses.replace(known, environ={**known.environ, **deadline})
        for workload in workloads:
            try:
                with started(peer, models, tuple(workload.asked())) as (port, server):
                    curve += _curve(peer, port, server, workload, options)
            except (ServerFailed, EnvironmentFailed) as error:
                problems.append({"server": peer.name, "workload": workload.name, "problem": str(error)})
    results = ROOT / "bench-results"
    results.mkdir(exist_ok=True)
    found = {"options": vars(options), "curve": curve, "problems": problems}
    (results / "overload.json").write_text(json.dumps(found, indent=1))
    _print(curve, problems)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="layertap,mosec,pytriton", help="servers, separated by commas")
    parser.add_argument(
        "--workloads",
        default="b,e-mobilenet",
        help="not a: three times its rate is more than the client can send",
    )
    parser.add_argument("--seconds", type=float, default=6, help="of each load")
    parser.add_argument("--deadline-s", type=float, default=1.0, help="a reply after it is no goodput")
    return parser.parse_args()


def _curve(
    peer: Peer, port: int, server: Running, workload: Workload, options: argparse.Namespace
) -> list[Record]:
    """One server's records, in random order measured and sorted by load."""
    requests = [within(options.deadline_s, each, peer.dialect) for each in workload.requests(peer.dialect)]
    closed_loop(port, requests, 2, workload.connections)
    drain(port, requests[0])
    capacity = closed_loop(port, requests, 4, workload.connections).rate
    print(f"{peer.name}, {workload.name}: capacity {capacity:,.1f} req/s", flush=True)
    records = []
    for load in random.sample(_LOADS, len(_LOADS)):
        drain(port, requests[0])
        begun_s = server.processor_s()
        reading = open_loop(port, requests, load * capacity, options.seconds, deadline_s=options.deadline_s)
        records.append({
            "server": peer.name, "workload": workload.name, "capacity": capacity, "load": load,
            "memory_bytes": server.memory_bytes(), "processor_s": server.processor_s() - begun_s, **asdict(reading),
        })  # fmt: skip
    return sorted(records, key=lambda record: record["load"])


def _print(curve: list[Record], problems: list[Record]) -> None:
    print(
        "\n| workload | server | load | offered/s | goodput/s | of its peak | p99 ms (of) | 429 | other | Retry-After "
        "| MB | answers a processor second |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|---|--:|--:|--:|")
    for record in curve:
        same = [each for each in curve if all(each[key] == record[key] for key in ("server", "workload"))]
        peak = max(each["goodput"] for each in same)
        statuses = dict(record["statuses"])
        full = statuses.pop("429", 0)
        other = ", ".join(f"{status}: {count}" for status, count in statuses.items()) or "-"
        if record["waited"]:
            other += f" ({record['waited']} waited for a connection)"
        if record["late_ms"] > 5:
            other += f" (the client was {record['late_ms']:.0f} ms late)"
        cells = [
            record["workload"], record["server"], f"{record['load']:.0%}", f"{record['offered']:,.0f}",
            f"{record['goodput']:,.1f}", f"{record['goodput'] / peak:.2f}" if peak else "-",
            f"{record['p99_ms']:,.1f} ({record['answered']:,})", str(full), other,
            _told(record["retry_after_s"]), f"{record['memory_bytes'] / 1e6:,.0f}",
            f"{record['answered'] / record['processor_s']:,.0f}" if record["processor_s"] else "-",
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |")
    for problem in problems:
        print(f"| {problem['workload']} | {problem['server']} | did not start: {problem['problem']} |")


def _told(retry_after_s: dict[str, int]) -> str:
    """The shortest and the longest Retry-After."""
    seconds = sorted(map(int, retry_after_s))
    return f"{seconds[0]} to {seconds[-1]} s ({sum(retry_after_s.values())})" if seconds else "-"


if __name__ == "__main__":
    main()
