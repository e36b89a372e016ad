"""Owns one model's compiled functions: warm ones for good, others in a bounded cache, compiled on demand.

A request for a set of outputs that was not warmed opens a closed lane: its jobs wait in the scheduler while
the compiler thread makes the function, and nobody else waits with them.

All of them are one family: its jobs share batches where that is quicker (`service.scheduling.families`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor

from service.engines import Engine
from service.errors import InferenceFailed, ModelUnloaded, NotReady, RequestError
from service.scheduling.families import LaneFamily
from service.scheduling.scheduler import Lane, Scheduler

_log = logging.getLogger("layertap.lanes")


class LaneCache:
    """The lanes of one version of one model, by the set of outputs they compute.

    Args:
        label: model and version, for logs and reports.
        engine: compiles the functions.
        scheduler: opens and fails the lanes.
        compiler: runs compilations, off the engine thread.
        max_batch_size: rows of the largest batch.
        max_compiled: how many functions are kept besides the warm ones.
    """

    def __init__(
        self,
        label: tuple[str, int],
        engine: Engine,
        scheduler: Scheduler,
        compiler: Executor,
        *,
        max_batch_size: int,
        max_compiled: int,
    ) -> None:
        self._label = label
        self._name = f"{label[0]}/{label[1]}"
        self._engine: Engine | None = engine
        self._scheduler = scheduler
        self._compiler = compiler
        self._max_batch_size = max_batch_size
        self._max_compiled = max_compiled
        self._warm: dict[tuple[str, ...], Lane] = {}
        self._cold: OrderedDict[tuple[str, ...], Lane] = OrderedDict()
        self._lock = threading.Lock()
        self._family = LaneFamily(self._ask)

    def warm(self, outputs: tuple[str, ...]) -> None:
        """Compiles a function now and keeps it for good.

        Raises:
            LoadError: it cannot be compiled.
        """
        function = self._open_engine().compile(outputs)
        self._warm[outputs] = self._new_lane(outputs)
        self._scheduler.open(self._warm[outputs], function.run)

    def lane(self, outputs: tuple[str, ...]) -> Lane:
        """The lane for a set of outputs; a closed one, being compiled, where there was none.

        Raises:
            NotReady: the model was closed, or the service drains.
        """
        lane = self._warm.get(outputs)
        if lane is not None:
            return lane
        with self._lock:
            engine = self._open_engine()
            lane = self._cold.get(outputs)
            if lane is not None:
                self._cold.move_to_end(outputs)
                return lane
            lane = self._cold[outputs] = self._new_lane(outputs)
            if len(self._cold) > self._max_compiled:
                _, dropped = self._cold.popitem(last=False)  # jobs that wait in it keep it alive
                self._family.leave(dropped)
        try:
            self._compiler.submit(self._compile, engine, outputs, lane)
        except RuntimeError as error:  # shut down: the service drains
            raise NotReady("The service is draining; send the request to another instance.") from error
        return lane

    def known(self, outputs: tuple[str, ...]) -> Lane | None:
        """The lane for a set of outputs, if there is one."""
        return self._warm.get(outputs) or self._cold.get(outputs)

    @property
    def compiled(self) -> list[tuple[str, ...]]:
        """The sets of outputs that have a function or are getting one."""
        with self._lock:
            return [*self._warm, *self._cold]

    @property
    def lanes(self) -> list[Lane]:
        """Every lane that may get new jobs."""
        with self._lock:
            return [*self._warm.values(), *self._cold.values()]

    def close(self) -> Callable[[], object | None]:
        """Lets go of the engine and its functions; jobs in a lane keep what they need until they are done.

        Returns:
            What gives `None` once nobody uses the engine any more.
        """
        with self._lock:
            left = weakref.ref(self._open_engine())
            self._engine = None
            self._warm = {}
            self._cold.clear()
            self._family.close()
            return left

    def _open_engine(self) -> Engine:
        if self._engine is None:
            raise ModelUnloaded(
                f"Expected a model that is served. Received: {self._name}, which was let go of."
            )
        return self._engine

    def _new_lane(self, outputs: tuple[str, ...]) -> Lane:
        lane = Lane(
            f"{self._name}:{','.join(outputs)}",
            max_batch_size=self._max_batch_size,
            label=self._label,
            outputs=outputs,
            family=self._family,
        )
        self._family.join(lane)
        return lane

    def _ask(self, wanted: frozenset[str]) -> None:
        """On the engine thread: a function of all of these is worth having."""
        with contextlib.suppress(RuntimeError):  # shut down: the service drains
            self._compiler.submit(self._unite, wanted)

    def _unite(self, wanted: frozenset[str]) -> None:
        """Makes a lane for several lanes' outputs, unless that would cost another one its place."""
        with contextlib.suppress(NotReady):
            engine = self._open_engine()
            if len(self._cold) < self._max_compiled:
                self.lane(tuple(layer.path for layer in engine.spec.layers if layer.path in wanted))

    def _compile(self, engine: Engine, outputs: tuple[str, ...], lane: Lane) -> None:
        try:
            function = engine.compile(outputs)
        except BaseException as error:  # noqa: BLE001 whatever the engine raises belongs to the jobs that wait
            _log.exception("%s: compiling %s failed", self._name, ",".join(outputs))
            with self._lock:
                if self._cold.get(outputs) is lane:
                    del self._cold[outputs]
                    self._family.leave(lane)
            failure = error if isinstance(error, RequestError) else InferenceFailed(f"{error}")
            self._scheduler.fail(lane, failure)
        else:
            self._scheduler.open(lane, function.run)
