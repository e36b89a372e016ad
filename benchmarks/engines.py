"""Compares the engines in-process, and OpenVINO's ways to use a CPU: `.venv/bin/python benchmarks/engines.py`.

Three tables: milliseconds a batch of each engine on one core; images a second of MobileNetV2 on two cores by
streams, threads and batch; and what a batch size costs when it is seen for the first time. The last line is JSON.
MobileNetV2 has random weights, nothing is downloaded. Takes about two minutes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import keras  # noqa: E402 the log level comes first
import numpy as np  # noqa: E402

from service.device import DeviceOptions, apply  # noqa: E402
from service.engines import Function  # noqa: E402
from service.engines.converted import Converted  # noqa: E402
from service.engines.openvino import OpenVINOOptions  # noqa: E402
from service.engines.openvino_conversion import convert  # noqa: E402
from service.engines.openvino_engine import OpenVINOEngine, agreement  # noqa: E402
from service.engines.openvino_library import capabilities, core, library  # noqa: E402
from service.engines.tensorflow import TensorFlowEngine  # noqa: E402
from service.loading.loader import load  # noqa: E402
from service.repository import scan  # noqa: E402
from service.surgery.cut import describe, seeded_rows  # noqa: E402

_MAX_BATCH = 32
_SECONDS = 1.0


def _shipped(name: str) -> keras.Model:
    entry = next(entry for entry in scan(ROOT / "models") if entry.name == name)
    config = dataclasses.replace(entry.config, compile=False)
    return load(entry.versions[0].path, config, entry.object_files, entry.folder).model


def _ms(call: Callable[[], object]) -> float:
    """The median of as many calls as a second holds, at least five."""
    call()
    times: list[float] = []
    deadline = time.perf_counter() + _SECONDS
    while time.perf_counter() < deadline or len(times) < 5:
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e3


def _compiled(model: keras.Model) -> tuple[Converted, dict[str, Function], dict[str, Any]]:
    spec = describe(model)
    outputs = tuple(dict.fromkeys(output.path for output in spec.outputs))
    converted = convert(model, spec, outputs)
    tensorflow = TensorFlowEngine(model, spec)
    functions: dict[str, Function] = {"tensorflow": tensorflow.compile(outputs)}
    facts: dict[str, Any] = {}
    rows = seeded_rows(model, _MAX_BATCH)
    for precision in ("float32", "bfloat16") if "BF16" in capabilities() else ("float32",):
        engine = OpenVINOEngine(
            converted, tensorflow, rows, OpenVINOOptions(1, precision), max_batch_size=_MAX_BATCH
        )
        functions[precision] = engine.require(outputs)
        facts[precision] = {key: engine.functions[-1][key] for key in ("largest", "largest_part")}
    if "bfloat16" in functions:
        facts["top1_agreement"] = agreement(functions["bfloat16"], functions["tensorflow"], rows)
    return converted, functions, facts


def compare_engines(models: dict[str, keras.Model]) -> dict[str, Any]:
    """Milliseconds a batch on one core, by model, rows and engine."""
    found: dict[str, Any] = {}
    print(f"{'model':<12}{'rows':>5}{'TensorFlow':>12}{'OpenVINO':>10}{'bfloat16':>10}  times as fast")
    for name, model in models.items():
        _, functions, facts = _compiled(model)
        found[name] = {"facts": facts}
        for rows in (1, 8, 32):
            batch = seeded_rows(model, rows)
            ms = {engine: _ms(lambda f=function, b=batch: f.run(b)) for engine, function in functions.items()}
            found[name][rows] = ms
            half = ms.get("bfloat16", math.nan)  # where the processor has no instructions for it
            print(
                f"{name:<12}{rows:>5}{ms['tensorflow']:>12.3f}{ms['float32']:>10.3f}{half:>10.3f}"
                f"{ms['tensorflow'] / ms['float32']:>12.2f}{ms['tensorflow'] / half:>8.2f}"
            )
    return found


def compare_streams(converted: Converted, picture: np.ndarray) -> dict[str, float]:
    """Images a second on two cores: one batch on both at a time, or a batch on each."""
    found = {}
    for streams, threads, rows in (
        (1, 1, 8),
        (1, 2, 1),
        (1, 2, 8),
        (1, 2, 32),
        (2, 2, 1),
        (2, 2, 4),
        (2, 2, 8),
    ):
        properties = {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core().compile_model(converted.graph, "CPU", properties)
        batch = np.repeat(picture, rows, axis=0)
        requests = [compiled.create_infer_request() for _ in range(streams)]

        def work(request: Any, batch: np.ndarray = batch) -> int:
            request.infer(batch, share_inputs=True)
            done, deadline = 0, time.perf_counter() + 3 * _SECONDS
            while time.perf_counter() < deadline:
                request.infer(batch, share_inputs=True, share_outputs=True)
                done += len(batch)
            return done

        with ThreadPoolExecutor(streams) as pool:
            rate = sum(pool.map(work, requests)) / (3 * _SECONDS)
        label = f"{streams} stream(s), {threads} thread(s), {rows} rows"
        found[label] = rate
        print(f"{label:<40}{rate:>8.1f} images/s")
    return found


def measure_first_calls(converted: Converted, function: Function, picture: np.ndarray) -> dict[str, Any]:
    """What a size costs when first seen, unprepared, and the slowest of mixed sizes of a prepared function."""
    properties = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
    request = core().compile_model(converted.graph, "CPU", properties).create_infer_request()
    found: dict[str, Any] = {}
    for rows in (1, 2, 3, 5, 8):
        batch = np.repeat(picture, rows, axis=0)
        times = []
        for _ in range(4):
            begun = time.perf_counter()
            request.infer(batch, share_inputs=True)
            times.append((time.perf_counter() - begun) * 1e3)
        found[f"unprepared, {rows} rows"] = {"first_ms": times[0], "later_ms": min(times[1:])}
        print(f"unprepared, {rows} rows: first {times[0]:.1f} ms, later {min(times[1:]):.1f} ms")
    name = converted.inputs[0].name
    per_row = []
    for rows in np.random.default_rng(0).integers(1, 9, 40):
        batch = {name: np.repeat(picture, int(rows), axis=0)}
        begun = time.perf_counter()
        function.run(batch)
        per_row.append((time.perf_counter() - begun) * 1e3 / int(rows))
    found["prepared, ms a row"] = {"median": statistics.median(per_row), "slowest": max(per_row)}
    print(
        f"prepared, sizes 1 to 8 mixed: {statistics.median(per_row):.2f} ms a row, slowest {max(per_row):.2f}"
    )
    return found


def main() -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    apply(DeviceOptions(intra_op_threads=1, inter_op_threads=1))
    library()
    mobilenet = keras.applications.MobileNetV2(weights=None)
    result: dict[str, Any] = {
        "engines": compare_engines(
            {"iris": _shipped("iris"), "digits": _shipped("digits"), "mobilenet": mobilenet}
        )
    }
    converted, functions, _ = _compiled(mobilenet)
    picture = np.random.default_rng(1).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    result["sizes"] = measure_first_calls(converted, functions["float32"], picture)
    os.sched_setaffinity(0, cores[:2])
    result["streams"] = compare_streams(converted, picture)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
