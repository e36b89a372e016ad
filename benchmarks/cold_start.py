"""Measures the first and the second start of the shipped models, and what they take their time for: `make bench-start`.

The first start has an empty cache; the second finds what it left. Files are in the system's cache for both.
Medians of a few rounds are printed and written to bench-results/cold_start.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence

from servers import ROOT, stop_with_servers
from starting_service import Started, started

_RESULTS = ROOT / "bench-results"
_PHASES = {
    "boot": "gunicorn, until it forks the worker, and what no other line holds",
    "process": "the worker, until the service is imported",
    "tensorflow": "importing TensorFlow and applying the device settings",
    "load": "files to Keras models",
    "read": "the cache's entries read and checked; OpenVINO imported",
    "convert": "Keras to OpenVINO",
    "prove": "functions compared with Keras, or with what it gave",
    "warm": "the functions that are compiled before a model is ready",
    "keep": "writing to the cache",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    stop_with_servers()
    first: list[dict[str, float]] = []
    second: list[dict[str, float]] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            for seen in (first, second):
                with started(cache) as service:
                    seen.append(_measure(service))
    table = {"first": _medians(first), "second": _medians(second)}
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / "cold_start.json").write_text(
        json.dumps({"rounds": [first, second], "table": table}, indent=1)
    )
    _print(table)


def _measure(service: Started) -> dict[str, float]:
    phases = service.phases_s
    return {
        "ready": service.ready_s,
        "boot": service.ready_s - sum(phases.values()),
        **phases,
        "rss_mb": service.rss_bytes() / 1e6,
        "tensorflow_in_memory": float(service.has_tensorflow()),
    }


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one.get(name, 0.0) for one in rounds) for name in rounds[0]}


def _print(table: dict[str, dict[str, float]]) -> None:
    print("| seconds | first start | second start | |\n|---|--:|--:|---|")
    for name, doc in {"ready": "from the command to the first 200 of /readyz", **_PHASES}.items():
        cells = [f"{table[which].get(name, 0.0):.2f}" for which in ("first", "second")]
        print(f"| {name} | {' | '.join(cells)} | {doc} |")
    memory = [f"{table[which]['rss_mb']:.0f} MB" for which in ("first", "second")]
    print(f"| memory | {' | '.join(memory)} | the worker's, just after it is ready |")
    inside = ["yes" if table[which]["tensorflow_in_memory"] else "no" for which in ("first", "second")]
    print(f"| TensorFlow | {' | '.join(inside)} | whether it is in the process |")


if __name__ == "__main__":
    main()
