"""Owns hot reload: it looks at the models folder again and again, and has what changed loaded or unloaded.

A model is touched once its files look the same twice in a row, so that none is read while it is being copied. One
that was unloaded on request stays so until its files change. Files that do not load are not tried again until they
change.

When all models are gone at once, the folder is: a volume that is not mounted looks like an empty folder, or like the one
below it. So they stay in service until they are there again; whoever means it unloads them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from service.errors import ModelNotFound, NotReady, RepositoryError
from service.footprints import Footprint, entry_footprint
from service.serving.rollout import Scan
from service.serving.runtime import Runtime
from service.threads import start_thread

_log = logging.getLogger("layertap.models")


class Reloader:
    """Keeps a runtime in step with its folder, on a thread of its own or by hand with `look`.

    Args:
        runtime: loads and unloads.
        scan: what lies in the models folder now.
        interval_s: how often to look.
    """

    def __init__(self, runtime: Runtime, scan: Scan, interval_s: float) -> None:
        self._runtime = runtime
        self._scan = scan
        self._interval_s = interval_s
        self._served = self._look_at_folder()  # as far as what was seen has been acted upon
        self._seen = self._served
        self._lost: frozenset[str] = frozenset()  # with all others at once
        self._stopped = threading.Event()

    def start(self) -> threading.Thread:
        """Looks every `interval_s` from now on, until `stop`; returns the thread that does."""
        return start_thread(self._go, "layertap-reloader")

    def stop(self) -> None:
        """Looks no more."""
        self._stopped.set()

    def look(self) -> None:
        """Looks once, and acts on what is different from what is served and the same as at the last look."""
        seen, before = self._look_at_folder(), self._seen
        self._seen = seen
        self._notice_loss(seen)
        for name in sorted({*seen, *self._served} - self._lost):
            now = seen.get(name)
            if now != self._served.get(name) and now == before.get(name):
                self._act(name, now)

    def _notice_loss(self, seen: Mapping[str, Footprint]) -> None:
        """Takes note of models that are gone all at once, and of those that are back."""
        before, all_gone = self._lost, self._served.keys().isdisjoint(seen)
        self._lost = frozenset(self._served) if all_gone else before - seen.keys()
        if back := before & seen.keys():
            _log.info("models are in the folder again: %s", ", ".join(sorted(back)))
        if self._lost - before:
            _log.error(
                "what is served goes on: Expected a models folder with at least one of the models in service. "
                "Received: one without %s.",
                ", ".join(sorted(self._lost)),
            )

    def _act(self, name: str, now: Footprint | None) -> None:
        self._served = {other: mark for other, mark in self._served.items() if other != name}
        if now is not None:
            self._served[name] = now
        try:
            if now is None:
                self._runtime.forget_model(name)
            else:
                self._runtime.load_model(name)
        except ModelNotFound:
            _log.info("model '%s' came and went", name)
        except NotReady as error:  # a file that does not load has told so in the log already
            _log.debug("model '%s': %s", name, error.message)

    def _look_at_folder(self) -> dict[str, Footprint]:
        return {entry.name: entry_footprint(entry) for entry in self._scan()}

    def _go(self) -> None:
        gone = False
        while not self._stopped.wait(self._interval_s):
            try:
                self.look()
                gone = False
            except RepositoryError as error:
                if not gone:
                    _log.error("what is served goes on: %s", error.message)
                gone = True
            except Exception:  # noqa: BLE001 the next look may find it mended
                _log.exception("the models folder could not be looked at; trying again")
