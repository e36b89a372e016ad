"""BentoML: one service with a batchable API an endpoint.

Settings: max_batch_size as the endpoint's, max_latency_ms 60000 (its default: the dispatcher learns when to wait),
one worker, metrics, tracing and the access log off. Replies are JSON. Pictures and npy files arrive as multipart
files, as its image examples show: its batches take lists of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
from endpoints import Endpoint, served
from inference import decode, open_run, scale
from PIL import Image


def _api(endpoint: Endpoint) -> Callable[..., Any]:
    def from_json(self: Any, instances: np.ndarray) -> np.ndarray:
        return self.runs[endpoint.name](instances.astype(np.float32))

    def from_files(self: Any, files: list[Path]) -> np.ndarray:
        return self.runs[endpoint.name](
            np.concatenate([decode(endpoint, file.read_bytes()) for file in files])
        )

    def from_images(self: Any, images: list[Image.Image]) -> np.ndarray:
        return self.runs[endpoint.name](np.stack([scale(endpoint, image) for image in images]))

    function = {"json": from_json, "npy": from_files, "jpeg": from_images}[endpoint.form]
    function.__name__ = endpoint.name.replace("-", "_")  # BentoML finds an API by its function's name
    return bentoml.api(
        function,
        route=f"/{endpoint.name}",
        batchable=True,
        max_batch_size=endpoint.batch,
        max_latency_ms=60_000,
    )


def _open(self: Any) -> None:
    self.runs = {endpoint.name: open_run(endpoint) for endpoint in served()}


_members: dict[str, Any] = {endpoint.name.replace("-", "_"): _api(endpoint) for endpoint in served()}
KerasModels = bentoml.service(
    name="keras_models",
    workers=1,
    traffic={"timeout": 60, "max_concurrency": 1024},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)(type("KerasModels", (), {"__init__": _open, **_members}))
