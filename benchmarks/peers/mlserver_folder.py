"""Owns the folder that `mlserver start` serves: `settings.json`, and `model-settings.json` for each endpoint."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from peers.endpoints import Endpoint


def write_folder(folder: Path, port: int, endpoints: Iterable[Endpoint]) -> None:
    """Why each value: the docstring of mlserver_runtime.py."""
    settings = {
        "debug": False,
        "parallel_workers": 0,
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": port + 1,
        "metrics_port": port + 2,
        "gzip_enabled": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    for endpoint in endpoints:
        (folder / endpoint.name).mkdir()
        model = {
            "name": endpoint.name,
            "implementation": "mlserver_runtime.KerasRuntime",
            "max_batch_size": endpoint.batch,
            "max_batch_time": 0.001,
        }
        (folder / endpoint.name / "model-settings.json").write_text(json.dumps(model))
