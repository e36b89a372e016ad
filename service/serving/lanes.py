"""Owns one model's compiled functions: warm ones for good, others in a bounded cache, compiled on demand.

A request for a set of outputs that was not warmed opens a closed lane: its jobs wait in the scheduler while
the function is made elsewhere (`service.serving.compiling`), and nobody else waits with them. So do jobs whose rows a
function cannot take, in the lane of the function in reserve.

All of them are one family: its jobs share batches where that is quicker (`service.scheduling.families`).
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from service.engines import Engine
from service.errors import (
    InferenceFailed,
    LayertapError,
    ModelLoadFailed,
    ModelUnloaded,
    RequestError,
)
from service.scheduling.families import LaneFamily
from service.scheduling.jobs import Run
from service.scheduling.scheduler import Lane, Scheduler
from service.serving.compiling import Compiler, Making

_log = logging.getLogger("layertap.lanes")


class LaneCache:
    """The lanes of one version of one model, by the set of outputs they compute.

    Args:
        label: model and version, for logs and reports.
        engine: compiles the functions.
        scheduler: opens and fails the lanes.
        compiler: compiles functions, off the engine thread.
        reserves: makes those in reserve, which takes longer.
        max_batch_size: rows of the largest batch.
        max_compiled: how many functions are kept besides the warm ones.
    """

    def __init__(
        self,
        label: tuple[str, int],
        engine: Engine,
        scheduler: Scheduler,
        compiler: Compiler,
        reserves: Compiler,
        *,
        max_batch_size: int,
        max_compiled: int,
    ) -> None:
        self._label = label
        self._name = f"{label[0]}/{label[1]}"
        self._engine: Engine | None = engine
        self._row_bytes = {layer.path: layer.row_bytes or 0 for layer in engine.spec.layers}
        self.scheduler = scheduler
        self._compiler = compiler
        self._reserves = reserves
        self._max_batch_size = max_batch_size
        self._max_compiled = max_compiled
        self._warm: dict[tuple[str, ...], Lane] = {}
        self._cold: OrderedDict[tuple[str, ...], Lane] = OrderedDict()
        self._coming: dict[tuple[str, ...], Lane] = {}  # closed ones
        self._reserve: dict[tuple[str, ...], tuple[Lane, Callable[[], Run]]] = {}
        self._lock = threading.Lock()
        self._family = LaneFamily(self._ask)

    def warm(self, outputs: tuple[str, ...]) -> None:
        """Compiles a function now and keeps it for good.

        Raises:
            LoadError: it cannot be compiled.
        """
        function = self._open_engine().compile(outputs)
        self._warm[outputs] = self._new_lane(outputs)
        self.scheduler.open(self._warm[outputs], function.run)

    def lane(self, outputs: tuple[str, ...]) -> Lane:
        """The lane for a set of outputs; a closed one, being compiled, where there was none.

        Raises:
            NotReady: the model was closed.
            QueueFull: too many of the model's functions wait to be compiled.
        """
        lane = self._warm.get(outputs)
        if lane is not None:
            return lane
        with self._lock:
            self._open_engine()
            lane = self._cold.get(outputs)
            if lane is not None:
                self._cold.move_to_end(outputs)
                return lane
            lane = self._coming.get(outputs)
            if lane is None:
                self._compiler.check(self._label)
                lane = self._coming[outputs] = self._new_lane(outputs)
            return lane

    def want(self, lane: Lane) -> None:
        """Has the function of a closed lane made in which jobs wait; see `service.scheduling.jobs.Maker`."""
        reserve, make = self._reserve.get(lane.outputs, (None, None))
        if reserve is lane and make is not None:
            making = Making(
                partial(self._make_reserve, lane, make),
                partial(_is_wanted, lane),
                partial(self._reserve_unmade, lane),
            )
            self._reserves.post(self._label, lane, making)
            return
        engine = self._engine
        if engine is None:
            self.scheduler.fail(lane, self._closed())
            return
        making = Making(
            partial(self._compile, engine, lane), partial(_is_wanted, lane), partial(self._uncompiled, lane)
        )
        self._compiler.post(self._label, lane, making)

    def reserve(self, lane: Lane, make: Callable[[], Run]) -> Lane:
        """The lane of a function in reserve; see `service.scheduling.jobs.Maker`."""
        with self._lock:
            found = self._reserve.get(lane.outputs)
            if found is None:
                found = self._reserve[lane.outputs] = self._lane_of(lane.outputs), make
            return found[0]

    def known(self, outputs: tuple[str, ...]) -> Lane | None:
        """The lane for a set of outputs, if there is one."""
        return self._warm.get(outputs) or self._cold.get(outputs) or self._coming.get(outputs)

    @property
    def compiled(self) -> list[tuple[str, ...]]:
        """The sets of outputs that have a function or are getting one."""
        with self._lock:
            return [*self._warm, *self._cold, *self._coming]

    @property
    def lanes(self) -> list[Lane]:
        """Every lane that may get new jobs."""
        with self._lock:
            own = (self._warm, self._cold, self._coming)
            reserves = [lane for lane, _ in self._reserve.values()]
            return [*(lane for kind in own for lane in kind.values()), *reserves]

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
            self._coming.clear()
            self._reserve.clear()
            self._family.close()
            return left

    def _open_engine(self) -> Engine:
        if self._engine is None:
            raise self._closed()
        return self._engine

    def _closed(self) -> ModelUnloaded:
        return ModelUnloaded(f"Expected a model that is served. Received: {self._name}, which was let go of.")

    def _new_lane(self, outputs: tuple[str, ...]) -> Lane:
        lane = self._lane_of(outputs, self._family)
        self._family.join(lane)
        return lane

    def _lane_of(self, outputs: tuple[str, ...], family: LaneFamily | None = None) -> Lane:
        return Lane(
            f"{self._name}:{','.join(outputs)}",
            max_batch_size=self._max_batch_size,
            label=self._label,
            outputs=outputs,
            row_bytes=sum(self._row_bytes.get(path, 0) for path in outputs),
            family=family,
            maker=self,
        )

    # -- on the compiler's thread -------------------------------------------------------------------------

    def _ask(self, wanted: frozenset[str]) -> None:
        """On the engine thread: a function of all of these is worth having."""
        self._compiler.post(
            self._label, wanted, Making(partial(self._unite, wanted), lambda: True, lambda _: None)
        )

    def _unite(self, wanted: frozenset[str]) -> None:
        """Makes a lane for several lanes' outputs, unless that would cost another one its place."""
        with self._lock:
            engine = self._engine
            if engine is None or len(self._cold) + len(self._coming) >= self._max_compiled:
                return
            outputs = tuple(layer.path for layer in engine.spec.layers if layer.path in wanted)
            if self.known(outputs) is not None:
                return
            lane = self._coming[outputs] = self._new_lane(outputs)
        self._compile(engine, lane)

    def _compile(self, engine: Engine, lane: Lane) -> None:
        try:
            function = engine.compile(lane.outputs)
        except BaseException as error:  # noqa: BLE001 whatever the engine raises belongs to the jobs that wait
            _log.exception("%s: compiling failed", lane.name)
            self._give_up(lane, error if isinstance(error, RequestError) else InferenceFailed(f"{error}"))
            return
        with self._lock:
            if self._coming.get(lane.outputs) is lane:  # else the model was closed, or it took too long
                del self._coming[lane.outputs]
                self._cold[lane.outputs] = lane
            if len(self._cold) > self._max_compiled:
                outputs, dropped = self._cold.popitem(last=False)  # jobs that wait in it keep it alive
                self._reserve.pop(outputs, None)
                self._family.leave(dropped)
        self.scheduler.open(lane, function.run)

    def _uncompiled(self, lane: Lane, error: TimeoutError | None) -> None:
        if error is None:  # nobody waits; a job that has just found the lane asks for its function by itself
            self._forget(lane)
            return
        _log.error("%s: compiling took longer than load_timeout_s and was given up", lane.name)
        self._give_up(lane, InferenceFailed("Expected these layers to be compiled within load_timeout_s."))

    def _give_up(self, lane: Lane, error: LayertapError) -> None:
        self._forget(lane)
        self.scheduler.fail(lane, error)

    def _forget(self, lane: Lane) -> None:
        with self._lock:
            if self._coming.get(lane.outputs) is lane:
                del self._coming[lane.outputs]
                self._family.leave(lane)

    def _make_reserve(self, lane: Lane, make: Callable[[], Run]) -> None:
        try:
            run = make()
        except BaseException as error:  # noqa: BLE001 whoever waits is told, and whoever comes later
            _log.exception("%s: the function in reserve could not be made", lane.name)
            self.scheduler.fail(lane, _unmade(f"{error}"))
        else:
            self.scheduler.open(lane, run)

    def _reserve_unmade(self, lane: Lane, error: TimeoutError | None) -> None:
        if error is not None:
            _log.error("%s: the function in reserve took longer than load_timeout_s", lane.name)
            self.scheduler.fail(lane, _unmade("it took longer than load_timeout_s."))


def _is_wanted(lane: Lane) -> bool:
    return lane.run is None and lane.busy


def _unmade(reason: str) -> ModelLoadFailed:
    """The answer to rows that only TensorFlow computes; it stays so, since each try would cost as much as a start."""
    return ModelLoadFailed(
        f"TensorFlow could not load the model for these rows: {reason}", mend="Load the model again."
    )
