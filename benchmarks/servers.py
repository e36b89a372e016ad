"""Starts the servers that are compared, each pinned to one core, and stops them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SERVER_CORE, LOAD_CORE = 0, 1
_START_S = 180


@contextlib.contextmanager
def bare() -> Iterator[int]:
    """The bare endpoint; yields its port."""
    port = _free_port()
    with _running(
        ["-k", "service.worker.Worker", "-b", f"127.0.0.1:{port}", "--pythonpath", str(ROOT / "benchmarks"), "bare:app"],
        {}, port, "/",
    ):  # fmt: skip
        yield port


@contextlib.contextmanager
def layertap(models: Path) -> Iterator[int]:
    """The service, as `make serve` starts it, over a folder of models; yields its port."""
    port = _free_port()
    environ = {
        "LAYERTAP_MODELS_DIR": str(models),
        "LAYERTAP_BIND": f"127.0.0.1:{port}",
        "LAYERTAP_DEFAULT_MODEL": "iris",
    }
    with _running(["-c", "gunicorn.conf.py"], environ, port, "/readyz"):
        yield port


@contextlib.contextmanager
def _running(arguments: list[str], environ: dict[str, str], port: int, ready: str) -> Iterator[None]:
    command = ["taskset", "-c", str(SERVER_CORE), sys.executable, "-m", "gunicorn", *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "PORT"} | environ
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        _await_ready(f"http://127.0.0.1:{port}{ready}", process)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _await_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"the server ended with {process.returncode} before it was ready")
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 an address of ours
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    sys.exit(f"{url} was not ready after {_START_S} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
