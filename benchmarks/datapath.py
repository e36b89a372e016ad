"""Measures the way from a body to an array, and who waits meanwhile: `make bench-datapath`.

1. A body of 1x224x224x3 to an array, in-process: by lists, straight from the text, in every form that JSON has for
   it, and as npy; and 2,000 rows keyed by the names of two inputs.
2. The time of small requests, one after the other, alone and beside clients that send such bodies without a pause.
3. Pictures a second by the setting decode_threads.

The server has one core, the load the other.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from inputs import body, make_models
from load import Request, closed_loop, connected
from peers.endpoints import ENDPOINTS
from servers import LOAD_CORE, ROOT, answers, free_port, layertap_command, layertap_environ, running

sys.path.insert(0, str(ROOT))

from service.api.intake import Intake
from service.api.json_inputs import NAMED_ROWS, NUMBERS, JsonInputs
from service.payloads.codecs import decode_npy, encode_npy
from service.payloads.json_lifting import lift
from service.payloads.json_tensors import Numbers
from service.tensors import TensorSpec

_PLACES = (*NUMBERS, ("inputs", None, "data"))
_LARGE_CLIENTS = 4
_SMALL = Request("/predict?model=iris", "application/json", b'{"instances":[[5.1,3.5,1.4,0.2]]}')


@contextlib.contextmanager
def _server(settings: Mapping[str, str]) -> Iterator[int]:
    port = free_port()
    environ = layertap_environ(port, make_models()) | settings
    with running(layertap_command(), environ, lambda: answers(port, "/readyz")):
        yield port


def _median_ms(work: Callable[[], object], times: int = 31) -> float:
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return statistics.median(found) * 1e3


def _bodies() -> dict[str, tuple[bytes, Callable[[Any], object]]]:
    """JSON bodies by what they are, each with what makes a model's inputs of its document, lifted or not."""
    picture = json.loads(body(ENDPOINTS["pooling"]))["instances"]
    shape = list(np.shape(picture))
    flat = np.ravel(picture).tolist()
    rows = _text_of({"instances": picture})
    columns = _text_of({"inputs": {"x": picture}})
    named = _text_of({"instances": [{"x": flat[place : place + 16], "y": place} for place in range(2000)]})
    one = _inputs(TensorSpec("x", (None, *shape[1:]), "float32"))
    two = _inputs(TensorSpec("x", (None, 16), "float32"), TensorSpec("y", (None,), "int64"))

    def tensor(data: list[Any]) -> bytes:
        return _text_of({"inputs": [{"name": "x", "shape": shape, "datatype": "FP32", "data": data}]})

    def of_tensor(document: Any) -> object:
        data = document["inputs"][0]["data"]
        return (data.array if isinstance(data, Numbers) else np.array(data)).astype(np.float32)

    return {
        "rows": (rows, lambda document: one.rows(document["instances"], rows)),
        "columns": (columns, lambda document: one.columns(document["inputs"], columns)),
        "V2, nested": (tensor(picture), of_tensor),
        "V2, flat": (tensor(flat), of_tensor),
        "2,000 rows by name": (named, lambda document: two.rows(document["instances"], named)),
    }


def _text_of(document: object) -> bytes:
    return json.dumps(document).encode()


def _inputs(*specs: TensorSpec) -> JsonInputs:
    return JsonInputs(Intake("m", specs, {}, 10**9, 10**9))


def _parsing() -> dict[str, dict[str, float]]:
    found = {}
    for name, (text, read) in _bodies().items():
        if lift(text, _PLACES, NAMED_ROWS) is None:
            raise SystemExit(f"{name}: not read straight from the text")
        found[name] = {
            "by_lists_ms": _median_ms(lambda text=text, read=read: read(orjson.loads(text))),
            "straight_ms": _median_ms(lambda text=text, read=read: read(lift(text, _PLACES, NAMED_ROWS))),
        }
    packed = encode_npy(np.asarray(json.loads(body(ENDPOINTS["pooling"]))["instances"], np.float32))
    found["npy"] = {"straight_ms": _median_ms(lambda: decode_npy(packed))}
    return found


def _small_times_ms(port: int, seconds: float) -> list[float]:
    """The times of small requests on one connection, each sent when the last is answered."""
    message, found = _SMALL.message(), []
    with connected(port) as exchange:
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            exchange(message)
            found.append((time.perf_counter() - begun) * 1e3)
    return found


def _beside_large(port: int, seconds: int) -> dict[str, dict[str, float]]:
    _small_times_ms(port, 1)
    alone = _small_times_ms(port, seconds)
    large = Request("/predict?model=pooling", "application/json", body(ENDPOINTS["pooling"]))
    stream = threading.Thread(target=closed_loop, args=(port, [large], seconds + 2, _LARGE_CLIENTS))
    stream.start()
    time.sleep(1)  # the stream is under way
    beside = _small_times_ms(port, seconds)
    stream.join()
    return {"alone": _spread(alone), "beside large bodies": _spread(beside)}


def _spread(times: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100)
    return {"p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": max(times), "requests": len(times)}


def _pictures(seconds: int) -> dict[str, float]:
    endpoint = ENDPOINTS["mobilenet-jpeg"]
    request = Request(
        f"/features?model=mobilenet&layer={endpoint.layer}",
        "image/jpeg",
        body(endpoint),
        {"Accept": "application/x-npy"},
    )
    rates = {}
    for threads in (1, 2, 4):
        with _server({"LAYERTAP_DECODE_THREADS": str(threads)}) as port:
            closed_loop(port, [request], 2, 16)
            rates[f"{threads} threads"] = closed_loop(port, [request], seconds, 16).rate
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=8, help="for each measurement over HTTP")
    parser.add_argument("--no-pictures", action="store_true")
    options = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    parsing = _parsing()
    with _server({}) as port:
        waiting = _beside_large(port, options.seconds)
    pictures = {} if options.no_pictures else _pictures(options.seconds)
    out = io.StringIO()
    print("| body of 1x224x224x3 | by lists, ms | straight, ms | times |\n|---|--:|--:|--:|", file=out)
    for form, times in parsing.items():
        straight, lists = times["straight_ms"], times.get("by_lists_ms")
        beside = f"{lists:.2f} | {straight:.2f} | {lists / straight:.1f}" if lists else f"| {straight:.2f} |"
        print(f"| {form} | {beside} |", file=out)
    print("\n| small requests | p50 ms | p99 ms | longest ms |\n|---|--:|--:|--:|", file=out)
    for place, spread in waiting.items():
        print(
            f"| {place} | {spread['p50_ms']:.2f} | {spread['p99_ms']:.2f} | {spread['max_ms']:.1f} |",
            file=out,
        )
    if pictures:
        print("\n| decode_threads | pictures a second |\n|---|--:|", file=out)
        for threads, rate in pictures.items():
            print(f"| {threads} | {rate:.0f} |", file=out)
    print(out.getvalue())
    results = Path(ROOT, "bench-results")
    results.mkdir(exist_ok=True)
    found = {"parsing_ms": parsing, "small_requests": waiting, "pictures_per_s": pictures}
    (results / "datapath.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
