"""Owns the facade: which models are served, in which state, and the one way to run them.

It knows no HTTP and no TensorFlow: engines come from the `open_model` function that it is given.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from service.errors import (
    DeadlineExceeded,
    ModelLoadFailed,
    ModelLoading,
    ModelNotFound,
    ModelRequired,
    NotReady,
    VersionNotFound,
)
from service.fields import nearest
from service.repository import ModelEntry
from service.scheduling.scheduler import Job, Scheduler
from service.served import ModelStatus, OpenModel, ServedModel, State, Workshop, load_entry
from service.tensors import InferRequest, InferResult


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """The part of the settings that the runtime needs."""

    default_model: str | None
    max_batch_size: int
    max_compiled_outputs: int
    request_timeout_s: float


class Runtime:
    """The served models and their queue.

    Args:
        entries: what the repository holds.
        open_model: loads one version; called on the loading thread.
        scheduler: runs the batches.
        options: limits and defaults.
        loaded: told about every model that is ready or has failed.
    """

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        open_model: OpenModel,
        scheduler: Scheduler,
        options: RuntimeOptions,
        loaded: Callable[[ModelStatus], None] = lambda _: None,
    ) -> None:
        self._entries = entries
        self._scheduler = scheduler
        self._options = options
        self._loaded = loaded
        self._models = {entry.name: ModelStatus(entry.name) for entry in entries}
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="layertap-compiler")
        self._workshop = Workshop(
            open_model, scheduler, self._compiler, options.max_batch_size, options.max_compiled_outputs
        )
        self._stopping = False
        self._generation = 0
        self._settled = threading.Event()

    # -- life ---------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Loads every model, one after the other; slow; call it after fork, off the event loop."""
        for entry in self._entries:
            if self._stopping:
                return
            status = self._models[entry.name]
            load_entry(entry, status, self._workshop)
            self._generation += 1
            self._loaded(status)
        gc.collect()
        gc.freeze()  # what was loaded lives as long as the process: never scan it again
        self._settled.set()

    def stop(self, *, drain: bool = True) -> None:
        """Takes no new requests; answers what waits (`drain`) or refuses it."""
        self._stopping = True
        self._compiler.shutdown(wait=False, cancel_futures=True)
        self._scheduler.stop(drain=drain)

    @property
    def alive(self) -> bool:
        """Whether the engine thread runs; where it does not, the worker must be replaced."""
        return self._scheduler.alive

    @property
    def settled(self) -> bool:
        """Whether every model is ready or has failed."""
        return self._settled.is_set()

    @property
    def ready(self) -> bool:
        """Whether every model has settled and at least one can answer."""
        return (
            self.settled
            and self.alive
            and not self._stopping
            and any(status.state is State.READY for status in self._models.values())
        )

    @property
    def generation(self) -> int:
        """Another number whenever other models are served than before; what `resolve` said holds until then."""
        return self._generation

    @property
    def waiting_rows(self) -> int:
        """Rows in the queue now."""
        return self._scheduler.waiting_rows

    # -- models -------------------------------------------------------------------------------------------

    def models(self) -> Sequence[ModelStatus]:
        """Every model's status, by name."""
        return tuple(self._models.values())

    def status(self, name: str) -> ModelStatus:
        """One model's status.

        Raises:
            ModelNotFound: no such model; the nearest is named.
        """
        status = self._models.get(name)
        if status is None:
            known = list(self._models)
            raise ModelNotFound(
                f"Expected one of the models {known}. Received: {name[:80]!r}.{nearest(name, known)}",
                models=known,
            )
        return status

    def resolve(self, name: str | None, version: int | None = None) -> ServedModel:
        """The model that a request means.

        Args:
            name: `None` means the setting `default_model`, else the only model.
            version: `None` means the highest that is served.

        Raises:
            ModelRequired, ModelNotFound, VersionNotFound, ModelLoading, ModelLoadFailed: as they say.
        """
        status = self.status(name if name is not None else self._default())
        served = status.latest if version is None else status.versions.get(version)
        if served is not None:
            return served
        if status.state is State.LOADING:
            raise ModelLoading(f"Model '{status.name}' is still loading; /readyz tells when it is done.")
        if version is not None and version not in status.errors:
            raise VersionNotFound(
                f"Expected a served version of model '{status.name}': {sorted(status.versions)}. "
                f"Received: {version}."
            )
        error = status.errors[version if version is not None else max(status.errors)]
        raise ModelLoadFailed(
            f"Model '{status.name}' failed to load: {error.message}", mend=error.mend or None
        )

    def _default(self) -> str:
        if self._options.default_model is not None:
            return self._options.default_model
        if len(self._models) == 1:
            return next(iter(self._models))
        raise ModelRequired(
            f"Expected a model by name, as ?model=NAME, out of {list(self._models)}. Received: none.",
            models=list(self._models),
        )

    # -- inference ----------------------------------------------------------------------------------------

    def submit(
        self,
        request: InferRequest,
        done: Callable[[Job], None],
        begun: float | None = None,
        *,
        rouse: bool = True,
    ) -> Job:
        """Queues a request; `done` is called once, on another thread, unless the job is cancelled silently.

        Args:
            request: valid arrays; they are read until the job is done.
            done: gets the job with its `outputs` or its `error`.
            begun: when the request arrived, `time.monotonic()`; its time counts from there.
            rouse: wake an idle engine now; whoever submits many at once calls `rouse` after the last.

        Raises:
            QueueFull, NotReady, EngineStopped: the request was not queued.
        """
        if self._stopping:
            raise NotReady("The service is draining; send the request to another instance.")
        served = self.resolve(request.model, request.version)
        limit = self._options.request_timeout_s
        timeout = limit if request.timeout_s is None else min(request.timeout_s, limit)
        job = Job(request.inputs, request.rows, (begun or time.monotonic()) + timeout, done)
        self._scheduler.submit(served.lanes.lane(request.outputs), job, rouse=rouse)
        return job

    def rouse(self) -> None:
        """Wakes an idle engine."""
        self._scheduler.rouse()

    def abandon(self, job: Job) -> None:
        """The client has gone: the job does not run unless its batch has begun."""
        self._scheduler.cancel(job)

    def expire(self, job: Job) -> None:
        """The request's time is over: `done` is called with DeadlineExceeded unless the job is finished."""
        self._scheduler.cancel(job, deadline_error())

    def infer(self, request: InferRequest, begun: float | None = None) -> InferResult:
        """Runs a request and waits for it; arguments as `submit`.

        Raises:
            LayertapError: whatever `submit` raises or the job ended with.
        """
        finished = threading.Event()
        job = self.submit(request, lambda _: finished.set(), begun)
        if not finished.wait(max(0.0, job.deadline - time.monotonic())):
            self.expire(job)
            finished.wait()
        return result_of(job)


def deadline_error() -> DeadlineExceeded:
    """The error of a request whose time ran out."""
    return DeadlineExceeded("The request's time ran out before its reply was there; see timeout_ms.")


def result_of(job: Job) -> InferResult:
    """A finished job's result.

    Raises:
        LayertapError: what the job ended with.
    """
    if job.error is not None:
        raise job.error
    if job.outputs is None:
        raise NotReady("The request was abandoned.")
    return InferResult(job.outputs, job.queue_s, job.compute_s)
