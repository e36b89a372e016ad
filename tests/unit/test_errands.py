"""One thread, one errand after another, and nobody left waiting at the end."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.errors import NotReady, ServiceError
from service.serving.errands import Errands, run_within
from service.threads import Turn, is_given_up

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


def test_an_errand_that_exits_is_answered_and_logged_and_the_next_one_is_done(caplog):
    errands = Errands("test")
    with pytest.raises(ServiceError, match="SystemExit"):
        errands.run(lambda: sys.exit(3))
    assert errands.run(lambda: 4) == 4
    assert "ended with SystemExit" in caplog.text
    errands.stop()


def test_work_within_a_time_gives_what_it_gives():
    assert run_within(lambda: 3, WITHIN_S, "test") == 3
    with pytest.raises(ZeroDivisionError):
        run_within(lambda: 1 / 0, WITHIN_S, "test")
    with pytest.raises(SystemExit):
        run_within(lambda: sys.exit(3), WITHIN_S, "test")
    with pytest.raises(TimeoutError, match="its own"):  # not to be taken for ours
        run_within(_raise(TimeoutError("its own")), WITHIN_S, "test")


def test_work_that_takes_too_long_is_given_up_with_its_turn_and_told_once_it_ends(caplog):
    turn, go_on, entered = Turn(), threading.Event(), []

    def stuck():
        with turn:
            entered.append(is_given_up())
            assert go_on.wait(WITHIN_S)
            entered.append(is_given_up())

    with pytest.raises(TimeoutError):
        run_within(stuck, 0.05, "test-stuck")
    [thread] = [thread for thread in threading.enumerate() if thread.name == "test-stuck"]
    with turn:  # whoever comes next does not wait for it
        assert not is_given_up()
        go_on.set()
        thread.join(WITHIN_S)
        assert entered == [False, True]
        assert "what was given up ended" in caplog.text
        others = threading.Thread(target=turn.__enter__)
        others.start()
        assert others.is_alive()  # what was given up has not let go of a turn that is not its own
    others.join(WITHIN_S)
    assert not others.is_alive()


def _raise(error):
    def work():
        raise error

    return work
