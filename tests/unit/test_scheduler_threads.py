"""The scheduler under hundreds of real threads: each client checks that the answer is its own."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scheduling import BAD, DEADLY, FOREVER, Model

from service.errors import DeadlineExceeded, EngineStopped, InferenceFailed, NotReady, QueueFull
from service.scheduling.scheduler import Job, Lane, Scheduler

CLIENTS = 300
PATIENCE_S = 60.0  # nothing here takes seconds; a test that hangs says so instead


class Ticket:
    """One request of one client, and how often it was answered."""

    def __init__(self, values, deadline=FOREVER):
        self.rows = np.array(values, np.float64).reshape(-1, 1)
        self.answered = threading.Event()
        self.calls = 0
        self.cancelled = False
        self.job = Job({"x": self.rows}, len(self.rows), deadline, self.done)

    def done(self, job):
        assert job is self.job
        self.calls += 1
        self.answered.set()

    def wait(self):
        assert self.answered.wait(PATIENCE_S), "a job was never finished"
        return self.job

    def has_its_own_answer(self):
        return self.job.error is None and np.array_equal(self.job.outputs["y"], self.rows * 2)


class Gate:
    """A model that stops inside its first batch until it is let go."""

    def __init__(self):
        self.model = Model()
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, batch):
        self.entered.set()
        assert self.opened.wait(PATIENCE_S)
        return self.model(batch)


@pytest.fixture
def scheduler():
    scheduler = Scheduler(max_queue_rows=100_000)
    scheduler.start()
    yield scheduler
    scheduler.stop(drain=False)


def all_at_once(client, clients=CLIENTS):
    """Runs `client(number)` in as many threads, from one starting shot; raises what any of them raised."""
    barrier = threading.Barrier(clients)

    def begin(number):
        barrier.wait(PATIENCE_S)
        return client(number)

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(begin, range(clients)))


def test_hundreds_of_clients_each_get_their_own_answer(scheduler):
    lanes = [Lane(f"m{i}", max_batch_size=size, run=Model()) for i, size in enumerate([1, 7, 32])]
    cold = Lane("cold", max_batch_size=8)
    tickets = []

    def client(number):
        rng = np.random.default_rng(number)
        for turn in range(12):
            first = float(1000 * (100 * number + turn))
            values = [first + i for i in range(int(rng.choice([1, 1, 1, 2, 5, 40])))]
            bad = rng.random() < 0.03
            if bad:
                values[-1] = BAD
            ticket = Ticket(values)
            tickets.append(ticket)
            scheduler.submit(cold if turn == 5 else lanes[rng.integers(3)], ticket.job)
            if turn == 5 and number == 0:
                scheduler.open(cold, Model())
            if rng.random() < 0.2:
                ticket.cancelled = scheduler.cancel(ticket.job)
                if ticket.cancelled:
                    continue
            job = ticket.wait()
            assert isinstance(job.error, InferenceFailed) if bad else ticket.has_its_own_answer()

    all_at_once(client)
    assert scheduler.alive
    scheduler.stop(drain=True)
    assert scheduler.waiting_rows == 0
    assert len(tickets) == CLIENTS * 12
    assert all(ticket.calls == (not ticket.cancelled) for ticket in tickets)


def test_a_cancel_that_races_with_the_answer_ends_the_job_once(scheduler):
    lane = Lane("m", max_batch_size=4, run=Model())

    def client(number):
        for turn in range(10):
            ticket = Ticket([float(number), float(turn)])
            error = DeadlineExceeded("late")
            scheduler.submit(lane, ticket.job)
            cancelled = scheduler.cancel(ticket.job, error)
            ticket.wait()
            assert ticket.calls == 1
            assert (ticket.job.error is error) is cancelled
            assert cancelled or ticket.has_its_own_answer()

    all_at_once(client)


def test_two_who_cancel_the_same_job_agree_on_one(scheduler):
    cold = Lane("cold", max_batch_size=4)
    ticket = Ticket([1.0])
    scheduler.submit(cold, ticket.job)
    won = all_at_once(lambda _: scheduler.cancel(ticket.job, DeadlineExceeded("late")), clients=50)
    assert sum(won) == 1
    assert ticket.calls == 1


def test_the_next_batch_forms_while_one_runs(scheduler):
    gate = Gate()
    lane = Lane("m", max_batch_size=32, run=gate)
    tickets = [Ticket([float(i)]) for i in range(20)]
    scheduler.submit(lane, tickets[0].job)
    assert gate.entered.wait(PATIENCE_S)
    assert scheduler.waiting_rows == 0
    for ticket in tickets[1:]:
        scheduler.submit(lane, ticket.job)
    assert scheduler.waiting_rows == 19
    gate.opened.set()
    for ticket in tickets:
        ticket.wait()
        assert ticket.has_its_own_answer()
    assert [len(batch) for batch in gate.model.batches] == [1, 19]


def test_an_idle_engine_wakes_for_every_job_and_for_a_lane_that_opens(scheduler):
    lane = Lane("m", max_batch_size=4, run=Model())
    for i in range(500):
        ticket = Ticket([float(i)])
        scheduler.submit(lane, ticket.job)
        ticket.wait()
        assert ticket.has_its_own_answer()
    cold, ticket = Lane("cold", max_batch_size=4), Ticket([7.0])
    scheduler.submit(cold, ticket.job)
    scheduler.open(cold, Model())
    ticket.wait()
    assert ticket.has_its_own_answer()


def test_a_batch_that_fills_up_wakes_an_engine_that_waits_for_company():
    asleep = threading.Event()

    def clock():
        # The engine reads the clock with the lock held only on its way to sleep.
        if threading.current_thread().name == "layertap-engine" and scheduler._lock.locked():
            asleep.set()
        return time.monotonic()

    scheduler = Scheduler(max_queue_rows=1000, max_batch_delay_s=10 * PATIENCE_S, clock=clock)
    model = Model()
    lane = Lane("m", max_batch_size=4, run=model)
    tickets = [Ticket([float(i)]) for i in range(4)]
    scheduler.submit(lane, tickets[0].job)
    scheduler.start()
    assert asleep.wait(PATIENCE_S)
    for ticket in tickets[1:]:
        scheduler.submit(lane, ticket.job)
    for ticket in tickets:
        ticket.wait()
    assert model.batches == [[0, 1, 2, 3]]
    scheduler.stop(drain=True)


def test_a_batch_that_is_old_enough_leaves_by_itself():
    scheduler = Scheduler(max_queue_rows=1000, max_batch_delay_s=0.01)
    scheduler.start()
    lane = Lane("m", max_batch_size=4, run=Model())
    for i in range(3):
        ticket = Ticket([float(i)])
        scheduler.submit(lane, ticket.job)
        ticket.wait()
        assert ticket.has_its_own_answer()
    scheduler.stop(drain=True)


def test_a_late_job_is_told_by_the_engine(scheduler):
    ticket = Ticket([1.0], deadline=0.0)
    scheduler.submit(Lane("m", max_batch_size=4, run=Model()), ticket.job)
    assert isinstance(ticket.wait().error, DeadlineExceeded)


def test_when_the_engine_dies_under_load_every_client_is_told():
    causes = []
    scheduler = Scheduler(max_queue_rows=100_000, on_death=causes.append)
    scheduler.start()
    lanes = [Lane(f"m{i}", max_batch_size=4, run=Model()) for i in range(3)]
    cold = Lane("cold", max_batch_size=4)

    def client(number):
        for turn in range(20):
            ticket = Ticket([DEADLY if (number, turn) == (7, 5) else float(number)])
            try:
                scheduler.submit(cold if turn % 7 == 6 else lanes[turn % 3], ticket.job)
            except EngineStopped:
                return "refused"
            error = ticket.wait().error
            assert ticket.calls == 1
            if error is not None:
                assert isinstance(error, EngineStopped)
                return "answered"
            assert ticket.has_its_own_answer()
        return "unharmed"

    ends = all_at_once(client)
    assert ends[7] == "answered"
    assert "unharmed" not in ends
    assert not scheduler.alive
    assert [type(cause) for cause in causes] == [SystemExit]
    assert scheduler.waiting_rows == 0
    scheduler.stop(drain=True)


@pytest.mark.parametrize("drain", [True, False])
def test_stop_under_load_answers_everybody_and_drain_loses_nobody(drain):
    scheduler = Scheduler(max_queue_rows=100_000)
    scheduler.start()
    lane = Lane("m", max_batch_size=4, run=Model())
    under_way = threading.Event()

    def client(number):
        if number == 0:
            assert under_way.wait(PATIENCE_S)
            scheduler.stop(drain=drain)
            return
        while True:
            ticket = Ticket([float(number)] * (number % 9 + 1))
            try:
                scheduler.submit(lane, ticket.job)
            except NotReady:
                return
            under_way.set()
            ticket.wait()
            assert ticket.calls == 1
            if not ticket.has_its_own_answer():
                assert not drain
                assert isinstance(ticket.job.error, NotReady)

    all_at_once(client, clients=100)
    assert not scheduler.alive
    assert scheduler.waiting_rows == 0


def test_clients_beyond_the_limit_are_refused_while_the_engine_is_busy():
    scheduler = Scheduler(max_queue_rows=50)
    scheduler.start()
    gate = Gate()
    lane = Lane("m", max_batch_size=8, run=gate)
    running = Ticket([0.0])
    scheduler.submit(lane, running.job)
    assert gate.entered.wait(PATIENCE_S)

    def client(number):
        ticket = Ticket([float(number)])
        try:
            scheduler.submit(lane, ticket.job)
        except QueueFull:
            return None
        return ticket

    admitted = [ticket for ticket in all_at_once(client) if ticket is not None]
    assert len(admitted) == 50
    gate.opened.set()
    for ticket in [running, *admitted]:
        ticket.wait()
        assert ticket.has_its_own_answer()
    scheduler.stop(drain=True)


def test_a_callback_may_submit_cancel_and_stop():
    scheduler = Scheduler(max_queue_rows=10)
    scheduler.start()
    lane = Lane("m", max_batch_size=1, run=Model())
    second = Ticket([2.0])
    stopped = threading.Event()

    def submit_another(job):
        assert scheduler.cancel(job) is False
        scheduler.submit(lane, second.job)

    def stop(_):
        scheduler.stop(drain=True)
        stopped.set()

    scheduler.submit(lane, Job({"x": np.ones((1, 1))}, 1, FOREVER, submit_another))
    second.wait()
    assert second.has_its_own_answer()
    scheduler.submit(lane, Job({"x": np.ones((1, 1))}, 1, FOREVER, stop))
    assert stopped.wait(PATIENCE_S)
    scheduler.stop(drain=True)
    assert not scheduler.alive


def test_draining_lanes_waits_for_what_waits_and_what_runs(scheduler):
    gate = Gate()
    lane, other = Lane("m", max_batch_size=1, run=gate), Lane("other", max_batch_size=1, run=Model())
    tickets = [Ticket([float(number)]) for number in range(3)]
    assert scheduler.drain({lane, other}, PATIENCE_S)  # nothing to wait for
    for ticket in tickets:
        scheduler.submit(lane, ticket.job)
    assert gate.entered.wait(PATIENCE_S)
    assert scheduler.drain({other}, PATIENCE_S)
    assert not scheduler.drain({lane}, 0.0)
    with ThreadPoolExecutor(1) as pool:
        drained = pool.submit(scheduler.drain, {lane}, PATIENCE_S)
        gate.opened.set()
        assert drained.result(PATIENCE_S)
        assert [ticket.calls for ticket in tickets] == [1, 1, 1]


def test_draining_ends_with_the_last_cancel(scheduler):
    cold = Lane("cold", max_batch_size=1)
    ticket = Ticket([1.0])
    scheduler.submit(cold, ticket.job)
    with ThreadPoolExecutor(1) as pool:
        drained = pool.submit(scheduler.drain, {cold}, PATIENCE_S)
        scheduler.cancel(ticket.job)
        assert drained.result(PATIENCE_S)


def test_a_finished_job_holds_no_lane(scheduler):
    lane = Lane("m", max_batch_size=4, run=Model())
    ticket = Ticket([1.0])
    scheduler.submit(lane, ticket.job)
    assert ticket.wait().lane is None


def test_every_listener_is_told_whatever_another_one_raises(caplog):
    def refuse(_):
        raise RuntimeError

    told = [[], []]
    scheduler = Scheduler(max_queue_rows=10, observe=told[0].append)
    scheduler.listen(refuse)
    scheduler.listen(told[1].append)
    scheduler.submit(Lane("m", max_batch_size=4, run=Model()), Ticket([1.0]).job)
    scheduler.step()
    assert len(told[0]) == len(told[1]) == 1
    assert "observer raised" in caplog.text
