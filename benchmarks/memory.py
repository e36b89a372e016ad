"""Measures the worker's memory after its start and under requests, many of them: `make bench-memory`.

First with TensorFlow in the process (nothing was kept of an earlier start), then without it. Then iris rows and
pictures of digits, by wrk, until as many were answered as asked for; memory is read between loops. Growth is what
the last reading has over the median of the second quarter of them: by then every buffer has been as large as it
gets. A leak of 100 bytes a request would be 100 MB in a million.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from load import Request, closed_loop
from servers import ROOT, SERVER_CORE, stop_with_servers
from starting_service import Started, started

_RESULTS = ROOT / "bench-results"
_CHUNK_S = 5
_PICTURE = ROOT / "models" / "digits" / "examples"
_FULL_REQUESTS, _FULL_PICTURES = 1_000_000, 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200_000, help="iris rows")
    parser.add_argument("--pictures", type=int, default=20_000, help="pictures of digits")
    parser.add_argument("--full", action="store_true", help="a million rows, 100,000 pictures")
    asked = parser.parse_args()
    counts = (_FULL_REQUESTS, _FULL_PICTURES) if asked.full else (asked.requests, asked.pictures)
    stop_with_servers()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        with started(cache, SERVER_CORE) as service:
            found["with_tensorflow_mb"] = _megabytes(service)
            found["weights_with_tensorflow"] = _weights(service)
        with started(cache, SERVER_CORE) as service:
            found["without_tensorflow_mb"] = _megabytes(service)
            found["weights_without_tensorflow"] = _weights(service)
            found["rows"] = _load(service, _rows(), counts[0])
            found["pictures"] = _load(service, _pictures(), counts[1])
            found["still_without_tensorflow"] = not service.has_tensorflow()
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / "memory.json").write_text(json.dumps(found, indent=1))
    _print(found)


def _rows() -> Sequence[Request]:
    return [Request("/predict?model=iris", "application/json", b'{"instances":[[5.1,3.5,1.4,0.2]]}')]


def _pictures() -> Sequence[Request]:
    return [
        Request("/predict?model=digits", "image/png", path.read_bytes()) for path in _files(_PICTURE, "*.png")
    ]


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))


def _load(service: Started, requests: Sequence[Request], count: int) -> dict[str, object]:
    readings = [_megabytes(service)]
    answered = 0.0
    while answered < count:
        reading = closed_loop(service.port, requests, _CHUNK_S)
        if reading.failed:
            raise SystemExit(f"{reading.failed} requests to {requests[0].path} failed")
        answered += reading.rate * _CHUNK_S
        readings.append(_megabytes(service))
    quarter = readings[len(readings) // 4 : len(readings) // 2 + 1]
    growth = readings[-1] - statistics.median(quarter)
    return {
        "answered": round(answered),
        "readings_mb": readings,
        "growth_mb": round(growth, 1),
        "growth_bytes_a_request": round(growth * 1e6 / answered, 1),
    }


def _megabytes(service: Started) -> float:
    return round(service.rss_bytes() / 1e6, 1)


def _weights(service: Started) -> dict[str, object]:
    found = {}
    for name in ("digits", "iris", "pairs"):
        facts = service.model(name)
        found[name] = {
            "weights_bytes": facts["weights_bytes"],
            "weight_copies": facts["weight_copies"],
            "functions": len(facts["functions"]),
            "functions_weights_bytes": sum(function["weights_bytes"] for function in facts["functions"]),
        }
    return found


def _print(found: dict[str, Any]) -> None:
    print("| memory of the worker | MB |\n|---|--:|")
    print(f"| ready, TensorFlow in the process (first start) | {found['with_tensorflow_mb']} |")
    print(f"| ready, without it (second start) | {found['without_tensorflow_mb']} |")
    for name in ("rows", "pictures"):
        load = found[name]
        first, last = load["readings_mb"][0], load["readings_mb"][-1]
        print(
            f"| {load['answered']:,} {name}: before, after (growth since the second quarter) | "
            f"{first}, {last} ({load['growth_mb']:+}; {load['growth_bytes_a_request']} bytes a request) |"
        )


if __name__ == "__main__":
    main()
