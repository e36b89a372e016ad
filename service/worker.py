"""Owns the gunicorn worker class: uvicorn's, with what every request would pay for and nobody reads left out."""

from __future__ import annotations

from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker

from service.protocol import Protocol


class Worker(UvicornWorker):  # type: ignore[misc]  # it publishes no types
    """uvicorn on uvloop and httptools, with the direct way for small requests."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": Protocol,
        "access_log": False,  # the service has its own; uvicorn's prepared a line for each request and dropped it
        "proxy_headers": False,  # a layer of coroutines around each request, for client addresses
        "server_header": False,
    }
