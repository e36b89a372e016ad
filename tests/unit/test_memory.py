"""The one budget in bytes: who is refused, what is given back, and who pays for what a thread does."""

import contextlib
import threading

import pytest

from service.errors import BodyTooLarge, GrowthTooLarge, MemoryFull
from service.memory import FREE_BYTES, GROWTH, Memory, memory_for_requests, paid, paid_by, pay, usable_bytes

MIB = 2**20
LIMIT = 1000


@pytest.fixture
def memory():
    return Memory(LIMIT)


def test_what_fits_is_held_until_it_is_released(memory):
    first, second = memory.charge(), memory.charge()
    first.receive(500)
    second.hold(500, "a reply")
    assert (memory.held, memory.peak, first.held, first.sent) == (1000, 1000, 500, 500)
    first.release()
    first.release()
    assert (memory.held, memory.peak) == (500, 1000)


def test_one_more_is_refused_and_those_before_keep_theirs(memory):
    first, second = memory.charge(), memory.charge()
    first.hold(600, "its body")
    with pytest.raises(
        MemoryFull, match=r"at most 1000 bytes .*max_memory_bytes.* needs 401 for a reply"
    ) as caught:
        second.hold(401, "a reply")
    assert caught.value.details["retry_after_s"] == 1
    assert (memory.held, second.held, memory.refusals) == (600, 0, 1)


def test_what_could_never_fit_is_too_large(memory):
    with pytest.raises(BodyTooLarge, match=r"at most 1000 .* needs 1001 for its reply"):
        memory.charge().hold(1001, "its reply")
    with pytest.raises(
        BodyTooLarge, match=r"at most 500 bytes of memory \(half of max.* needs 501 for its body"
    ):
        memory.charge().receive(501)


def test_half_is_kept_for_what_becomes_of_bodies(memory):
    bodies = [memory.charge() for _ in range(3)]
    for body in bodies[:2]:
        body.receive(250)
    with pytest.raises(MemoryFull, match="half of max_memory_bytes"):
        bodies[2].receive(1)
    bodies[0].hold(500, "its values")


def test_every_refusal_is_told():
    told = []
    memory = Memory(1, lambda: told.append(1))
    for size in (1, 2, 1):
        with contextlib.suppress(MemoryFull, BodyTooLarge):
            memory.charge().hold(size, "it")
    assert told == [1, 1]


def test_what_is_there_already_counts_though_it_does_not_fit(memory):
    memory.note(1500)
    with pytest.raises(MemoryFull):
        memory.charge().hold(1, "a byte")
    memory.give_back(1500)
    memory.charge().hold(1000, "all")


def test_what_a_request_no_longer_needs_is_given_back(memory):
    charge = memory.charge()
    charge.hold(900, "its body")
    charge.keep(100)
    charge.keep(200)  # less than that is held: nothing to give back
    assert (charge.held, memory.held) == (100, 100)


def test_a_request_that_is_over_holds_nothing_more(memory):
    charge = memory.charge()
    charge.release()
    charge.hold(500, "an array")
    charge.keep(0)
    assert memory.held == 0


def test_growth_is_bounded_by_what_was_sent():
    memory = Memory()
    charge = memory.charge()
    charge.receive(MIB)
    with paid_by(charge):
        pay(FREE_BYTES + (GROWTH - 1) * MIB, "a picture")
        with pytest.raises(GrowthTooLarge, match=r"at most 64 bytes .* 1 of them for one more"):
            pay(1, "one more")
    charge.hold(MIB, "its reply")  # is no growth of its body
    assert memory.held == FREE_BYTES + GROWTH * MIB + MIB


def test_nobody_pays_where_nobody_was_named(memory):
    pay(10**9, "anything")
    with paid(10**9, "anything"), paid_by(None):
        pay(10**9, "anything")
    assert memory.held == 0


def test_what_is_used_for_a_while_is_given_back_though_it_fails(memory):
    charge = memory.charge()
    with paid_by(charge):
        with contextlib.suppress(ZeroDivisionError), paid(500, "a list"):
            pay(100, "what stays")
            assert memory.held == 600
            raise ZeroDivisionError
        assert memory.held == charge.held == 100


def test_each_thread_pays_for_its_own(memory):
    one, other = memory.charge(), memory.charge()
    begun, go_on = threading.Event(), threading.Event()

    def work():
        with paid_by(other):
            begun.set()
            go_on.wait(30)
            pay(2, "it")

    thread = threading.Thread(target=work)
    with paid_by(one):
        thread.start()
        assert begun.wait(30)
        pay(1, "it")
        go_on.set()
        thread.join(30)
    assert (one.held, other.held) == (1, 2)


def test_threads_never_lose_count():
    memory = Memory(10**9)

    def work():
        for _ in range(2000):
            charge = memory.charge()
            charge.hold(7, "it")
            charge.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory.held == 0


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "max\n"}, None),
        ({"memory.max": "536870912\n"}, 512 * MIB),
        ({"pods/memory.max": "268435456\n", "pods/one/memory.max": "max\n"}, 256 * MIB),
        ({"memory/memory.limit_in_bytes": "134217728\n"}, 128 * MIB),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),  # version 1 has no word for none
        ({"memory.max": "?\n"}, None),
    ],
)
def test_a_container_says_how_much_memory_there_is(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    membership = tmp_path / "membership"
    membership.write_text("0::/pods/one\n")
    everything = usable_bytes(tmp_path / "none", tmp_path / "none")
    assert usable_bytes(tmp_path, membership) == (everything if expected is None else expected)


def test_workers_share_what_there_is():
    assert memory_for_requests(1000, 4) == 250
    assert memory_for_requests(None, 2) == memory_for_requests(None, 1) // 2
    assert memory_for_requests(3, 8) == 1
