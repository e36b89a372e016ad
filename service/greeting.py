"""Owns what is said when the service is ready: its address and two lines to try, made for the models served."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from service.serving.runtime import Runtime
from service.serving.served import ServedModel
from service.settings import Settings

_log = logging.getLogger("layertap.service")

_EXAMPLES = "examples"


def greet(runtime: Runtime, settings: Settings) -> None:
    """Logs that the service is ready, and two curl lines."""
    host, port = settings.address
    address = f"http://{'localhost' if host in ('', '0.0.0.0', '[::]') else host}:{port}"
    ready = [status.latest for status in runtime.models() if status.latest is not None]
    _log.info("ready: %d models at %s (docs: %s/docs)", len(ready), address, address)
    if settings.workers > 1:
        _log.warning(
            "workers = %d: each holds a copy of the models, and max_queue_rows, max_connections and V2 statistics are "
            "of each; while a model is replaced, some answer with the new version and some with the old one",
            settings.workers,
        )
    for line in examples(ready, address, settings.default_model):
        _log.info("try: %s", line)


def examples(ready: list[ServedModel], address: str, default: str | None) -> list[str]:
    """Two curl lines: predictions of one model, features of the default (or first) one."""
    first = next((served for served in ready if served.name == default), ready[0])
    other = next((served for served in ready if served is not first), first)
    layer = first.entry.config.default_layer or first.spec.bottleneck or first.spec.layers[-1].path
    return [
        f"curl {_body(other)} '{address}/predict?model={other.name}'",
        f"curl {_body(first)} '{address}/features?model={first.name}&layer={layer}'",
    ]


def _body(served: ServedModel) -> str:
    if len(served.images) == len(served.spec.inputs) == 1:
        return f"--data-binary @{_picture(served.entry.folder)} -H 'Content-Type: image/png'"
    row = {spec.name: _zeros(spec.row_shape) for spec in served.spec.inputs}
    value = next(iter(row.values())) if len(row) == 1 else row
    return f"-H 'Content-Type: application/json' -d '{json.dumps({'instances': [value]})}'"


def _picture(folder: Path) -> str:
    pictures = sorted((folder / _EXAMPLES).glob("*.png"))
    return str(pictures[0]) if pictures else "picture.png"


def _zeros(shape: tuple[int | None, ...]) -> object:
    if not shape:
        return 0
    return [_zeros(shape[1:]) for _ in range(shape[0] or 1)]
