"""Measures V2 binary requests beside PyTriton, the real Triton server, with NVIDIA's own client: `make bench-triton`.

The same model files, 32 requests at a time, the server on one core and perf_analyzer on the other, servers in random
order, round after round. PyTriton calls Keras as its documentation does (`predict_on_batch`); the row `+compiled`
has our compiled TensorFlow function in it. Prints one table and writes bench-results/triton.json.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import tempfile
from pathlib import Path

from inputs import make_models
from peers.endpoints import ENDPOINTS
from peers.registry import find_peer
from servers import LOAD_CORE, ROOT, stop_with_servers
from starting import started

sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "e2e")]
import perf_analyzer

SERVERS = ("layertap", "pytriton", "pytriton+compiled")
ASKED = ("digits", "mobilenet-output")
ROUNDS = 3
CONCURRENCY = 32
_LOAD = ("--concurrency-range", str(CONCURRENCY), "--measurement-interval", "2500", "--input-data", "zero")

Found = dict[tuple[str, str], list[perf_analyzer.Measured]]


def main() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("the benchmark needs two cores")
    stop_with_servers()
    perf_analyzer.fetch()
    models = make_models()
    found: Found = {(server, asked): [] for server in SERVERS for asked in ASKED}
    for number in range(ROUNDS):
        print(f"round {number + 1} of {ROUNDS}", flush=True)
        for server in random.sample(SERVERS, len(SERVERS)):
            _measure(server, models, found)
    rows = [_row(server, asked, found) for asked in ASKED for server in SERVERS]
    results = ROOT / "bench-results"
    results.mkdir(exist_ok=True)
    (results / "triton.json").write_text(json.dumps(rows, indent=1))
    print("\n| model | server | inferences/s | p50 ms | p99 ms | times PyTriton |\n|---|---|--:|--:|--:|--:|")
    for row in rows:
        print(
            f"| {row['model']} | {row['server']} | {row['per_second']:,.1f} | {row['p50_ms']:.1f} | "
            f"{row['p99_ms']:.1f} | {row['times']:.2f} |"
        )


def _measure(server: str, models: Path, found: Found) -> None:
    peer = find_peer(server)
    endpoints = tuple(ENDPOINTS[name] for name in ASKED)
    with tempfile.TemporaryDirectory() as folder, started(peer, models, endpoints) as (port, _):
        os.sched_setaffinity(0, {LOAD_CORE})  # of this process, which the client inherits
        for endpoint in random.sample(endpoints, len(endpoints)):
            model = endpoint.name if peer.module else endpoint.model
            measured = perf_analyzer.measure(port, model, Path(folder), *_LOAD)
            print(f"  {server}, {endpoint.model}: {measured.per_second:,.1f}/s", flush=True)
            found[server, endpoint.name].append(measured)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))


def _row(server: str, asked: str, found: Found) -> dict[str, object]:
    rounds, others = found[server, asked], found["pytriton", asked]
    rate = statistics.median(each.per_second for each in rounds)
    return {
        "model": ENDPOINTS[asked].model,
        "server": server,
        "per_second": rate,
        "p50_ms": statistics.median(each.p50_ms for each in rounds),
        "p99_ms": statistics.median(each.p99_ms for each in rounds),
        "times": rate / statistics.median(each.per_second for each in others),
        "rounds": [each.per_second for each in rounds],
    }


if __name__ == "__main__":
    main()
