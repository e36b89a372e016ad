"""How far an event loop is behind, and what it refuses unread; on a real loop, which is held up by hand."""

import asyncio
import json
import sys
import time

import pytest
from numpy_engine import build_runtime

from service.api.endpoint import Limits
from service.api.native import NativeEndpoint
from service.api.openinference.infer import InferEndpoint
from service.api.tfserving.dialect import TensorFlowServing
from service.drivers import shedding
from service.drivers.shedding import Refusals, Rounds
from service.telemetry import Telemetry

LIMITS = Limits(1_000_000, 10_000, 200_000)
STUCK_S = 0.02


def stand_still():
    """Keeps the loop from coming round, as a long reading does."""
    until = time.monotonic() + STUCK_S
    while time.monotonic() < until:
        pass


def on_a_loop(body):
    async def run():
        return await body(Rounds(asyncio.get_running_loop()))

    return asyncio.run(run())


async def rest():
    """Lets the loop come round until it has nothing more to do."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_loop_that_rests_is_not_behind():
    async def body(rounds):
        found = []
        for _ in range(3):
            found.append((rounds.read(), rounds.waited_s))
            await rest()
            stand_still()  # what came before is forgotten: nobody waited for it
        return found

    assert on_a_loop(body) == [(0.0, 0.0)] * 3


def test_a_round_that_reads_for_long_is_behind_and_so_is_the_next_one():
    async def body(rounds):
        rounds.read()
        stand_still()
        reading_s = rounds.read()
        await asyncio.sleep(0)  # the loop comes round, and has something to read at once
        assert rounds.read() == 0
        return reading_s, rounds.waited_s

    reading_s, waited_s = on_a_loop(body)
    assert reading_s >= STUCK_S
    assert waited_s >= reading_s


def test_while_it_refuses_the_loop_shares_the_interpreter_lock_more_evenly(monkeypatch):
    monkeypatch.setattr(shedding, "_CALM_S", 0.0)
    usual_s = 0.005
    sys.setswitchinterval(usual_s)  # Python's own; a test before this one may have left another

    async def body(rounds):
        rounds.refused()
        rounds.refused()
        found = sys.getswitchinterval()
        for _ in range(1000):  # each lets timers run that are due
            if sys.getswitchinterval() == usual_s:
                break
            await asyncio.sleep(0)
        return found

    assert on_a_loop(body) < usual_s
    assert sys.getswitchinterval() == usual_s


@pytest.fixture(scope="module")
def runtime():
    runtime = build_runtime("iris", request_timeout_s=1.0)
    yield runtime
    runtime.stop()


@pytest.mark.parametrize(
    ("reading_s", "waited_s", "url", "late"),
    [
        (0.09, 0.0, b"/predict", False),
        (0.11, 0.0, b"/predict", True),
        (0.011, 0.0, b"/predict?timeout_ms=100", True),
        (0.009, 0.0, b"/predict?timeout_ms=100", False),
        (0.011, 0.0, b"/predict?model=iris&timeout_ms=100&top=3", True),
        (0.09, 0.0, b"/predict?timeout_ms=1000000", False),  # no longer than the service's own limit
        (0.11, 0.0, b"/predict?timeout_ms=1000000", True),
        (0.011, 0.0, b"/predict?timeout_ms=nothing", False),
        (0.0, 5.0, b"/predict", False),  # it stood still once, and has little to read
        (0.05, 0.4, b"/predict", True),
    ],
)
def test_what_a_round_has_no_time_for_is_late(runtime, reading_s, waited_s, url, late):
    assert Refusals(runtime, Telemetry()).is_late(reading_s, waited_s, url, "iris") is late


@pytest.mark.parametrize(
    "endpoint",
    [
        NativeEndpoint("predict", LIMITS),
        TensorFlowServing(LIMITS).endpoint("/v1/models/iris:predict"),
        InferEndpoint(LIMITS),
    ],
    ids=lambda endpoint: endpoint.name,
)
def test_a_refusal_is_a_whole_reply_in_the_words_of_its_dialect(runtime, endpoint):
    telemetry = Telemetry()
    refusals = Refusals(runtime, telemetry)
    for given, named in [(b"mine", b"mine"), (b"no\nname", None), (None, None)]:
        head, _, body = refusals.refuse(endpoint, "iris", 2.3, given, "date: now\r\n").partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines)
        assert status == b"HTTP/1.1 429 Too Many Requests"
        assert (headers[b"retry-after"], headers[b"date"]) == (b"3", b"now")
        assert int(headers[b"content-length"]) == len(body)
        assert headers[b"x-request-id"] == (named or headers[b"x-request-id"]) != b""
        assert "refused unread" in json.dumps(json.loads(body))
    told = telemetry.render().decode()
    assert 'layertap_rejected_total{reason="queue_full"} 3.0' in told
    assert f'layertap_requests_total{{code="429",model="iris",route="{endpoint.name}"}} 3.0' in told
