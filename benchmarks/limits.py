"""The physical limit: the same compiled functions called in-process on the server's core. Prints JSON."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path

os.sched_setaffinity(0, {0})
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np  # noqa: E402 the core and the log level come first

from service.device import DeviceOptions, apply  # noqa: E402
from service.engines import Function  # noqa: E402
from service.engines.choice import EngineOptions  # noqa: E402
from service.images import image_input, prepare  # noqa: E402
from service.repository import scan  # noqa: E402
from service.serving.opening import open_model  # noqa: E402
from service.serving.served import OpenedModel  # noqa: E402

_BATCHES = (1, 4, 8, 16, 32)


def opened(models: Path, name: str) -> OpenedModel:
    """A model of the folder, as the service would open it."""
    entry = next(entry for entry in scan(models) if entry.name == name)
    return open_model(
        entry,
        entry.versions[0],
        buckets_to=None,
        tolerance=1e-4,
        on_trace=lambda: None,
        on_padding=lambda _: None,
        engine_options=EngineOptions(threads=1),
    )


def _lone_row_ms(function: Function, row: dict[str, np.ndarray]) -> float:
    times = []
    for _ in range(3000):
        begun = time.perf_counter()
        function.run(row)
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e3


def _images_per_s(models: Path, picture: bytes, layer: str) -> dict[int, float]:
    """Decode and compute one after the other, by batch size."""
    engine = opened(models, "mobilenet").engine
    entry = next(entry for entry in scan(models) if entry.name == "mobilenet")
    target = image_input(engine.spec.inputs[0], entry.config.preprocess)
    if target is None:
        raise SystemExit("mobilenet takes no pictures")
    function, name = engine.compile((layer,)), engine.spec.inputs[0].name
    rates = {}
    for batch in _BATCHES:
        rounds = max(2, 96 // batch)
        function.run({name: np.stack([prepare(picture, target, max_pixels=10**8)] * batch)})
        begun = time.perf_counter()
        for _ in range(rounds):
            rows = [prepare(picture, target, max_pixels=10**8) for _ in range(batch)]
            function.run({name: np.stack(rows)})
        rates[batch] = rounds * batch / (time.perf_counter() - begun)
    return rates


def main() -> None:
    models, picture, layer = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes(), sys.argv[3]
    apply(DeviceOptions())
    iris = opened(models, "iris").engine
    outputs = tuple(output.path for output in iris.spec.outputs)
    row = {iris.spec.inputs[0].name: np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)}
    lone = _lone_row_ms(iris.compile(outputs), row)
    print(json.dumps({"iris_row_ms": lone, "images_per_s": _images_per_s(models, picture, layer)}))


if __name__ == "__main__":
    main()
