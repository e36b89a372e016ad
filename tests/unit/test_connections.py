"""How long a connection may take for what, on a clock that is moved by hand."""

import logging
from dataclasses import replace

import pytest
from drivers import CONNECTION_LIMITS
from prometheus_client import CollectorRegistry

from service.drivers.connections import Connections, Phase, Watch
from service.drivers.limits import limits_of
from service.errors import MemoryFull, RequestTimedOut, TooManyConnections
from service.memory import Memory
from service.settings import Settings
from service.telemetry import Metrics

LIMITS = replace(
    CONNECTION_LIMITS,
    keep_alive_s=75.0,
    header_timeout_s=10.0,
    body_timeout_s=20.0,
    send_timeout_s=30.0,
    linger_timeout_s=5.0,
    min_rate_bytes_s=100,
    max_connections=8,
)


class Clock:
    """A loop that only has a clock and one timer."""

    def __init__(self):
        self.now = 1000.0
        self.timer = None

    def time(self):
        return self.now

    def call_later(self, seconds, call):
        self.timer = (self.now + seconds, call)
        return self

    def cancel(self):
        self.timer = None

    def pass_by(self, seconds, meanwhile=lambda: None):
        """Lets the time pass, in steps of the timer; `meanwhile` is called at each."""
        end = self.now + seconds
        while self.timer is not None and self.timer[0] <= end:
            self.now, call = self.timer
            self.timer = None
            meanwhile()
            call()
        self.now = end


class Line:
    """A connection; `over` says how it ended."""

    def __init__(self, phase):
        self.phase = phase
        self.watch = Watch()
        self.since = None
        self.bytes = 0
        self.over = None
        self.transport = self

    def moved(self, _):
        return self.bytes

    def move(self, size):
        self.bytes += size

    def refuse(self, error):
        self.over = error

    def close(self):
        self.over = "closed"

    def abort(self):
        self.over = "cut off"

    def is_closing(self):
        return self.over is not None


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def connections():
    return Connections(LIMITS, Metrics(CollectorRegistry()), Memory())


def come(connections, clock, *phases):
    lines = [Line(phase) for phase in phases]
    for line in lines:
        connections.opened(line, clock)
    return lines


@pytest.mark.parametrize(
    ("phase", "limit_s", "over"),
    [
        (Phase.NEW, LIMITS.header_timeout_s, "closed"),
        (Phase.IDLE, LIMITS.keep_alive_s, "closed"),
        (Phase.HEAD, LIMITS.header_timeout_s, RequestTimedOut),
        (Phase.BODY, LIMITS.body_timeout_s, RequestTimedOut),
        (Phase.SENDING, LIMITS.send_timeout_s, "cut off"),
        (Phase.LINGERING, LIMITS.linger_timeout_s, "cut off"),
    ],
    ids=lambda value: getattr(value, "value", ""),
)
def test_each_phase_has_its_time(clock, connections, phase, limit_s, over):
    (line,) = come(connections, clock, phase)
    clock.pass_by(limit_s - 0.5)
    assert line.over is None
    clock.pass_by(3)
    assert line.over == over or isinstance(line.over, over)
    assert connections._metrics.connections_closed.labels(phase.value)._value.get() >= 1


def test_who_waits_for_us_has_all_the_time(clock, connections):
    (line,) = come(connections, clock, Phase.ANSWERING)
    clock.pass_by(10_000)
    assert line.over is None


@pytest.mark.parametrize("phase", [Phase.BODY, Phase.SENDING], ids=["body", "reply"])
def test_bytes_buy_time_but_not_at_less_than_the_least_rate(clock, connections, phase):
    steady, slow, stopped = come(connections, clock, phase, phase, phase)
    stopped.move(1_000_000)

    def move():
        steady.move(150)  # a step takes a second
        slow.move(50)

    clock.pass_by(LIMITS.body_timeout_s + 2, move)
    assert (steady.over, slow.over) == (None, None)
    clock.pass_by(100, move)
    assert steady.over is None
    assert slow.over is not None
    assert stopped.over is not None


def test_a_head_gets_no_more_time_for_its_bytes(clock, connections):
    (line,) = come(connections, clock, Phase.HEAD)
    clock.pass_by(LIMITS.header_timeout_s + 2, lambda: line.move(10_000))
    assert isinstance(line.over, RequestTimedOut)


def test_time_begins_anew_with_each_phase_and_each_request(clock, connections):
    (line,) = come(connections, clock, Phase.IDLE)

    def go_on():
        line.since = None  # as a request does that begins and ends between two looks

    clock.pass_by(200, go_on)
    assert line.over is None
    phases = [Phase.HEAD, Phase.BODY, Phase.ANSWERING, Phase.SENDING, Phase.IDLE] * 10
    for phase in phases:
        line.phase = phase
        clock.pass_by(8)
        assert line.over is None


def test_where_connections_are_short_idle_ones_get_less_time(clock, connections):
    lines = come(connections, clock, *[Phase.IDLE] * 3, *[Phase.ANSWERING] * 4)
    clock.pass_by(8)
    assert [line.over for line in lines] == ["closed"] * 3 + [None] * 4


def test_the_longest_idle_goes_first_then_the_longest_unfinished(clock, caplog):
    connections = Connections(
        replace(LIMITS, max_connections=4, keep_alive_s=1000), Metrics(CollectorRegistry()), Memory()
    )
    gone = []
    lines = []
    for phase in (Phase.SENDING, Phase.IDLE, Phase.BODY, Phase.IDLE):
        lines += come(connections, clock, phase)
        clock.pass_by(1)
    with caplog.at_level(logging.WARNING, "layertap.connections"):
        for _ in range(4):
            come(connections, clock, Phase.ANSWERING)
            gone += [line for line in lines if line.over == "cut off" and line not in gone]
    assert [line.phase for line in gone] == [Phase.IDLE, Phase.IDLE, Phase.SENDING, Phase.BODY]
    assert gone[0] is lines[1]
    assert connections._metrics.connections_closed.labels("too_many")._value.get() == 4
    assert caplog.text.count("connections are short") == 1
    (newcomer,) = come(connections, clock, Phase.NEW)
    assert isinstance(newcomer.over, TooManyConnections)
    assert newcomer.over.retry_after_s >= 1


@pytest.mark.parametrize(
    ("order", "survivor"), [((Phase.LINGERING, Phase.IDLE), 1), ((Phase.BODY, Phase.IDLE), 0), ((Phase.HEAD, Phase.NEW), 0)]
)  # fmt: skip
def test_what_can_be_spared_goes_before_what_can_less(clock, order, survivor):
    connections = Connections(replace(LIMITS, max_connections=2), Metrics(CollectorRegistry()), Memory())
    lines = come(connections, clock, *order)
    clock.pass_by(0.5)
    come(connections, clock, Phase.NEW)
    assert [line.over for line in lines].index(None) == survivor


def test_one_that_was_put_in_order_and_has_gone_on_stays(clock):
    connections = Connections(replace(LIMITS, max_connections=2), Metrics(CollectorRegistry()), Memory())
    first, second = come(connections, clock, Phase.IDLE, Phase.IDLE)
    clock.pass_by(2)
    assert connections.make_room("too_many")
    assert first.over == "cut off"
    second.since, second.phase = None, Phase.ANSWERING
    assert not connections.make_room("too_many")
    assert second.over is None


def test_a_server_that_stops_waits_for_nobody_who_does_not_go_on(clock, connections):
    phases = [Phase.IDLE, Phase.NEW, Phase.HEAD, Phase.BODY, Phase.SENDING, Phase.LINGERING, Phase.ANSWERING]
    idle, new, head, body, sending, lingering, answering = come(connections, clock, *phases)
    trickling = come(connections, clock, Phase.BODY)[0]
    clock.pass_by(1)
    connections.drain(clock)
    assert idle.over is None  # what was just sent is still to be read
    clock.pass_by(0.2)
    assert idle.over == "closed"
    clock.pass_by(1.2, lambda: trickling.move(1000))
    assert all(line.over is not None for line in (new, head, body, lingering))
    assert (trickling.over, sending.over) == (None, None)
    clock.pass_by(LIMITS.body_timeout_s, lambda: (trickling.move(10_000), sending.move(10_000)))
    assert trickling.over is not None
    assert sending.over is None
    clock.pass_by(LIMITS.send_timeout_s, lambda: sending.move(10_000))
    assert sending.over == "cut off"
    assert answering.over is None


def test_where_nobody_comes_any_more_who_was_just_busy_stays_for_a_moment(clock, connections):
    long_idle, busy = come(connections, clock, Phase.IDLE, Phase.ANSWERING)
    clock.pass_by(5)
    busy.phase, busy.since = Phase.IDLE, None
    connections.drain(clock)
    clock.pass_by(0.5)
    assert (long_idle.over, busy.over) == ("closed", None)
    clock.pass_by(1)
    assert busy.over == "closed"


def test_connections_last_again_once_others_may_come(clock, connections):
    (line,) = come(connections, clock, Phase.ANSWERING)
    connections.drain(clock)
    assert (connections.closing, connections.draining) == (True, True)
    connections.go_on()
    assert (connections.closing, connections.draining) == (False, False)
    line.phase = Phase.IDLE
    clock.pass_by(LIMITS.keep_alive_s - 2)
    assert line.over is None


def test_the_date_goes_with_the_clock_and_nobody_looks_where_nobody_is(clock, connections):
    (line,) = come(connections, clock, Phase.ANSWERING)
    assert connections.date.startswith("date: ")
    assert connections.date.endswith(" GMT\r\n")
    connections.lost(line)
    clock.pass_by(10)
    assert clock.timer is None
    come(connections, clock, Phase.ANSWERING)
    assert clock.timer is not None


def test_connections_are_counted_by_phase(clock, connections):
    come(connections, clock, Phase.IDLE, Phase.IDLE, Phase.BODY)
    clock.pass_by(2)
    counted = {
        phase.value: connections._metrics.connections.labels(phase.value)._value.get() for phase in Phase
    }
    assert counted == {phase.value: 0 for phase in Phase} | {"idle": 2, "body": 1}
    assert connections._metrics.connection_limit._value.get() == LIMITS.max_connections


@pytest.mark.parametrize(
    ("files", "said", "most"),
    [
        (1024, None, 960),
        (128, None, 64),
        (20, None, 16),
        (1_000_000, None, 8192),
        (1_000_000, 50_000, 50_000),
        (1024, 5000, 960),
        (1024, 10, 10),
        (-1, None, 8192),
        (-1, 50_000, 50_000),
    ],
)
def test_how_many_there_may_be_follows_from_the_files_that_may_be_open(
    monkeypatch, caplog, files, said, most
):
    monkeypatch.setattr("resource.getrlimit", lambda _: (files, files))
    assert limits_of(Settings(max_connections=said)).max_connections == most
    assert ("ulimit" in caplog.text) == (said == 5000)


def with_full_memory():
    memory = Memory(100)
    memory.note(100)
    return Connections(LIMITS, Metrics(CollectorRegistry()), memory), memory


def refuse_one(memory):
    with pytest.raises(MemoryFull):
        memory.charge().hold(1, "it")


def test_where_memory_is_short_half_of_the_slow_readers_go_the_slowest_first(clock):
    connections, memory = with_full_memory()
    readers = []
    for _ in range(3):
        readers += come(connections, clock, Phase.SENDING)
        clock.pass_by(1)
    others = come(connections, clock, Phase.IDLE, Phase.ANSWERING, Phase.BODY)
    refuse_one(memory)
    clock.pass_by(1.5, meanwhile=lambda: [each.move(1000) for each in (*readers, *others)])
    assert [reader.over for reader in readers] == ["cut off", "cut off", None]
    assert [other.over for other in others] == [None] * 3


def test_readers_who_have_just_begun_get_a_moment(clock):
    connections, memory = with_full_memory()
    come(connections, clock, Phase.IDLE)
    clock.pass_by(0.5)
    [reader] = come(connections, clock, Phase.SENDING)
    refuse_one(memory)
    clock.pass_by(0.9)
    assert reader.over is None
    clock.pass_by(2, meanwhile=lambda: reader.move(1000))
    assert reader.over == "cut off"


def test_slow_readers_stay_where_memory_is_no_longer_short(clock):
    connections, memory = with_full_memory()
    [reader] = come(connections, clock, Phase.SENDING)
    refuse_one(memory)
    memory.give_back(60)
    clock.pass_by(5, meanwhile=lambda: reader.move(1000))
    assert reader.over is None
    memory.note(60)  # nobody has been refused since
    clock.pass_by(5, meanwhile=lambda: reader.move(1000))
    assert reader.over is None
