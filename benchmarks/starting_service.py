"""Owns one start of the service, timed from the outside: from the command to the first 200 of /readyz."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers import ROOT, free_port, layertap_command

_GIVE_UP_S = 300
_LOOK_AGAIN_S = 0.005
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Started:
    """A service that is ready.

    Args:
        port: where it listens.
        worker: the process id of its one worker.
        ready_s: from the command to ready.
        phases_s: what its log says the start took its time for.
    """

    port: int
    worker: int
    ready_s: float
    phases_s: dict[str, float]

    def rss_bytes(self) -> int:
        """What the worker has in memory now, shared libraries included."""
        return int(Path(f"/proc/{self.worker}/statm").read_text().split()[1]) * _PAGE_BYTES

    def has_tensorflow(self) -> bool:
        """Whether TensorFlow's libraries are in the worker."""
        return "/site-packages/tensorflow/" in Path(f"/proc/{self.worker}/maps").read_text()

    def model(self, name: str) -> dict[str, Any]:
        """What /models says of a model."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", f"/models/{name}")
            found: dict[str, Any] = json.loads(connection.getresponse().read())
            return found


@contextlib.contextmanager
def started(cache: str, core: int | None = None, **settings: str) -> Iterator[Started]:
    """The shipped models, served until the block ends.

    Args:
        cache: the setting `cache_dir`; empty for none.
        core: the one core that the service may use; `None` for all.
        settings: further settings.
    """
    port = free_port()
    given = {"bind": f"127.0.0.1:{port}", "cache_dir": cache, "log_format": "json", **settings}
    environ = os.environ | {f"LAYERTAP_{name.upper()}": value for name, value in given.items()}
    environ.pop("PORT", None)
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    with tempfile.TemporaryFile() as log:
        begun = time.monotonic()
        process = subprocess.Popen(
            [*pinned, *layertap_command()], cwd=ROOT, env=environ, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            while not _is_ready(port):
                if process.poll() is not None or time.monotonic() - begun > _GIVE_UP_S:
                    log.seek(0)
                    raise SystemExit(f"the service did not start: {log.read().decode()[-2000:]}")
                time.sleep(_LOOK_AGAIN_S)
            ready_s = time.monotonic() - begun
            worker = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
            yield Started(port, worker, ready_s, _phases(log))
        finally:
            process.terminate()
            process.wait()


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        with contextlib.closing(connection):
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def _phases(log: Any) -> dict[str, float]:
    """From the line that is logged just after the service is ready."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        lines = os.pread(log.fileno(), 2**20, 0).decode().splitlines()
        for line in lines:
            if '"phases_s"' in line:
                phases: dict[str, float] = json.loads(line)["phases_s"]
                return phases
        time.sleep(_LOOK_AGAIN_S)
    raise SystemExit("the service did not say what its start took its time for")
