"""Owns gunicorn's master as this service needs it: workers take seconds to get ready, and models may end them.

- A reload (SIGHUP) replaces workers one by one, each once another one is ready. Where the new ones can serve nothing,
  one of them dies before it is ready, or the settings are no good, the old ones stay.
- A worker that ends unasked is replaced, whatever its exit code; only what happens before any model's code runs, or what
  the service itself says, ends the service. Whoever ends again and again is replaced later each time.
- Which version was being loaded when a worker died is written on the board: no worker loads it again.
- SIGINT and SIGQUIT stop as gently as SIGTERM; after that SIGINT or SIGQUIT stops at once.

Source of what is replaced: gunicorn/arbiter.py of gunicorn 27.0.1.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from typing import Any

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]  # it publishes no types
from gunicorn.errors import HaltServer  # type: ignore[import-untyped]

from service.accusations import Accusation, Accusations
from service.board import SLOTS, Board, Stage

_log = logging.getLogger("layertap.service")

_REPEATED_WITHIN_S = 60.0
_LONGEST_PAUSE_S = 16.0
_UNREADY = (Stage.BOOTING, Stage.LOADING, Stage.HOPELESS)


class PatientArbiter(Arbiter):  # type: ignore[misc]  # it publishes no types
    """The master; `adopt` makes one of gunicorn's own."""

    board: Board
    _accusations: Accusations
    _deaths: deque[float]
    _not_before: float
    _outdated: int
    _dismissed: set[int]

    @classmethod
    def adopt(cls, arbiter: Arbiter) -> None:
        """Makes gunicorn's own master, which has no worker yet, one of these: it takes no other class for it."""
        arbiter.__class__ = cls
        arbiter.board = Board(arbiter.cfg.worker_tmp_dir)
        arbiter._accusations = Accusations(arbiter.board)  # noqa: SLF001 our own, as all below
        arbiter._deaths = deque()  # noqa: SLF001
        arbiter._not_before = 0.0  # noqa: SLF001 no worker is started earlier
        arbiter._outdated = 0  # noqa: SLF001 workers of this age, or older, are to be replaced
        arbiter._dismissed = set()  # noqa: SLF001 process ids of workers that were told to go

    # -- signals ------------------------------------------------------------------------------------------

    def handle_int(self) -> None:
        """As SIGTERM."""
        raise StopIteration

    def handle_quit(self) -> None:
        """As SIGTERM."""
        raise StopIteration

    def handle_usr2(self) -> None:
        """A second master beside this one would serve from the same sockets, and end neither requests nor itself."""
        _log.error(
            "SIGUSR2 is refused, and nothing was changed: SIGHUP reads settings and models anew and loses no request; "
            "for new code, start another instance and then stop this one with SIGTERM"
        )

    def stop(self, graceful: bool = True) -> None:
        """Stops the whole service."""
        self.board.stop()
        super().stop(graceful)

    def reload(self) -> None:
        """Reads the settings again and begins to replace the workers; goes on as it was where they are no good."""
        before = self.app.cfg
        try:
            self.app.reload()
        except SystemExit as error:  # so it tells what is wrong with them
            self.app.cfg = before
            _log.error("SIGHUP changes nothing: %s", error)
            return
        if self.app.cfg.address != before.address:
            self.app.cfg = before
            _log.error("SIGHUP changes nothing: Expected the same 'bind' as before. Received: another one.")
            return
        self.setup(self.app)
        self.log.reopen_files()
        self._accusations.clear()
        self.board.forget_unloaded()
        self._outdated = self.worker_age
        _log.info("reloading: each worker goes on until another one is ready in its place")

    # -- workers ------------------------------------------------------------------------------------------

    def manage_workers(self) -> None:
        """Starts workers that are missing, and dismisses those that are too many or replaced."""
        self._go_on_with_reload()
        current = self._staying()
        if len(current) < self.num_workers and time.monotonic() >= self._not_before:
            for _ in range(min(self.num_workers - len(current), SLOTS - len(self.WORKERS))):
                self.spawn_worker()
        for worker in current[: max(0, len(current) - self.num_workers)]:
            self._dismiss(worker)

    def reap_workers(self) -> None:
        """Takes note of workers that have ended.

        Raises:
            HaltServer: none can start.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = self.WORKERS.pop(pid, None)
            if worker is not None:  # as process 1, the master gets other orphans, too
                self._bury(worker, os.waitstatus_to_exitcode(status))

    def _staying(self) -> list[Any]:
        """Workers that are neither dismissed nor to be replaced, the oldest first."""
        return self._by_age(lambda worker: worker.age > self._outdated)

    def _by_age(self, wanted: Any) -> list[Any]:
        kept = [each for each in self.WORKERS.values() if each.pid not in self._dismissed and wanted(each)]
        return sorted(kept, key=lambda worker: worker.age)

    def _go_on_with_reload(self) -> None:
        old, new = self._by_age(lambda worker: worker.age <= self._outdated), self._staying()
        if not old:
            return
        if any(worker.slot.stage is Stage.USELESS for worker in new) and any(map(_is_ready, old)):
            self._give_up_reload("no model could be loaded")
            return
        too_many = len(old) + sum(map(_is_ready, new)) - self.num_workers
        for worker in sorted(old, key=_is_ready)[: max(0, too_many)]:
            self._dismiss(worker)

    def _give_up_reload(self, reason: str) -> None:
        _log.error("the reload is given up, for %s; what is served goes on", reason)
        new = self._staying()
        self._outdated = 0
        for worker in new:
            self._dismiss(worker)

    def _dismiss(self, worker: Any) -> None:
        self._dismissed.add(worker.pid)
        self.kill_worker(worker.pid, signal.SIGTERM)

    def _bury(self, worker: Any, code: int) -> None:
        stage, loading = worker.slot.stage, worker.slot.noted() or []
        worker.slot.stage = Stage.FREE
        worker.tmp.close()
        self.cfg.child_exit(self, worker)
        if worker.pid in self._dismissed or self.board.stopping:
            self._dismissed.discard(worker.pid)
            return
        if stage is Stage.LEAVING and code == 0:  # of its own will, as after --max-requests
            return
        boot_error = stage is Stage.BOOTING and code in (self.WORKER_BOOT_ERROR, self.APP_LOAD_ERROR)
        if (stage is Stage.HOPELESS or boot_error) and not self.board.anybody_ready():
            raise HaltServer("a worker could not start", self.WORKER_BOOT_ERROR)
        how = _ending(code)
        accused = [Accusation(name, version, mark, how) for name, version, mark in loading]
        if stage in _UNREADY and self._is_reload_of_ready_ones(worker):
            # The old ones may serve what this one could not, or have taken the memory that it lacked.
            self.board.count_death()
            self._give_up_reload(f"a new worker ended ({how}){_while_loading(accused)}")
            return
        self._accusations.add(accused)
        self._replace(worker, how, accused)

    def _is_reload_of_ready_ones(self, worker: Any) -> bool:
        return worker.age > self._outdated and any(
            map(_is_ready, self._by_age(lambda other: other.age <= self._outdated))
        )

    def _replace(self, worker: Any, how: str, accused: list[Accusation]) -> None:
        """Has another worker take the place of one that ended unasked, at once or later."""
        self.board.count_death()
        now, pause_s = time.monotonic(), 0.0
        while self._deaths and now - self._deaths[0] > _REPEATED_WITHIN_S:
            self._deaths.popleft()
        if not accused:  # else it cannot happen again
            self._deaths.append(now)
            pause_s = min(2.0 ** (len(self._deaths) - 2), _LONGEST_PAUSE_S) if len(self._deaths) > 1 else 0.0
        self._not_before = max(self._not_before, now + pause_s)
        _log.critical(
            "worker %d ended unasked (%s)%s; another one takes its place%s",
            worker.pid,
            how,
            f"{_while_loading(accused)}, which is not loaded again" if accused else "",
            f" in {pause_s:g} s, for it is number {len(self._deaths)} within a minute" if pause_s else "",
        )


def _is_ready(worker: Any) -> bool:
    return bool(worker.slot.stage is Stage.READY)


def _while_loading(accused: list[Accusation]) -> str:
    loaded = ", ".join(f"'{each.name}' version {each.version}" for each in accused)
    return f" while it loaded {loaded}" if loaded else ""


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"{name}, perhaps for want of memory" if -code == signal.SIGKILL else name
