"""The real service as a process: gunicorn on a free port, seen through HTTP and its log, ended by signals."""

import contextlib
import http.client
import io
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.payloads.codecs import decode_npy, decode_npz

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "models"
PATIENCE_S = 90.0  # a service that hangs fails its test with a message instead of holding up all tests
MAX_UNPACKED_BYTES = 2**32
_LOOK_AGAIN_S = 0.05
_PORTS = range(20_000, 32_000)  # below those that the system gives to clients, so that none of them takes it

NPY = "application/x-npy"
NPZ = "application/x-npz"
JSON = "application/json"


@dataclass(frozen=True)
class Answer:
    """A reply as it came over the wire; header names in lower case.

    Arrays are read by the service's own reader: numpy's cannot be used on several threads (`service.syntax`). That
    numpy reads what the service writes is shown by `tests/unit/test_codecs.py`.
    """

    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def npy(self):
        assert self.status == 200, self.body
        return decode_npy(self.body)

    @property
    def npz(self):
        assert self.status == 200, self.body
        return decode_npz(self.body, MAX_UNPACKED_BYTES)


class Connection:
    """One kept-alive connection to the service."""

    def __init__(self, port, address="127.0.0.1"):
        self._http = http.client.HTTPConnection(address, port, timeout=PATIENCE_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._http.close()

    def ask(self, method, path, body=None, headers=None):
        self._http.request(method, path, body, headers or {})
        reply = self._http.getresponse()
        return Answer(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())

    def post(self, path, body, content_type=JSON, accept=JSON):
        return self.ask("POST", path, body, {"Content-Type": content_type, "Accept": accept})


class Service:
    """A running service; `serve` makes one.

    Args:
        process: gunicorn's master, the leader of its process group.
        port: where it listens.
    """

    def __init__(self, process, port):
        self.process = process
        self.port = port
        self._lines = []
        self._news = threading.Condition()
        self._heeded = threading.Event()
        self._heeded.set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    # -- requests -----------------------------------------------------------------------------------------

    def connect(self):
        return Connection(self.port)

    def get(self, path):
        with self.connect() as connection:
            return connection.ask("GET", path)

    def post(self, path, body, content_type=JSON, accept=JSON):
        with self.connect() as connection:
            return connection.post(path, body, content_type, accept)

    def post_rows(self, path, rows, accept=JSON):
        """Arrays as npy, or as npz where they are a dict keyed by input name."""
        body = io.BytesIO()
        if isinstance(rows, dict):
            np.savez(body, **rows)
        else:
            np.save(body, rows)
        return self.post(path, body.getvalue(), NPZ if isinstance(rows, dict) else NPY, accept)

    def metric(self, name, **labels):
        """The sum of a metric's series that carry these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = [line for line in self.get("/metrics").body.decode().splitlines() if not line.startswith("#")]
        series = [line for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in series if all(text in line for text in wanted))

    # -- states -------------------------------------------------------------------------------------------

    def until(self, condition, what):
        """Waits for a condition, looking again every few milliseconds; returns what it gave."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := condition()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_LOOK_AGAIN_S)
                raise AssertionError(f"the service ended before {what}:\n{self.log}")
            assert time.monotonic() < deadline, f"no sign of {what}:\n{self.log}"
        return found

    def until_ready(self):
        self.until(lambda: self._status("/readyz") == 200, "ready")
        return self

    def until_listening(self):
        self.until(lambda: self._status("/healthz") is not None, "an answer of /healthz")
        return self

    def _status(self, path):
        try:
            return self.get(path).status
        except (ConnectionError, http.client.RemoteDisconnected):
            return None

    # -- log ----------------------------------------------------------------------------------------------

    def _read(self):
        for line in self.process.stderr:
            self._heeded.wait()
            with self._news:
                self._lines.append(line.rstrip("\n"))
                self._news.notify_all()

    @property
    def log(self):
        with self._news:
            return "\n".join(self._lines)

    @contextlib.contextmanager
    def unheard(self):
        """Nobody reads the log, so that its pipe runs full."""
        self._heeded.clear()
        try:
            yield
        finally:
            self._heeded.set()

    @property
    def records(self):
        """The log's JSON lines."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    def until_logged(self, text):
        """Waits for a line that holds `text`; returns it."""

        def found():
            return next((line for line in self._lines if text in line), None)

        with self._news:
            assert self._news.wait_for(found, PATIENCE_S), f"never logged: {text}\n" + "\n".join(self._lines)
            return found()

    # -- end ----------------------------------------------------------------------------------------------

    def workers(self):
        """Process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(text) for text in children.read_text().split()]

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self):
        """Waits for the end, and for the last line of the log."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def stop(self):
        self.terminate()
        assert self.exit_code() == 0, self.log

    def kill(self):
        """Ends whatever is left of the process group; only what a failed test leaves needs it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def serve(models=MODELS, *options, environ=None, **settings):
    """Starts the service; it is stopped, and must stop well, unless it has ended by then.

    Args:
        models: the models folder.
        options: further arguments of gunicorn.
        environ: further variables.
        settings: the service's settings, in lower case.
    """
    port = free_port()
    # Without a cache, or each test would depend on what the ones before it left there.
    given = {"models_dir": models, "bind": f"127.0.0.1:{port}", "cache_dir": "", **settings}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("LAYERTAP_") and k != "PORT"}
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", *options],
        cwd=ROOT,
        env=inherited | {f"LAYERTAP_{k.upper()}": str(v) for k, v in given.items()} | (environ or {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    service = Service(process, port)
    try:
        yield service
        if process.poll() is None:
            service.stop()
    finally:
        service.kill()
        process.stderr.close()


class Ending:
    """The end of a process that is not ours to wait for; made while it still runs."""

    def __init__(self, pid):
        self._descriptor = os.pidfd_open(pid)

    def wait(self):
        ended, _, _ = select.select([self._descriptor], [], [], PATIENCE_S)
        os.close(self._descriptor)
        assert ended, "the process goes on"


def free_port():
    """A port nobody listens on."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")
