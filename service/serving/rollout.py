"""Owns the changes of what is served: load, replace, unload; one at a time, on one thread, never on a request's.

- What was served goes on until the new one is in its place. Requests that were read for the old one are answered by
  it, for which it stays a while (`linger_s`); then its weights are let go of.
- A load that fails leaves what was served as it was.
- A model that is unloaded takes no new requests, answers those that it has, and is let go of.

Letting go costs a full garbage collection, because what was loaded is frozen out of the ordinary ones: about 0.2 s
in which nothing else runs, for a process with TensorFlow in it (330 thousand objects).
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import threading
from collections.abc import Callable, Iterable, Sequence

from service.errors import ModelLoadFailed, NotReady, RepositoryError
from service.repository import ModelEntry
from service.scheduling.schedulers import Schedulers
from service.serving.errands import Errands
from service.serving.served import ModelStatus, ServedModel, State
from service.serving.shelf import Shelf, load_failed, unknown_model
from service.serving.workshop import Workshop, candidates

_log = logging.getLogger("layertap.models")

_TRIES = 3

Scan = Callable[[], Sequence[ModelEntry]]


class Rollout:
    """Loads and unloads models; every method waits until it is done.

    Args:
        shelf: what is served.
        workshop: makes served models.
        schedulers: have the jobs of a model that is unloaded.
        scan: what lies in the models folder now.
        changed: told about every new status of a model, on the loading thread.
        linger_s: how long a replaced version stays for requests that were read for it.
    """

    def __init__(
        self,
        shelf: Shelf,
        workshop: Workshop,
        schedulers: Schedulers,
        scan: Scan,
        *,
        changed: Callable[[ModelStatus], None],
        linger_s: float,
    ) -> None:
        self._shelf = shelf
        self._workshop = workshop
        self._schedulers = schedulers
        self._scan = scan
        self._changed = changed
        self._linger_s = linger_s
        self._loader = Errands("layertap-models")
        self._timers: set[threading.Timer] = set()
        self._stopping = False

    def load_all(self, entries: Sequence[ModelEntry]) -> None:
        """Loads models, one after the other."""
        self._loader.run(lambda: self._load_all(entries))

    def load(self, name: str) -> ModelStatus:
        """Loads a model, or what is new of it.

        Raises:
            ModelNotFound: it is not in the folder.
            ModelLoadFailed: nothing new could be loaded; what was served still is.
            NotReady: the service drains.
        """
        return self._loader.run(lambda: self._load(name))

    def unload(self, name: str, reason: str) -> ModelStatus:
        """Takes a model out of service once its requests are answered.

        Raises:
            ModelNotFound: there is none of this name.
            NotReady: the service drains.
        """
        return self._loader.run(lambda: self._unload(name, reason))

    def forget(self, name: str) -> None:
        """Takes a model out of service whose files are gone; a name that nobody knows changes nothing."""
        self._loader.run(lambda: self._forget(name))

    def stop(self) -> None:
        """Begins no more changes; whoever waits for one gets NotReady."""
        self._stopping = True
        self._loader.stop()
        for timer in tuple(self._timers):
            timer.cancel()

    # -- on the loading thread ----------------------------------------------------------------------------

    def _load_all(self, entries: Sequence[ModelEntry]) -> None:
        for entry in entries:
            if self._stopping:
                return
            self._publish(self._workshop.load(entry, ModelStatus(entry.name)))
        _settle_memory()

    def _load(self, name: str) -> ModelStatus:
        entry = self._entry(name)
        before = self._shelf.find(name) or ModelStatus(name)
        state = State.READY if before.versions else State.LOADING
        self._publish(dataclasses.replace(before, state=state, moving=candidates(entry), reason=""))
        after = self._workshop.load(entry, before)
        self._publish(after)
        kept = {served.lanes for served in after.versions.values()}
        replaced = [served for served in before.versions.values() if served.lanes not in kept]
        if replaced:
            self._later(lambda: self._let_go(replaced))
        _settle_memory()
        if after.errors and kept <= {served.lanes for served in before.versions.values()}:
            raise load_failed(after)
        return after

    def _entry(self, name: str) -> ModelEntry:
        try:
            entries = {entry.name: entry for entry in self._scan()}
        except RepositoryError as error:
            raise ModelLoadFailed(error.message) from error
        if name not in entries:
            raise unknown_model(name, entries)
        return entries[name]

    def _unload(self, name: str, reason: str) -> ModelStatus:
        before = self._shelf.status(name)
        if before.state is State.UNAVAILABLE:
            return before
        going = tuple(before.versions.values())
        self._publish(ModelStatus(name, State.UNLOADING, moving=tuple(before.versions), reason=reason))
        for served in going:
            served.lanes.scheduler.drain(set(served.lanes.lanes), self._linger_s)
        status = ModelStatus(name, State.UNAVAILABLE, reason=reason)
        self._publish(status)
        if going:
            self._let_go(going)
        return status

    def _forget(self, name: str) -> None:
        if self._shelf.find(name) is not None:
            self._unload(name, "removed")
            self._shelf.remove(name)

    def _publish(self, status: ModelStatus) -> None:
        if self._stopping:
            raise NotReady("The service is draining; send the request to another instance.")
        self._shelf.put(status)
        try:
            self._changed(status)
        except Exception:  # noqa: BLE001 what is served does not depend on who is told of it
            _log.exception("model '%s': a change could not be told", status.name)

    # -- what is no longer served -------------------------------------------------------------------------

    def _let_go(self, models: Iterable[ServedModel]) -> None:
        models = list(models)
        engines = [served.lanes.close() for served in models]
        for served in models:
            self._schedulers.let_go(served.lanes.scheduler)
        self._collect(engines, _TRIES)

    def _collect(self, engines: Sequence[Callable[[], object | None]], tries: int) -> None:
        """Frees what engines held; again later, where one of them still runs or compiles something."""
        gc.unfreeze()
        _settle_memory()
        left = [engine for engine in engines if engine() is not None]
        if left and tries > 1:
            self._later(lambda: self._collect(left, tries - 1))

    def _later(self, work: Callable[[], None]) -> None:
        def now() -> None:
            self._timers.discard(timer)
            with contextlib.suppress(NotReady):
                self._loader.post(work)

        timer = threading.Timer(self._linger_s, now)
        timer.daemon = True
        self._timers.add(timer)
        timer.start()


def _settle_memory() -> None:
    """What is loaded now lives long: the collector never scans it again, until something is let go of."""
    gc.collect()
    gc.freeze()
