"""Clients that want the service's memory: by what their bodies become, by their number, by replies that they never read."""

import contextlib
import gzip
import io
import re
import shutil
import socket
import threading
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from raw_http import ROW, connect, written
from serving import JSON, MODELS, NPY, NPZ, serve

from service.memory import FREE_BYTES, GROWTH

MIB = 2**20
LIMIT = 192 * MIB
IRIS = "/predict?model=iris"
CLIENTS = 24


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts the service with iris, a model of free axes and one of long rows; later starts have what the first worked out."""
    models = tmp_path_factory.mktemp("models")
    shutil.copytree(MODELS / "iris", models / "iris")
    x = inputs = keras.Input((None, None, 3), name="x")
    for filters in (16, 32):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)).save(models / "free.h5")
    x = keras.Input((4,), name="x")
    keras.Model(x, keras.layers.Dense(16384)(x)).save(models / "wide.h5")
    return partial(
        serve,
        models,
        cache_dir=tmp_path_factory.mktemp("cache"),
        max_memory_bytes=LIMIT,
        default_model="iris",
    )


@pytest.fixture(scope="module")
def service(start):
    with start() as running:
        yield running.until_ready()


def memory_of(service, line="VmRSS"):
    """Bytes of all workers."""
    total = 0
    for worker in service.workers():
        found = re.search(rf"{line}:\s+(\d+) kB", Path(f"/proc/{worker}/status").read_text())
        total += int(found[1]) * 1024
    return total


def packed(start, again, end, size):
    return gzip.compress(start + again * (size // len(again)) + end, 9)


def npz_of_zeros():
    file = io.BytesIO()
    np.savez_compressed(file, x=np.zeros((20_000_000, 4), np.float32))
    return file.getvalue()


GZIP = {"Content-Encoding": "gzip"}
BODIES = {
    "packed whole numbers": (packed(b'{"instances":[[', b"1,", b"1]]}", 200 * MIB), JSON, GZIP),
    "packed empty lists": (packed(b'{"instances":[', b"[],", b"[]]}", 100 * MIB), JSON, GZIP),
    "packed zeros": (packed(b"\x93NUMPY", b"\0", b"", 300 * MIB), NPY, GZIP),
    "npz of zeros": (npz_of_zeros(), NPZ, {}),
    "empty objects": (b'{"instances":[' + b"{}," * 3_000_000 + b"{}]}", JSON, {}),
}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (path, body)
        for path in (IRIS, "/v1/models/iris:predict", "/v2/models/iris/infer")
        for body, (_, media, _) in BODIES.items()
        if media == JSON or path == IRIS
    ],
)
def test_bodies_that_become_many_times_what_they_were_are_refused(service, body, path):
    content, media, headers = BODIES[body]
    service.post(path, ROW)
    before = memory_of(service)
    with service.connect() as connection:
        answer = connection.ask("POST", path, content, {"Content-Type": media, **headers})
    assert answer.status == 413, answer.body
    assert b"64 bytes" in answer.body or b"max_memory_bytes" in answer.body
    assert memory_of(service, "VmHWM") - before < 2 * LIMIT
    peak = service.metric("layertap_memory_peak_bytes")
    assert peak <= min(LIMIT, FREE_BYTES + GROWTH * max(len(body) for body, _, _ in BODIES.values()))
    assert service.metric("layertap_memory_bytes") == 0
    assert service.post(path, ROW).status in (200, 400)  # V2 has another form


def test_a_model_of_free_axes_is_asked_what_it_needs_before_it_runs(service):
    rows = np.zeros((1, 1200, 1200, 3), np.float32)
    before = memory_of(service)
    answer = service.post_rows("/predict?model=free", rows)
    assert answer.status == 413
    detail = answer.json["detail"]
    assert "max_memory_bytes" in detail
    assert "'free' computes for 1 rows" in detail
    assert memory_of(service, "VmHWM") - before < LIMIT
    assert service.post_rows("/predict?model=free", rows[:, :300, :300]).status == 200


def test_a_crowd_of_large_bodies_gets_in_as_far_as_there_is_room_and_leaves_nothing(start):
    """Their rows are too short, so that only reading them takes anything."""
    body = b'{"instances":[' + b"[1.5,2.5,3.5]," * 300_000 + b"[1.5,2.5,3.5]]}"
    with start() as service:
        service.until_ready()
        before = memory_of(service)
        answers = []
        clients = [
            threading.Thread(target=lambda: answers.append(service.post(IRIS, body))) for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        bystanders = 0
        while any(client.is_alive() for client in clients):
            bystanders += service.post(IRIS, ROW).status == 200
        for client in clients:
            client.join()
        assert bystanders > 0
        assert len(answers) == CLIENTS
        assert {answer.status for answer in answers} <= {400, 429}
        assert any(answer.status == 400 for answer in answers)
        for answer in answers:
            if answer.status == 429:
                assert answer.json["code"] in ("memory_full", "queue_full")
                assert answer.headers["retry-after"]
        assert service.metric("layertap_memory_peak_bytes") <= LIMIT
        assert memory_of(service, "VmHWM") - before < 2 * LIMIT
        service.until(lambda: service.metric("layertap_memory_bytes") == 0, "all being given back")
        service.until(lambda: memory_of(service) - before < LIMIT / 2, "the system having it back")


def test_replies_that_nobody_reads_are_bounded_and_make_way_for_those_who_do(start):
    file = io.BytesIO()
    np.save(file, np.zeros((300, 4), np.float32))
    rows, target = file.getvalue(), "/predict?model=wide"
    with start() as service, contextlib.ExitStack() as stack:
        service.until_ready()
        before = memory_of(service)
        for _ in range(40):
            client = stack.enter_context(connect(("127.0.0.1", service.port)))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(written("POST", target, rows, f"Content-Type: {NPY}", f"Accept: {NPY}"))
            client.recv(1)  # its reply has begun
        service.until(lambda: service.metric("layertap_refused_memory_total") > 0, "one that is refused")
        service.until(
            lambda: service.metric("layertap_connections_closed_total", reason="memory") > 0,
            "a slow reader that has to go",
        )
        assert memory_of(service, "VmHWM") - before < 2 * LIMIT
        answer = service.until(
            lambda: of_status(service.post(target, rows, NPY, NPY), 200), "room for who reads"
        )
        assert answer.npy.shape == (300, 16384)


def of_status(answer, status):
    assert answer.status in (status, 429), answer.body
    return answer if answer.status == status else None


@pytest.mark.parametrize("takes", [0, 1], ids=["nothing", "a byte now and then"])
def test_a_reply_that_is_hardly_taken_is_given_up_in_time(start, takes):
    """And everything that it held with it, while the service has plenty."""
    file = io.BytesIO()
    np.save(file, np.zeros((100, 4), np.float32))
    asked = written("POST", "/predict?model=wide", file.getvalue(), f"Content-Type: {NPY}", f"Accept: {NPY}")
    with start(send_timeout_s=1) as service, contextlib.ExitStack() as stack:
        service.until_ready()
        client = stack.enter_context(connect(("127.0.0.1", service.port)))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(asked)
        client.recv(1)
        assert service.metric("layertap_memory_bytes") > 0

        def given_up():
            with contextlib.suppress(ConnectionError):
                client.recv(takes)
            return service.metric("layertap_connections_closed_total", reason="sending")

        service.until(given_up, "its end")
        service.until(lambda: service.metric("layertap_memory_bytes") == 0, "all being given back")
