"""Owns the gunicorn worker class: uvicorn's, with what every request would pay for and nobody reads left out."""

from __future__ import annotations

from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker


class Worker(UvicornWorker):  # type: ignore[misc]  # it publishes no types
    """uvicorn on uvloop and httptools."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": "httptools",
        "proxy_headers": False,  # a layer of coroutines around each request, for client addresses
        "server_header": False,
    }
