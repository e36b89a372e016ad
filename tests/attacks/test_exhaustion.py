"""Clients that use up what connections are made of, against the real service: descriptors, threads, its end."""

import contextlib
import resource
import shutil
import socket
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from raw_http import JSON, LAST, ROW, connect, replies_on, written
from serving import MODELS, serve

IRIS = np.array([[5.1, 3.5, 1.4, 0.2]], "float32")
FILES = 128
SILENT = 200
HEALTH = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/",
    "/v2/health/ready",
    "/v1/models/iris",
    "/v2/models/iris/ready",
]
PAGES = [*HEALTH, "/models", "/docs", "/openapi.json", "/v1/models", "/v2/models/stats"]


@contextlib.contextmanager
def few_files(count):
    """What is started here may open so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts the service with the model iris; what the first start works out is there for the others."""
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(MODELS / "iris", models / "iris")
    return partial(serve, models, cache_dir=tmp_path_factory.mktemp("cache"), default_model="iris")


def address(service):
    return "127.0.0.1", service.port


@pytest.mark.parametrize(
    "begin", [b"", b"GET / HTTP/1.1\r\nX: ", written("POST", "/v2/models/iris/stats", ROW, JSON)[:-5]],
    ids=["silent", "half a head", "half a body"],
)  # fmt: skip
def test_clients_that_hold_all_descriptors_lock_nobody_out(start, begin):
    with contextlib.ExitStack() as stack:
        with few_files(FILES):
            service = stack.enter_context(start())
            service.until_ready()
        for _ in range(SILENT):
            stack.enter_context(connect(address(service))).sendall(begin)
        for page in PAGES:
            assert service.get(page).status == 200, page
        assert service.post_rows("/predict", IRIS).json["classes"] == ["setosa"]
        assert service.metric("layertap_connection_limit") == FILES - 64
        assert service.metric("layertap_connections_closed_total", reason="too_many") >= SILENT - FILES
        assert "connections are short" in service.until_logged("connections are short")


def test_the_end_does_not_wait_for_requests_that_never_end(start):
    with start() as service, contextlib.ExitStack() as stack:
        service.until_ready()
        for begin in (b"", b"GET / HTTP/1.1\r\nX: ", written("POST", "/predict", ROW, JSON)[:-5],
                      written("POST", "/v2/models/iris/stats", ROW, JSON, chunked=True)[:-5]):  # fmt: skip
            for _ in range(10):
                stack.enter_context(connect(address(service))).sendall(begin)
        service.get("/healthz")  # what was sent before is read by now
        begun = time.monotonic()
        service.terminate()
        assert service.exit_code() == 0
        assert time.monotonic() - begun < 15  # gunicorn would have killed the worker after 35 s


def test_requests_that_were_sent_are_answered_at_the_end(start):
    with start() as service, contextlib.ExitStack() as stack:
        service.until_ready()
        connections = [stack.enter_context(connect(address(service))) for _ in range(64)]
        asked = written("POST", "/predict", ROW, JSON)
        for connection in connections:
            connection.sendall(asked)
        service.until(lambda: all(answered(each) for each in connections), "all first answers")
        for each in connections:
            each.recv(65536)
        for connection in connections:
            connection.sendall(asked)
        service.terminate()
        for connection in connections:
            answers = replies_on(connection)
            assert [answer.status for answer in answers] == [200]
        assert service.exit_code() == 0


def answered(connection):
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        connection.setblocking(True)


def test_heads_without_an_end_take_no_memory(start):
    with start() as service:
        service.until_ready()
        [worker] = service.workers()
        before = peak_bytes(worker)
        with connect(address(service)) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\n")
            for _ in range(300):
                connection.sendall(b"A: %b\r\n" % (b"x" * 8000) * 131)
        assert peak_bytes(worker) - before < 20 * 2**20
        with connect(address(service)) as connection:
            connection.sendall(LAST)
            assert [answer.status for answer in replies_on(connection)] == [200]


def peak_bytes(pid):
    (line,) = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")
    ]
    return int(line.split()[1]) * 1024
