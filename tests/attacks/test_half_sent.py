"""Clients that begin a request and do not go on: none stays for ever, and none keeps others from being answered."""

import contextlib
import socket
import threading
from dataclasses import replace
from http.client import HTTPException

import pytest
from drivers import CONNECTION_LIMITS, Gate, Site, open_site
from raw_http import JSON, ROW, connect, replies_on, rows, written
from wire import ANSWER_WITHIN_S, Wire

from service.api.http import Reply
from service.drivers.connections import Phase

SHORT = replace(CONNECTION_LIMITS, header_timeout_s=0.4, body_timeout_s=0.4, linger_timeout_s=0.4)
MANY = 24  # more than there are threads behind Flask
V2 = written("POST", "/v2/models/iris/infer", ROW, JSON)
STATS = written("POST", "/v2/models/iris/stats", ROW, JSON)
PAGES = [
    "/healthz", "/readyz", "/metrics", "/", "/models", "/docs", "/openapi.json", "/v1/models", "/v1/models/iris",
    "/v2/health/live", "/v2/health/ready", "/v2/models/iris/ready",
]  # fmt: skip
HEALTH = [page for page in PAGES if page not in {"/models", "/docs", "/openapi.json", "/v1/models"}]


@pytest.fixture(scope="module")
def site():
    with open_site("iris", connection_limits=SHORT) as site:
        yield site


def closed(site: Site, reason):
    counter = site.telemetry.metrics.connections_closed.labels(reason)
    return counter._value.get()


def half(data, missing=5):
    return data[:-missing]


def test_a_client_that_says_nothing_is_let_go(site):
    before = closed(site, "new")
    with connect(site.direct.address) as connection:
        assert connection.recv(1) == b""
    assert closed(site, "new") == before + 1


@pytest.mark.parametrize(
    ("data", "native"),
    [(b"GE", True), (b"GET /predict HT", True), (b"GET /v2/health HTTP/1.1\r\nHost: x\r\n", False)],
    ids=["method", "target", "headers"],
)
def test_half_a_head_is_answered_and_its_connection_ends(site, data, native):
    before = closed(site, "head")
    with connect(site.direct.address) as connection:
        connection.sendall(data)
        (answer,) = replies_on(connection)
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert answer.json().get("code") == ("request_timeout" if native else None)
    assert closed(site, "head") == before + 1


HALF_BODIES = {
    "direct": half(written("POST", "/predict?model=iris", ROW, JSON)),
    "large": half(written("POST", "/predict?model=iris", rows(3000), "Content-Type: application/x-npy")),
    "chunks": half(written("POST", "/predict?model=iris", ROW, JSON, chunked=True)),
    "v1": half(written("POST", "/v1/models/iris:predict", ROW, JSON)),
    "v2": half(V2),
    "flask": half(STATS),
    "flask chunks": half(written("POST", "/nowhere", ROW, JSON, chunked=True)),
    "no byte": half(written("POST", "/predict?model=iris", ROW, JSON), len(ROW)),
}


@pytest.mark.parametrize("case", HALF_BODIES)
def test_half_a_body_is_answered_and_its_connection_ends(site, case):
    before = closed(site, "body")
    with connect(site.direct.address) as connection:
        connection.sendall(HALF_BODIES[case])
        (answer,) = replies_on(connection)
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert "Expected" in answer.body.decode()
    assert ("code" in answer.json()) == (case not in {"v1", "v2", "flask"})
    assert closed(site, "body") == before + 1


def trickle(connection, data):
    """Sends a byte each time that nothing comes back for a moment; stops when something does."""
    connection.settimeout(0.02)
    for byte in data:
        with contextlib.suppress(TimeoutError):
            connection.recv(1, socket.MSG_PEEK)
            break
        connection.sendall(bytes([byte]))
    connection.settimeout(ANSWER_WITHIN_S)


@pytest.mark.parametrize("begin", [b"GET / HTTP/1.1\r\nX: ", HALF_BODIES["no byte"].replace(b"37", b"30000")])
def test_a_byte_now_and_then_does_not_help(site, begin):
    with connect(site.direct.address) as connection:
        connection.sendall(begin)
        trickle(connection, b"x" * 100_000)
        assert Wire(connection).answer().status == 408


def test_whoever_waits_for_us_has_all_the_time():
    gate = Gate()
    with (
        open_site("iris", gate=gate, connection_limits=replace(SHORT, keep_alive_s=0.4)) as site,
        connect(site.direct.address) as waits,
        connect(site.direct.address) as silent,
    ):
        waits.sendall(written("POST", "/predict?model=iris", ROW, JSON))
        assert gate.entered.wait(ANSWER_WITHIN_S)
        assert silent.recv(1) == b""
        gate.open()
        assert Wire(waits).answer().status == 200


def ask(site, target, method="GET"):
    with connect(site.direct.address) as connection:
        connection.sendall(written(method, target, b"", "Connection: close"))
        (answer,) = replies_on(connection)
    return answer


def test_bodies_that_do_not_come_take_no_threads():
    with open_site("iris") as site, contextlib.ExitStack() as stack:
        for _ in range(MANY):
            for data in (half(STATS), half(V2), half(written("POST", "/nowhere", ROW, chunked=True))):
                stack.enter_context(connect(site.direct.address)).sendall(data)
        for page in PAGES:
            assert ask(site, page).status == 200, page


class Blocking:
    """A dialect whose every answer waits."""

    name, prefix = "blocking", "/blocking"

    def __init__(self):
        self.begun = threading.Semaphore(0)
        self.over = threading.Event()

    def endpoint(self, _):
        return None

    def is_health(self, path):
        return path == "/blocking/health"

    def answer(self, request, _):
        if not self.is_health(request.path):
            self.begun.release()
            assert self.over.wait(ANSWER_WITHIN_S)
        return Reply(200, b"{}")


def test_health_and_metrics_do_not_wait_for_threads_of_others():
    blocking = Blocking()
    with open_site("iris", dialects=[blocking]) as site, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connect(site.direct.address)) for _ in range(MANY)]
        try:
            for connection in waiting:
                connection.sendall(written("POST", "/blocking/load", b"{}"))
            for _ in range(10):
                assert blocking.begun.acquire(timeout=ANSWER_WITHIN_S)
            for page in ["/healthz", "/readyz", "/metrics", "/", "/blocking/health"]:
                assert ask(site, page).status == 200, page
        finally:
            blocking.over.set()
        assert [Wire(connection).answer().status for connection in waiting] == [200] * MANY


@pytest.mark.parametrize("page", HEALTH)
def test_health_and_metrics_do_not_wait_for_their_own_bodies(site, page):
    data = written("GET", page, b"x" * 1000)
    with connect(site.direct.address) as connection:
        connection.sendall(half(data))
        assert Wire(connection).answer().status == 200


# -- too many ---------------------------------------------------------------------------------------------


def served(connection):
    connection.sendall(written("POST", "/predict?model=iris", ROW, JSON))
    return Wire(connection).answer().status


@pytest.fixture
def crowded():
    """A site for three connections."""
    gate = Gate()
    limits = replace(CONNECTION_LIMITS, max_connections=3)
    with open_site("iris", gate=gate, connection_limits=limits) as site, contextlib.ExitStack() as stack:
        yield site, gate, lambda: stack.enter_context(connect(site.direct.address))


def test_the_one_that_has_been_idle_the_longest_goes_first(crowded, caplog):
    site, gate, come = crowded
    gate.open()
    first, second, third = come(), come(), come()
    assert [served(each) for each in (second, first, third)] == [200, 200, 200]
    site.direct.until(lambda connections: all(each.since is not None for each in connections))
    fourth = come()
    assert served(fourth) == 200
    assert [is_closed(each) for each in (first, second, third)].count(True) == 1
    assert closed(site, "too_many") == 1
    assert "connections are short" in caplog.text


def answering(connections):
    return [each.phase for each in connections].count(Phase.ANSWERING)


def ends(connection):
    """Waits until the server closes it without a word."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def is_closed(connection):
    """Whether the server has closed it; else it answers."""
    try:
        return served(connection) != 200
    except (ConnectionError, HTTPException):
        return True


def test_where_none_is_idle_half_sent_ones_go_and_where_none_is_the_newcomer_is_told(crowded):
    site, gate, come = crowded
    waits, half_sent = [come(), come()], come()
    for each in waits:
        each.sendall(written("POST", "/predict?model=iris", ROW, JSON))
    half_sent.sendall(half(STATS))
    assert gate.entered.wait(ANSWER_WITHIN_S)
    site.direct.until(lambda connections: answering(connections) == 2)
    last = come()
    assert ends(half_sent)
    last.sendall(written("POST", "/predict?model=iris", ROW, JSON))
    site.direct.until(lambda connections: answering(connections) == 3)
    newcomer = come()
    (answer,) = replies_on(newcomer)
    assert (answer.status, answer.json()["code"]) == (429, "too_many_connections")
    assert int(answer.headers["retry-after"]) >= 1
    gate.open()
    assert [Wire(each).answer().status for each in (*waits, last)] == [200] * 3
