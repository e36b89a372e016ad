"""Measures what channels first cost as the service computes them: `.venv/bin/python benchmarks/channels_first.py`.

Milliseconds a batch on one core, median of rounds in which every way takes its turn: oneDNN's own kernels for channels
first (to be had only where the processor has AVX-512), TensorFlow and OpenVINO as the service serves them, and both on
the same network with channels last. ResNet50 and MobileNetV2 with random weights; nothing is downloaded. The last line
is JSON. Takes about two minutes.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import keras  # noqa: E402 the log level comes first

from service.device import DeviceOptions, apply  # noqa: E402
from service.engines import Function  # noqa: E402
from service.engines.openvino import OpenVINOOptions  # noqa: E402
from service.engines.openvino_conversion import convert  # noqa: E402
from service.engines.openvino_engine import OpenVINOEngine  # noqa: E402
from service.engines.tensorflow import TensorFlowEngine  # noqa: E402
from service.errors import LoadError  # noqa: E402
from service.loading.corrected_add import correct_add  # noqa: E402
from service.loading.cpu_kernels import complete_cpu_kernels  # noqa: E402
from service.surgery.cut import describe, seeded_rows  # noqa: E402

_ROUNDS = 15
_ROWS = (1, 8)
_WAYS = ("oneDNN, first", "TensorFlow, first", "OpenVINO, first", "TensorFlow, last", "OpenVINO, last")
_NETWORKS = {"ResNet50": keras.applications.ResNet50, "MobileNetV2": keras.applications.MobileNetV2}

Way = Callable[[int], object]
"""Runs a batch of so many rows."""


def _model(name: str, order: str) -> keras.Model:
    keras.config.set_image_data_format(f"channels_{order}")
    keras.utils.set_random_seed(1)
    return _NETWORKS[name](weights=None)


def _tensorflow(model: keras.Model) -> Way | None:
    """`None` where TensorFlow's own kernels do not know the layout."""
    outputs = (describe(model).outputs[0].path,)
    try:
        function = TensorFlowEngine(model, describe(model)).compile(outputs)
    except LoadError:
        return None
    return _runner(model, function)


def _openvino(model: keras.Model) -> Way:
    spec = describe(model)
    outputs = (spec.outputs[0].path,)
    engine = OpenVINOEngine(
        convert(model, spec, outputs),
        TensorFlowEngine(model, spec),
        seeded_rows(model, 2),
        OpenVINOOptions(1),
        max_batch_size=max(_ROWS),
    )
    return _runner(model, engine.require(outputs))


def _runner(model: keras.Model, function: Function) -> Way:
    batches = {rows: seeded_rows(model, rows) for rows in _ROWS}
    return lambda rows: function.run(batches[rows])


def measure(ways: dict[str, Way], rows: int) -> dict[str, float]:
    """Milliseconds a batch; all take their turns, so that busy neighbours disturb them alike."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(_ROUNDS + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            way(rows)
            if turn:  # the first call is another matter
                times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(taken) * 1e3 for name, taken in times.items()}


def main() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    apply(DeviceOptions(intra_op_threads=1, inter_op_threads=1))
    correct_add()
    native = {name: _tensorflow(_model(name, "first")) for name in _NETWORKS}  # traced before it is changed
    complete_cpu_kernels()
    found: dict[str, Any] = {}
    print(f"{'ms a batch, one core':<22}{'rows':>5}" + "".join(f"{way:>19}" for way in _WAYS))
    for name in _NETWORKS:
        first, last = _model(name, "first"), _model(name, "last")
        ways = {
            _WAYS[0]: native[name],
            _WAYS[1]: _tensorflow(first),
            _WAYS[2]: _openvino(first),
            _WAYS[3]: _tensorflow(last),
            _WAYS[4]: _openvino(last),
        }
        given = {way: call for way, call in ways.items() if call is not None}
        for rows in _ROWS:
            ms = found[f"{name}, {rows}"] = measure(given, rows)
            cells = "".join(f"{ms[way]:>19.1f}" if way in ms else f"{'not to be had':>19}" for way in _WAYS)
            print(f"{name:<22}{rows:>5}{cells}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
