"""The worker's protocol on real connections: which requests take the direct way, and what else may happen on them."""

import gc
import queue
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import numpy as np
import pytest
from bodies import BODIES, ROWS, npy
from drivers import CONNECTION_LIMITS, Gate, open_site
from wire import ANSWER_WITHIN_S

from service.drivers.asgi import SMALL_BODY_BYTES
from service.drivers.direct import DirectRequest
from service.payloads.codecs import NPY

JSON = {"Content-Type": "application/json"}
BODY = b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}'


@pytest.fixture(scope="module")
def site():
    with open_site("iris", "shapes") as site:
        yield site


class Taken(list):
    """Requests; `queued` and `left` get a DirectRequest each time one has begun, or its client has gone."""

    def __init__(self):
        super().__init__()
        self.queued, self.left = queue.SimpleQueue(), queue.SimpleQueue()


@pytest.fixture
def direct(monkeypatch):
    """The requests that took the direct way."""
    taken = Taken()
    begin, leave = DirectRequest.begin, DirectRequest.leave

    def note_begin(self, request):
        taken.append(request)
        begin(self, request)
        taken.queued.put(self)

    def note_leave(self):
        leave(self)
        taken.left.put(self)

    monkeypatch.setattr(DirectRequest, "begin", note_begin)
    monkeypatch.setattr(DirectRequest, "leave", note_leave)
    return taken


def raw(body=BODY, *lines, version="1.1", method="POST", target="/predict?model=iris"):
    """The bytes of a request."""
    head = [f"{method} {target} HTTP/{version}", "Host: localhost", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join([*head, "", ""]).encode() + body


def ask(site, data, replies=1):
    with site.direct.connect() as wire:
        wire.send(data)
        return [wire.answer() for _ in range(replies)]


def test_a_small_request_takes_the_direct_way_and_has_the_bytes_of_the_others(site, direct):
    (answer,) = ask(site, raw())
    assert len(direct) == 1
    for driver in (site.flask, site.express):
        other = driver.send("POST", "/predict", "model=iris", JSON, BODY)
        assert (other.status, other.body) == (answer.status, answer.body) == (200, answer.body)
        assert other.headers.keys() == answer.headers.keys() - {"date"}  # which their servers add
    assert len(direct) == 1


def test_an_error_takes_it_too(site, direct):
    (answer,) = ask(site, raw(b"{"))
    assert (answer.status, answer.json()["code"]) == (400, "invalid_json")
    assert len(direct) == 1


@pytest.mark.parametrize(
    "data",
    [
        raw(npy(np.tile(ROWS, (1000, 1))), f"Content-Type: {NPY}"),
        raw(BODIES["picture"].data, "Content-Type: image/png", target="/predict?model=shapes"),
        raw(BODY, "Expect: 100-continue"),
        raw(b"", method="GET", target="/models"),
        raw(b"", target="/nowhere"),
        raw(BODY, target="/%70redict?model=iris"),
        raw(BODY, target="http://localhost/predict?model=iris"),
    ],
    ids=["large", "picture", "expects", "get", "elsewhere", "encoded path", "absolute"],
)
def test_what_is_not_plain_is_left_to_the_server(site, direct, data):
    (answer,) = ask(site, data)
    assert answer.status == (404 if b"nowhere" in data else 200)
    assert direct == []


def test_chunks_are_left_to_the_server(site, direct):
    answer = site.direct.send("POST", "/predict", "model=iris", JSON, BODY, declared=False)
    assert answer.status == 200
    assert direct == []


def test_a_body_that_comes_byte_by_byte(site, direct):
    whole = raw()
    with site.direct.connect() as wire:
        for place in range(len(whole)):
            wire.send(whole[place : place + 1])
        assert wire.answer().status == 200
    assert direct[0].body == BODY


def test_the_largest_small_body(site, direct):
    padded = BODY + b" " * (SMALL_BODY_BYTES - len(BODY))
    assert ask(site, raw(padded) + raw(padded + b" "), 2)[0].status == 200
    assert len(direct) == 1


def test_a_connection_answers_one_request_after_the_other(site, direct):
    with site.direct.connect() as wire:
        for number in range(20):
            wire.send(raw(BODY, f"X-Request-Id: id-{number}"))
            assert wire.answer().headers["x-request-id"] == f"id-{number}"
    assert len(direct) == 20


def test_requests_sent_without_waiting_are_answered_in_order(site):
    ids = [f"X-Request-Id: id-{number}" for number in range(20)]
    sent = [raw(BODY, name) if number % 3 else raw(b"", name, method="GET", target="/models/iris")
            for number, name in enumerate(ids)]  # fmt: skip
    with site.direct.connect() as wire:
        wire.send(b"".join(sent))
        got = [wire.answer().headers["x-request-id"] for _ in ids]
    assert [f"X-Request-Id: {name}" for name in got] == ids


@pytest.mark.parametrize("data", [raw(BODY, "Connection: close"), raw(version="1.0")], ids=["asked", "1.0"])
def test_a_connection_that_is_to_end_ends_after_its_reply(site, direct, data):
    with site.direct.connect() as wire:
        wire.send(data)
        answer = wire.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert wire.ended()
    assert len(direct) == 1


WAYS = {
    "direct": raw(),
    "an error": raw(b"{"),
    "asgi": raw(target="/v2/models/iris/stats"),
    "large": raw(npy(np.tile(ROWS, (1000, 1))), f"Content-Type: {NPY}"),
}


@pytest.mark.parametrize("data", WAYS.values(), ids=WAYS)
def test_an_old_client_that_asks_for_it_keeps_its_connection_and_is_told_so(site, data):
    old = data.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host:", b"Connection: Keep-Alive\r\nHost:")
    with site.direct.connect() as wire:
        for _ in range(3):
            wire.send(old)
            assert wire.answer().headers["connection"] == "keep-alive"
        wire.send(data.replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert wire.answer().headers["connection"] == "close"
        assert wire.ended()


@pytest.mark.parametrize("data", [*WAYS.values(), b"nonsense\r\n\r\n"], ids=[*WAYS, "no request"])
def test_every_reply_says_when_it_was_made(site, data):
    (answer,) = ask(site, data)
    told = parsedate_to_datetime(answer.headers["date"])
    assert abs(datetime.now(UTC) - told) < timedelta(seconds=60)


def test_a_connection_that_is_idle_for_long_is_closed_and_one_that_waits_for_its_reply_is_not():
    gate = Gate()
    with (
        open_site("iris", gate=gate, connection_limits=replace(CONNECTION_LIMITS, keep_alive_s=2)) as site,
        site.direct.connect() as idle,
        site.direct.connect() as busy,
    ):
        idle.send(raw(b"{"))
        assert idle.answer().status == 400
        busy.send(raw(b"{"))
        assert busy.answer().status == 400
        busy.send(raw())
        assert gate.entered.wait(ANSWER_WITHIN_S)
        assert idle.ended()  # nothing more comes: the server closed it
        gate.open()
        assert busy.answer().status == 200
        assert busy.ended()


def test_a_client_that_leaves_takes_its_request_along(direct):
    gate = Gate()
    with open_site("iris", gate=gate) as site:
        first = site.direct.connect()
        first.send(raw())
        assert gate.entered.wait(ANSWER_WITHIN_S)
        second = site.direct.connect()
        second.send(raw())
        first_of, second_of = (direct.queued.get(timeout=ANSWER_WITHIN_S) for _ in range(2))
        assert site.runtime.waiting_rows == 1
        second.close()
        assert direct.left.get(timeout=ANSWER_WITHIN_S) is second_of is not first_of
        assert site.runtime.waiting_rows == 0
        gate.open()
        assert first.answer().status == 200
        first.close()
        site.runtime.stop()
        assert gate.runs == 1


def test_a_deadline_is_answered_while_the_engine_is_busy():
    gate = Gate()
    with open_site("iris", gate=gate) as site:
        (answer,) = ask(site, raw(target="/predict?model=iris&timeout_ms=50"))
        assert (answer.status, answer.json()["code"]) == (504, "deadline_exceeded")


def test_a_reply_that_is_long_to_print_is_printed_elsewhere(site, monkeypatch):
    threads = []
    rows = np.tile(ROWS, (500, 1)).astype(np.float32)
    body = npy(rows)
    assert len(body) < SMALL_BODY_BYTES
    begin = DirectRequest._rendered
    monkeypatch.setattr(
        DirectRequest,
        "_rendered",
        lambda self, done: (threads.append(threading.current_thread()), begin(self, done)),
    )
    data = raw(body, f"Content-Type: {NPY}", target="/features?model=iris&layer=hidden&layer=probs")
    (answer,) = ask(site, data)
    other = site.flask.send(
        "POST", "/features", "model=iris&layer=hidden&layer=probs", {"Content-Type": NPY}, body
    )
    assert (answer.status, answer.body) == (200, other.body)
    assert len(threads) == 1


def test_nothing_of_a_request_is_left_to_the_garbage_collector(site):
    with site.direct.connect() as wire:

        def exchange():
            wire.send(raw())
            assert wire.answer().status == 200

        exchange()
        gc.collect()
        before = sum(isinstance(each, DirectRequest) for each in gc.get_objects())
        gc.disable()
        try:
            for _ in range(10):
                exchange()
            after = sum(isinstance(each, DirectRequest) for each in gc.get_objects())
        finally:
            gc.enable()
    assert after <= before + 1  # the last one may not be through
