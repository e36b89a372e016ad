"""Who waits for the threads that read bodies, and how long; on a real loop, the threads held at a gate."""

import asyncio
import math
import threading
import time

import pytest

from service.drivers.decoding import DecodingPool, Task
from service.errors import DeadlineExceeded, QueueFull

READ_S = 0.001
WITHIN_S = 30.0


def task(size=1000, owner="m", deadline=math.inf):
    return Task("jpeg", owner, size, deadline)


def in_a_pool(body, threads=1, most=100):
    async def run():
        pool = DecodingPool(threads, most)
        try:
            return await asyncio.wait_for(body(pool), WITHIN_S)
        finally:
            pool.close()

    return asyncio.run(run())


async def learn(pool):
    """Reads bodies until their cost is known."""
    for _ in range(20):
        assert pool.ahead(task()) == (0.0, 0.0)  # nobody is here, so it is read at once
        await pool.run(task(), time.sleep, READ_S)


async def hold(pool, gate, *tasks):
    """Bodies whose reading waits for the gate."""
    held = [asyncio.ensure_future(pool.run(each, gate.wait, WITHIN_S)) for each in tasks]
    await asyncio.sleep(0)
    return held


def test_what_is_ahead_grows_with_what_waits_and_is_told_by_owner():
    async def body(pool):
        await learn(pool)
        gate = threading.Event()
        held = await hold(pool, gate, task(), task(), task(owner="other"))
        found = [
            pool.ahead(each) for each in (task(), task(owner="other"), task(owner="new"), task(size=2000))
        ]
        gate.set()
        assert await asyncio.gather(*held) == [True] * 3
        assert pool.ahead(task()) == (0.0, 0.0)
        return found

    (all_s, own_s), (_, other_s), (_, new_s), (larger_s, _) = in_a_pool(body)
    assert (
        all_s > 0
    )  # the three that wait, and its own; how many seconds is what this machine made of the sleeps
    assert own_s == pytest.approx(all_s * 3 / 4)
    assert other_s == pytest.approx(all_s * 2 / 4)
    assert new_s == pytest.approx(all_s * 1 / 4)
    assert larger_s == pytest.approx(all_s * 5 / 4)


def test_what_nobody_has_measured_is_not_guessed():
    async def body(pool):
        gate = threading.Event()
        held = await hold(pool, gate, task(), task())
        found = pool.ahead(task())
        gate.set()
        await asyncio.gather(*held)
        return found

    assert in_a_pool(body) == (0.0, 0.0)


def test_a_body_whose_time_is_over_is_not_read():
    async def body(pool):
        read = []
        with pytest.raises(DeadlineExceeded):
            await pool.run(task(deadline=time.monotonic()), read.append, 1)
        await pool.run(task(), read.append, 2)
        return read

    assert in_a_pool(body) == [2]


def test_too_many_bodies_are_refused_with_the_time_that_those_before_take():
    async def body(pool):
        await learn(pool)
        gate = threading.Event()
        held = await hold(pool, gate, task(size=4_000_000), task())  # the first is 4000 times as long
        with pytest.raises(QueueFull) as caught:
            await pool.run(task(), gate.wait)
        ahead_s, _ = pool.ahead(task())
        gate.set()
        await asyncio.gather(*held)
        return caught.value.retry_after_s, ahead_s

    retry_after_s, ahead_s = in_a_pool(body, most=2)
    assert retry_after_s == min(60, math.ceil(round(ahead_s, 3))) >= 4


def test_what_a_reader_raises_is_its_own_and_leaves_nothing_behind():
    async def body(pool):
        await learn(pool)
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                await pool.run(task(), lambda: 1 / 0)
        return pool.ahead(task())

    assert in_a_pool(body) == (0.0, 0.0)
