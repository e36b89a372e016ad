"""One thread, one errand after another, and nobody left waiting at the end."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.errors import NotReady
from service.serving.errands import Errands

WITHIN_S = 30.0


def test_what_an_errand_returns_or_raises_comes_back():
    errands = Errands("test")
    assert errands.run(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        errands.run(lambda: 1 / 0)
    assert errands.run(lambda: 4) == 4
    errands.stop()


def test_errands_are_done_in_order_on_one_thread():
    errands = Errands("test")
    done = []
    last = [errands.post(lambda n=n: done.append((n, threading.get_ident()))) for n in range(50)][-1]
    last.result(WITHIN_S)
    assert [number for number, _ in done] == list(range(50))
    assert len({thread for _, thread in done}) == 1
    errands.stop()


def test_whoever_waits_when_it_stops_is_let_go_and_what_has_not_begun_never_does():
    errands = Errands("test")
    inside, go_on, ended, never = threading.Event(), threading.Event(), threading.Event(), []

    def slow():
        inside.set()
        assert go_on.wait(WITHIN_S)
        ended.set()

    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(errands.run, slow)
        assert inside.wait(WITHIN_S)
        waiting = errands.post(lambda: never.append(1))
        errands.stop()
        for left in (running, waiting):
            with pytest.raises(NotReady):
                left.result(WITHIN_S)
    go_on.set()
    assert ended.wait(WITHIN_S)  # what had begun is not cut off
    assert never == []
    with pytest.raises(NotReady):
        errands.post(lambda: 1)
