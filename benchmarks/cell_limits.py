"""The in-process limit of each workload, and the right answers: prints one JSON line a workload.

The limit is the service's own reading of a body and its own compiled function, one after the other in one thread
on the server's core, at the best batch size: what a server without any overhead would make of this code. For small
rows, where batches are what matters, that is the rate of the function over full batches of bodies read one by one.
"""

from __future__ import annotations

import json
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from limits import opened  # first: it pins this process to the server's core
from peers.dialects import LAYERTAP
from peers.endpoints import Endpoint
from workloads import Workload, find_workloads

from service.api.bodies import InputReader
from service.api.http import HttpRequest
from service.api.intake import Intake
from service.device import DeviceOptions, apply
from service.engines import Function
from service.images import image_input
from service.repository import scan

_MEASURED_S = 1.0
_ROOM = 2**30


@cache
def _engine(models: Path, name: str) -> Any:
    return opened(models, name).engine


@cache
def _reader(models: Path, name: str) -> InputReader:
    entry = next(entry for entry in scan(models) if entry.name == name)
    spec = _engine(models, name).spec
    images = {item.name: image_input(item, entry.config.preprocess) for item in spec.inputs}
    taking = {name: image for name, image in images.items() if image is not None}
    return InputReader(Intake(name, spec.inputs, taking, max_input_bytes=_ROOM, max_image_pixels=10**8))


@cache
def _function(models: Path, name: str, layer: str | None) -> Function:
    engine = _engine(models, name)
    return engine.compile((layer,) if layer else tuple(output.path for output in engine.spec.outputs))


def _compute(models: Path, endpoint: Endpoint, requests: list[HttpRequest]) -> np.ndarray:
    """The outputs of some requests, read one by one and run as one batch: (N, ...)."""
    rows = [_reader(models, endpoint.model).read(request) for request in requests]
    batch = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    output = next(iter(_function(models, endpoint.model, endpoint.layer).run(batch).values()))
    return output.mean(axis=(1, 2)) if endpoint.pooled else output


def _request(endpoint: Endpoint, body: bytes) -> HttpRequest:
    content_type = LAYERTAP.ask(endpoint, body).content_type
    return HttpRequest("POST", "/predict", b"", {b"content-type": content_type.encode()}, body)


def _seconds_a_row(models: Path, endpoint: Endpoint, body: bytes) -> float:
    """At the best batch size."""
    best = float("inf")
    for batch in sorted({1, endpoint.batch // 2, endpoint.batch}):
        requests = [_request(endpoint, body)] * batch
        _compute(models, endpoint, requests)
        done, begun = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - begun) < _MEASURED_S:
            _compute(models, endpoint, requests)
            done += batch
        best = min(best, elapsed / done)
    return best


def _measure(models: Path, workload: Workload) -> dict[str, Any]:
    pairs = list(zip(workload.asked(), workload.bodies(), strict=True))
    seconds = [_seconds_a_row(models, endpoint, body) for endpoint, body in pairs]
    answers = [_compute(models, endpoint, [_request(endpoint, body)]).tolist() for endpoint, body in pairs]
    return {"workload": workload.name, "limit": len(seconds) / sum(seconds), "answers": answers}


def main() -> None:
    models = Path(sys.argv[1])
    apply(DeviceOptions())
    for workload in find_workloads(sys.argv[2]):
        print(json.dumps(_measure(models, workload)), flush=True)


if __name__ == "__main__":
    main()
