"""Measures the service beside its limits, all in one run: `make bench`.

The server has one core, the load the other. Three rounds in random order; medians and spread are printed and
written to bench-results/bench.json.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from load import CONNECTIONS, Request, lone_request_ms, throughput
from PIL import Image
from servers import ROOT, bare, layertap

ROUNDS = 3
SECONDS = 5
LONE_REQUESTS = 3000
LAYER = "global_average_pooling2d"
_RESULTS = ROOT / "bench-results"
_MAKE_MODEL = """
import sys, keras
keras.utils.set_random_seed(1)
keras.applications.MobileNetV2(weights=None).save(sys.argv[1])
"""

Measures = dict[str, list[float]]


def main() -> None:
    if len(os.sched_getaffinity(0)) < 2 or shutil.which("wrk") is None:
        sys.exit("the benchmark needs two cores and wrk (Debian package wrk)")
    with tempfile.TemporaryDirectory() as folder:
        models = _models(Path(folder))
        picture = _picture(Path(folder))
        measures = _measure(models, picture)
    rows = _table(measures)
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / "bench.json").write_text(json.dumps({"measures": measures, "table": rows}, indent=1))
    _print(rows)


def _models(folder: Path) -> Path:
    """Iris as it ships, and a MobileNetV2 with random weights (speed does not depend on them)."""
    models = folder / "models"
    shutil.copytree(ROOT / "models" / "iris", models / "iris")
    (models / "mobilenet").mkdir()
    environ = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, "-W", "ignore", "-c", _MAKE_MODEL, str(models / "mobilenet" / "model.h5")]
    subprocess.run(command, check=True, env=environ, stderr=subprocess.DEVNULL)
    # On one core, batches over 8 are slower: they leave its cache. limits.py prints the rate of each batch size.
    (models / "mobilenet" / "model.toml").write_text(
        f'default_layer = "{LAYER}"\nmax_batch_size = 8\n[preprocess]\nmode = "tf"\n'
    )
    return models


def _picture(folder: Path) -> Path:
    """A 640x480 JPEG of about 100 KB: smooth shapes and some noise, as photographs have."""
    generator = np.random.default_rng(1)
    y, x = np.mgrid[0:480, 0:640]
    waves = [np.sin(x / (20 + 9 * c)) * np.cos(y / (31 - 5 * c)) * 90 + 128 for c in range(3)]
    pixels = np.stack(waves, axis=-1) + generator.normal(0, 14, (480, 640, 3))
    path = folder / "picture.jpg"
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(buffer, "JPEG", quality=85)
    path.write_bytes(buffer.getvalue())
    print(f"picture: 640x480 JPEG, {len(buffer.getvalue())} bytes", flush=True)
    return path


def _measure(models: Path, picture: Path) -> Measures:
    iris = Request("/predict?model=iris", "application/json", b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}')
    image = Request(f"/features?model=mobilenet&layer={LAYER}", "image/jpeg", picture.read_bytes())
    measures: Measures = {}

    def note(name: str, value: float) -> None:
        measures.setdefault(name, []).append(value)
        print(f"  {name}: {value:,.2f}", flush=True)

    def measure_bare() -> None:
        with bare() as port:
            throughput(port, iris, 1)
            note("bare endpoint, req/s", throughput(port, iris, SECONDS))
            note("bare endpoint, lone request ms", lone_request_ms(port, iris, LONE_REQUESTS))

    def measure_layertap() -> None:
        with layertap(models) as port:
            throughput(port, iris, 1)
            note("iris JSON, req/s", throughput(port, iris, SECONDS))
            note("iris JSON, lone request ms", lone_request_ms(port, iris, LONE_REQUESTS))
            throughput(port, image, 2)
            note("JPEG to pooled features, images/s", throughput(port, image, 2 * SECONDS))

    def measure_limits() -> None:
        command = [
            sys.executable,
            "-W",
            "ignore",
            str(ROOT / "benchmarks" / "limits.py"),
            str(models),
            str(picture),
            LAYER,
        ]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        limits = json.loads(printed.strip().splitlines()[-1])
        note("iris row in-process, ms", limits["iris_row_ms"])
        note("JPEG in-process, best batch, images/s", max(limits["images_per_s"].values()))

    steps: list[Callable[[], None]] = [measure_bare, measure_layertap, measure_limits]
    for number in range(ROUNDS):
        print(f"round {number + 1} of {ROUNDS}", flush=True)
        random.shuffle(steps)
        for step in steps:
            with contextlib.ExitStack():
                step()
    return measures


def _table(measures: Measures) -> list[dict[str, str]]:
    middle = {name: statistics.median(values) for name, values in measures.items()}

    def row(what: str, measured: str, limit: str, ratio: str, goal: str) -> dict[str, str]:
        return {"what": what, "measured": measured, "limit": limit, "ratio": ratio, "goal": goal}

    def spread(name: str, digits: int) -> str:
        values = measures[name]
        return f"{middle[name]:,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"

    iris, ceiling = middle["iris JSON, req/s"], middle["bare endpoint, req/s"]
    image, best = middle["JPEG to pooled features, images/s"], middle["JPEG in-process, best batch, images/s"]
    lone, alone = middle["iris JSON, lone request ms"], middle["iris row in-process, ms"]
    return [
        row(f"iris JSON, req/s ({CONNECTIONS} connections)", spread("iris JSON, req/s", 0),
            f"{spread('bare endpoint, req/s', 0)} bare endpoint", f"{iris / ceiling:.2f}", "at least 0.30"),
        row("640x480 JPEG to MobileNetV2 pooled features, images/s", spread("JPEG to pooled features, images/s", 1),
            f"{spread('JPEG in-process, best batch, images/s', 1)} in-process", f"{image / best:.2f}", "at least 0.80"),
        row("lone iris request, p50 ms", spread("iris JSON, lone request ms", 3),
            f"{spread('iris row in-process, ms', 3)} in-process", f"+{lone - alone:.3f} ms", "at most +0.5 ms"),
    ]  # fmt: skip


def _print(rows: list[dict[str, str]]) -> None:
    print("\n| what | layertap | limit | ratio | goal |\n|---|--:|--:|--:|--:|")
    for row in rows:
        print("| " + " | ".join(row.values()) + " |")


if __name__ == "__main__":
    main()
