"""Owns the facade: which models are served, in which state, and the one way to run them.

It knows no HTTP and no TensorFlow: engines come from the `open_model` function that it is given.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from service.accusations import Loading
from service.errors import NotReady
from service.memory import Charge, Memory
from service.scheduling.admission import Place
from service.scheduling.scheduler import BatchReport, Job, Scheduler
from service.scheduling.schedulers import Schedulers
from service.serving.compiling import Compiler
from service.serving.results import deadline_error, result_of
from service.serving.rollout import Rollout, Scan
from service.serving.served import IndexedVersion, ModelStatus, OpenModel, ServedModel, State
from service.serving.shelf import Shelf
from service.serving.workshop import Workshop
from service.statistics import Ledger, ModelStatistics
from service.tensors import Activations, InferRequest, InferResult

_WORTH_CHARGING = 2**20  # bytes of results; how many smaller ones there are is bounded by the queue

Everywhere = Callable[[str, str, Callable[[], ModelStatus]], ModelStatus]


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """The part of the settings that the runtime needs."""

    default_model: str | None
    max_batch_size: int
    max_compiled_outputs: int
    request_timeout_s: float
    load_timeout_s: float
    max_waiting_compilations: int = 16


class Runtime:
    """The served models and their queue.

    Args:
        scan: what lies in the models folder now; called once here, and again whenever it may have changed.
        open_model: loads one version; called on the loading thread.
        scheduler: runs the batches; or several do.
        options: limits and defaults.
        changed: told about every new status of a model, on the loading thread.
        refused: told the model when one more function of it is refused, since too many wait to be compiled.
        memory: what all requests together may hold; `None`: as much as they like.
        loading: notes what is being loaded, for whoever finds this process dead.
        everywhere: does a change (`load` or `unload`) of a model, which it gets with what does it here, in all workers.

    Attributes:
        memory: as given.
        ledger: counts what each version does.

    Raises:
        RepositoryError: there is no models folder.
    """

    def __init__(
        self,
        scan: Scan,
        open_model: OpenModel,
        scheduler: Scheduler | Schedulers,
        options: RuntimeOptions,
        changed: Callable[[ModelStatus], None] = lambda _: None,
        *,
        refused: Callable[[str], object] = lambda _: None,
        memory: Memory | None = None,
        loading: Loading | None = None,
        everywhere: Everywhere = lambda _, __, here: here(),
    ) -> None:
        self.memory = memory or Memory()
        self._scan, self._entries = scan, scan()
        self._schedulers = schedulers = Schedulers.of(scheduler)
        self._scheduler = schedulers.shared
        self._options = options
        self.ledger = Ledger()
        self._shelf = Shelf([entry.name for entry in self._entries], options.default_model)
        self._compiler, self._reserves = _compilers(options, refused)
        workshop = Workshop(
            open_model,
            schedulers,
            self._compiler,
            self._reserves,
            options.max_batch_size,
            options.max_compiled_outputs,
            options.load_timeout_s,
            loading or Loading(None),
        )
        # A replaced version stays until the time of whoever was parsed for it is over.
        self._rollout = Rollout(
            self._shelf, workshop, schedulers, scan, changed=changed, linger_s=options.request_timeout_s
        )
        self._everywhere = everywhere
        self._stopping = self._retired = False
        self._settled = threading.Event()
        schedulers.listen(self._ran)

    # -- life ---------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Loads every model, one after the other; slow; call it after fork, off the event loop."""
        try:
            with contextlib.suppress(NotReady):  # stopped meanwhile
                self._rollout.load_all(self._entries)
        finally:
            self._settled.set()

    def retire(self) -> None:
        """Says from now on that it is not ready; everything is still answered."""
        self._retired = True

    def stop(self, *, drain: bool = True) -> None:
        """Takes no new requests; answers what waits (`drain`) or refuses it."""
        self._stopping = True
        self._rollout.stop()
        self._compiler.stop()
        self._reserves.stop()
        self._schedulers.stop(drain=drain)

    @property
    def alive(self) -> bool:
        """Whether the engine threads run; where one does not, the worker must be replaced."""
        return self._schedulers.alive

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
            and not self._retired
            and any(status.state is State.READY for status in self._shelf.models())
        )

    @property
    def generation(self) -> int:
        """Another number whenever other models are served than before; what `resolve` said holds until then."""
        return self._shelf.generation

    @property
    def waiting_rows(self) -> int:
        """Rows in the queue now."""
        return self._schedulers.waiting_rows

    @property
    def waiting_compilations(self) -> int:
        """Functions that wait to be compiled."""
        return self._compiler.waiting

    def is_full(self, named: str | None) -> bool:
        """Whether a request for a model would be refused now, since too many of its rows wait; name as `resolve`."""
        if not self._scheduler.crowded:  # those of one model alone judge by themselves
            return False
        served = self._shelf.latest(named)
        return served is not None and served.lanes.scheduler.is_full((served.name, served.version))

    @property
    def backlog_s(self) -> float:
        """How long it is likely to take until all is answered that waits or runs."""
        return self._schedulers.backlog_s

    # -- models -------------------------------------------------------------------------------------------

    def models(self) -> Sequence[ModelStatus]:
        """Every model's status, by name."""
        return self._shelf.models()

    def status(self, name: str) -> ModelStatus:
        """One model's status.

        Raises:
            ModelNotFound: no such model; the nearest is named.
        """
        return self._shelf.status(name)

    def resolve(self, name: str | None, version: int | None = None, label: str | None = None) -> ServedModel:
        """The model that a request means.

        Args:
            name: `None` means the setting `default_model`, else the only model.
            version: `None` means the highest that is served.
            label: a name that the model's settings give to a version, instead of its number.

        Raises:
            ModelRequired, ModelNotFound, VersionNotFound, ModelLoading, ModelLoadFailed, ModelUnloaded: as they
                say; VersionNotFound for unknown labels, too.
        """
        return self._shelf.resolve(name, version, label)

    def label(self, name: str | None) -> str | None:
        """The known model that a request means, whether it is served or not; arguments as `resolve`."""
        return self._shelf.label(name)

    def index(self, *, ready_only: bool = False) -> list[IndexedVersion]:
        """Every version that is served or lies in the models folder now, by name and version; reads the folder.

        Args:
            ready_only: only those that answer requests.

        Raises:
            RepositoryError: the models folder is gone.
        """
        lines = self._shelf.index(self._scan())
        return [line for line in lines if line.state == "READY" or not ready_only]

    def statistics(self, name: str, version: int) -> ModelStatistics:
        """What a version has done since the process began; zeros for one that nobody ever asked."""
        return self.ledger.read(name, version)

    # -- changes ------------------------------------------------------------------------------------------

    def load_model(self, name: str) -> ModelStatus:
        """Loads a model from the files that are there now, or what is new of it, and waits until it is served.

        Versions whose files are what they were stay as they are. What was served goes on until then, and where
        nothing new can be loaded.

        Raises:
            ModelNotFound: it is not in the models folder.
            ModelLoadFailed: nothing new could be loaded.
            NotReady: the service drains.
        """
        return self._rollout.load(name)

    def unload_model(self, name: str) -> ModelStatus:
        """Takes a model out of service, and waits until its requests are answered and its memory is freed.

        Raises:
            ModelNotFound: there is none of this name.
            NotReady: the service drains.
        """
        return self._rollout.unload(name, "unloaded")

    def load_everywhere(self, name: str) -> ModelStatus:
        """As `load_model`, in every worker of the service."""
        return self._everywhere("load", name, partial(self.load_model, name))

    def unload_everywhere(self, name: str) -> ModelStatus:
        """As `unload_model`, in every worker of the service."""
        return self._everywhere("unload", name, partial(self.unload_model, name))

    def forget_model(self, name: str) -> None:
        """Takes a model out of service whose files are gone, and no longer lists it.

        Raises:
            NotReady: the service drains.
        """
        self._rollout.forget(name)

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
            rouse: wake an idle engine now; whoever submits many at once calls `run_quick` after the last.

        Raises:
            QueueFull, BodyTooLarge, NotReady, EngineStopped: the request was not queued.
        """
        if self._stopping:
            raise NotReady("The service is draining; send the request to another instance.")
        served = request.served
        if not isinstance(served, ServedModel):
            served = self._shelf.resolve(request.model, request.version)
        deadline = self.deadline(begun or time.monotonic(), request.timeout_s)
        job = Job(
            request.inputs, request.rows, deadline, done, request.priority, request_id=request.request_id
        )
        place = request.place if isinstance(request.place, Place) else None
        lane = served.lanes.lane(request.outputs)
        needed = request.rows * lane.row_bytes
        if needed > _WORTH_CHARGING or served.activations is not None:
            self._charge(request, served.activations, needed)
        scheduler = served.lanes.scheduler
        rouse = rouse or scheduler is not self._scheduler  # `run_quick` is for the shared one
        scheduler.submit(lane, job, rouse=rouse, place=place)
        return job

    def _charge(self, request: InferRequest, activations: Activations | None, needed: int) -> None:
        """Charges a request for its results, and for what a model of free axes holds in between."""
        if activations is not None:
            needed = activations.bytes_of(request.inputs)
        charge = request.charge
        if not isinstance(charge, Charge):
            charge = request.charge = self.memory.charge()
        charge.hold(needed, f"what model '{request.model}' computes for {request.rows} rows of this size")

    def deadline(self, begun: float, timeout_s: float | None) -> float:
        """When a request's time is over, in seconds of `time.monotonic`.

        Args:
            begun: when it arrived.
            timeout_s: the client's own limit, which may shorten the service's.
        """
        limit = self._options.request_timeout_s
        return begun + (limit if timeout_s is None else min(timeout_s, limit))

    def book(
        self,
        served: ServedModel | None,
        outputs: tuple[str, ...],
        deadline: float,
        before: tuple[float, float] = (0.0, 0.0),
    ) -> Place:
        """Keeps a place for a request of one row whose body is still to be read; see `InferRequest.place`, `leave`.

        Args:
            served: the model; `None`: nobody knows yet.
            outputs: what it will probably ask for.
            deadline: when its time is over.
            before: seconds until it can be queued, and how many of them are work for the same model.

        Raises:
            QueueFull: it is not likely to be answered in time; says when to come back.
        """
        if served is None:
            return self._scheduler.book(None, 1, deadline, before)
        return served.lanes.scheduler.book(served.lanes.known(outputs), 1, deadline, before)

    def leave(self, place: Place) -> None:
        """Gives a place back, unless its request was queued."""
        if place.held:
            place.keeper.leave(place)

    def listen(self, observe: Callable[[BatchReport], None]) -> None:
        """Tells one more listener, on the engine thread, about every batch after its jobs were told."""
        self._schedulers.listen(observe)

    def _ran(self, report: BatchReport) -> None:
        model, version = report.label
        self.ledger.ran(model, version, report)

    def run_quick(self, within_s: float) -> None:
        """Runs on the calling thread what waits, as long as that is quick; an idle engine thread gets the rest.

        Args:
            within_s: how long the caller can wait.
        """
        self._scheduler.run_quick(within_s)

    def abandon(self, job: Job) -> None:
        """The client has gone: the job does not run unless its batch has begun."""
        job.keeper.cancel(job)

    def expire(self, job: Job) -> None:
        """The request's time is over: `done` is called with DeadlineExceeded unless the job is finished."""
        job.keeper.cancel(job, deadline_error())

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


def _compilers(options: RuntimeOptions, refused: Callable[[str], object]) -> tuple[Compiler, Compiler]:
    """What makes functions that nobody warmed, and what makes those in reserve, which takes longer."""
    compiler = partial(Compiler, max_waiting=options.max_waiting_compilations, limit_s=options.load_timeout_s)
    return compiler("layertap-compiler", refused=refused), compiler("layertap-reserve")
