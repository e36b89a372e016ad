"""Measures one pass for many wishes: `make bench-wishes`.

1. An early layer of MobileNetV2 beside its full depth, over HTTP: a batch that only wants the early one computes only
   what leads to it.
2. The same mixed load, half predictions and half an early layer, sent to one server, and split over two that share
   the same core; rounds alternate.
3. The first of these in-process, so without the 600 KB that each request carries.
4. In-process, where a call costs as much as its rows: predictions and features of the model `pairs`, each in a batch of its own
   and united (`service/scheduling/families.py`); rounds alternate.

Each line is the median of its rounds, with the smallest and the largest. Over HTTP it counts requests for each second
of the servers' processor time: on a core of their own that is the rate, and on a machine that does other work as well
two processes get twice the time of one.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import queue
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from inputs import make_models
from load import Request
from servers import LOAD_CORE, ROOT, Running, answers, free_port, layertap_command, layertap_environ, running

sys.path.insert(0, str(ROOT))

from service.engines import Function
from service.payloads.codecs import encode_npy

_CLIENTS = 16
_EARLY = "/features?model=mobilenet&layer=block_2_add&pool=avg"
_DEEP = "/predict?model=mobilenet"
_EARLY_LAYERS = {"mobilenet": "expanded_conv_project_BN", "resnet": "pool1_pool"}
_ACCEPT = {"Accept": "application/x-npy"}


@contextlib.contextmanager
def _server(models: Path) -> Iterator[tuple[int, Running]]:
    port = free_port()
    environ = layertap_environ(port, models) | {"LAYERTAP_DEFAULT_MODEL": "mobilenet"}
    with running(layertap_command(), environ, lambda: answers(port, "/readyz")) as started:
        yield port, started


def _only(models: Path, name: str, folder: Path) -> Path:
    """A folder with one of the models, so that nothing else takes memory."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / name
    if not link.exists():
        link.symlink_to(models / name, target_is_directory=True)
    return folder


def _picture(path: str) -> Request:
    rows = np.random.default_rng(1).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    return Request(path, "application/x-npy", encode_npy(rows), _ACCEPT)


def _rate(load: list[tuple[int, Request]], ports: Mapping[str, int], servers: Sequence[Running]) -> float:
    """Replies for each second of the servers' processor time.

    So many requests of each kind are sent in turn, by _CLIENTS clients, each as soon as its last one is answered.
    """
    turns = itertools.chain.from_iterable(zip(*([request] * count for count, request in load), strict=True))
    waiting: queue.SimpleQueue[Request] = queue.SimpleQueue()
    for request in turns:
        waiting.put(request)
    total = waiting.qsize()

    def ask() -> None:
        connections = {
            port: http.client.HTTPConnection("127.0.0.1", port, timeout=60) for port in set(ports.values())
        }
        with contextlib.suppress(queue.Empty):
            while True:
                request = waiting.get_nowait()
                connection = connections[ports[request.path]]
                headers = {"Content-Type": request.content_type, **request.headers}
                connection.request("POST", request.path, request.body, headers)
                reply = connection.getresponse()
                if reply.status != 200:
                    raise SystemExit(f"{request.path}: {reply.status} {reply.read()[:200]!r}")
                reply.read()

    threads = [threading.Thread(target=ask) for _ in range(_CLIENTS)]
    before = sum(server.processor_s() for server in servers)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return total / (sum(server.processor_s() for server in servers) - before)


def _alternating(rounds: int, ways: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Each way measured once a round, in another order every time; a first round warms and does not count."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for place in range(rounds + 1):
        names = list(ways)
        for name in names if place % 2 else reversed(names):
            rate = ways[name]()
            if place:
                found[name].append(rate)
    return found


def _over_http(rounds: int, requests: int) -> dict[str, dict[str, list[float]]]:
    models = make_models()
    os.sched_setaffinity(0, {LOAD_CORE})
    early, deep = _picture(_EARLY), _picture(_DEEP)
    alone = _only(models, "mobilenet", models.parent / "models-mobilenet")
    with _server(alone) as (port, one), _server(alone) as (second, other):
        everywhere, split = {_EARLY: port, _DEEP: port}, {_EARLY: port, _DEEP: second}
        depth = _alternating(
            rounds,
            {
                "an early layer": lambda: _rate([(4 * requests, early)], everywhere, [one]),
                "full depth": lambda: _rate([(requests, deep)], everywhere, [one]),
            },
        )
        both = [(requests, early), (requests, deep)]
        mixed = _alternating(
            rounds,
            {
                "half and half, one server": lambda: _rate(both, everywhere, [one]),
                "half and half, split over two": lambda: _rate(both, split, [one, other]),
            },
        )
    return {"MobileNetV2, 1x224x224x3 npy": depth, "MobileNetV2, mixed": mixed}


def _in_process(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Batches of 1 to 16 rows of each kind, formed by hand on this thread: no client and no socket."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from limits import opened  # noqa: PLC0415 imports TensorFlow

    from service.scheduling.families import LaneFamily  # noqa: PLC0415
    from service.scheduling.scheduler import Job, Lane, Scheduler  # noqa: PLC0415

    engine = opened(ROOT / "models", "pairs").engine
    features = (next(layer.path for layer in engine.spec.layers if layer.class_name == "Dense"),)
    predictions = (engine.spec.outputs[0].path,)
    row = {spec.name: np.ones((1, *spec.row_shape), spec.dtype) for spec in engine.spec.inputs}
    functions = {
        outputs: engine.compile(outputs) for outputs in (features, predictions, (*features, *predictions))
    }

    def measure(*, united: bool) -> float:
        family = LaneFamily(lambda _: None)
        scheduler = Scheduler(max_queue_rows=1000)
        lanes = [
            Lane(",".join(outputs), max_batch_size=32, run=function.run, outputs=outputs, family=family)
            for outputs, function in functions.items()
        ]
        for lane in lanes if united else ():
            family.join(lane)
        sizes, asked = itertools.cycle((1, 2, 4, 8, 16)), 0
        begun = time.process_time()
        while time.process_time() < begun + 2:
            for _ in range(next(sizes)):
                for lane in lanes[:2]:
                    scheduler.submit(lane, Job(row, 1, float("inf"), lambda _: None))
                    asked += 1
            while scheduler.step():
                pass
        return asked / (time.process_time() - begun)

    ways = {"apart": lambda: measure(united=False), "united": lambda: measure(united=True)}
    return {"pairs, in-process, features and predictions": _alternating(rounds, ways)}


def _depth_in_process(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Rows for each second of processor time, in batches of 8, without HTTP."""
    from limits import opened  # noqa: PLC0415 imports TensorFlow

    found = {}
    for name, early in _EARLY_LAYERS.items():
        engine = opened(make_models(), name).engine
        rows = {engine.spec.inputs[0].name: np.random.default_rng(1).random((8, 224, 224, 3), np.float32)}
        functions = [engine.compile((path,)) for path in (early, engine.spec.outputs[0].path)]

        def measure(function: Function, rows: dict[str, np.ndarray] = rows) -> float:
            calls, begun = 0, time.process_time()
            while time.process_time() < begun + 2:
                function.run(rows)
                calls += 1
            return 8 * calls / (time.process_time() - begun)

        ways = {
            title: partial(measure, function)
            for title, function in zip((early, "full depth"), functions, strict=True)
        }
        found[f"{name}, in-process"] = _alternating(rounds, ways)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=200, help="of each kind, in a round")
    options = parser.parse_args()
    found = _over_http(options.rounds, options.requests) | _depth_in_process(options.rounds)
    found |= _in_process(options.rounds)
    print("| load | requests a processor second (smallest to largest) |\n|---|--:|")
    for title, ways in found.items():
        for way, rates in ways.items():
            print(
                f"| {title}: {way} | {statistics.median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f}) |"
            )
    results = ROOT / "bench-results"
    results.mkdir(exist_ok=True)
    (results / "wishes.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
