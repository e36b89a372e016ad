"""Starts the servers that are compared, each pinned to one core and in a process group, and stops them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SERVER_CORE, LOAD_CORE = 0, 1
_START_S = 240
_STOP_S = 15
_MARK = "BENCH_RUN"  # in the environment of all of a server's processes, wherever they moved to


class ServerFailed(RuntimeError):
    """A server ended or was not ready in time; the message holds the end of what it printed."""


@dataclass(frozen=True)
class Running:
    """A server that is ready.

    Args:
        mark: the value of BENCH_RUN that its processes carry.
    """

    mark: str

    def memory_bytes(self) -> int:
        """The proportional set size of all of its processes: shared pages count once."""
        total = 0
        for process in _marked(self.mark):
            with contextlib.suppress(OSError):
                rollup = Path("/proc", str(process), "smaps_rollup").read_text()
                total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        return total * 1024

    def processor_s(self) -> float:
        """The processor time that all of its processes have used since they began."""
        ticks = 0
        for process in _marked(self.mark):
            with contextlib.suppress(OSError):
                fields = Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])  # utime and stime; see proc_pid_stat(5)
        return ticks / os.sysconf("SC_CLK_TCK")


def stop_with_servers() -> None:
    """Lets SIGTERM end this program as an exception does, so that servers are stopped on the way."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))


@contextlib.contextmanager
def bare() -> Iterator[int]:
    """The bare endpoint; yields its port."""
    port = free_port()
    with running(bare_command(port), {}, lambda: answers(port, "/")):
        yield port


@contextlib.contextmanager
def layertap(models: Path) -> Iterator[int]:
    """The service, as `make serve` starts it, over a folder of models; yields its port."""
    port = free_port()
    with running(layertap_command(), layertap_environ(port, models), lambda: answers(port, "/readyz")):
        yield port


def bare_command(port: int) -> list[str]:
    arguments = [
        "-k",
        "service.drivers.worker.Worker",
        "-b",
        f"127.0.0.1:{port}",
        "--pythonpath",
        str(ROOT / "benchmarks"),
    ]
    return [sys.executable, "-m", "gunicorn", *arguments, "bare:app"]


def layertap_command() -> list[str]:
    return [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"]


def layertap_environ(port: int, models: Path) -> dict[str, str]:
    return {
        "LAYERTAP_MODELS_DIR": str(models),
        "LAYERTAP_BIND": f"127.0.0.1:{port}",
        "LAYERTAP_DEFAULT_MODEL": "iris",
    }


@contextlib.contextmanager
def running(
    command: Sequence[str], environ: Mapping[str, str], ready: Callable[[], bool], cwd: Path = ROOT
) -> Iterator[Running]:
    """A server's processes, from when `ready` says so until the block ends; then all of them are stopped.

    Raises:
        ServerFailed: it ended, or was not ready within four minutes.
    """
    mark = uuid.uuid4().hex
    environment = (
        {key: value for key, value in os.environ.items() if key != "PORT"} | dict(environ) | {_MARK: mark}
    )
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), *command],
            cwd=cwd,
            env=environment,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            problem = _await_ready(process, ready)
            if problem:
                printed.seek(0)
                raise ServerFailed(f"{problem}: {_last_words(printed.read())}")
            yield Running(mark)
        finally:
            _stop(process, mark)


def answers(port: int, path: str) -> bool:
    """Whether a GET is answered with a good status."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_ready(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> str | None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return f"it ended with {process.returncode} before it was ready"
        if ready():
            return None
        time.sleep(0.1)
    return f"it was not ready after {_START_S} s"


def _last_words(printed: bytes) -> str:
    lines = [line for line in printed.decode(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-6:])[-600:].replace("|", "/") or "it printed nothing"


def _stop(process: subprocess.Popen[bytes], mark: str) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for left in _marked(mark):  # some servers put their workers into groups of their own
        with contextlib.suppress(ProcessLookupError):
            os.kill(left, signal.SIGKILL)
    process.wait()


def _marked(mark: str) -> list[int]:
    wanted = f"{_MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found
