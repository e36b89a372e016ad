"""Owns the composition: the only place that sees both HTTP and TensorFlow.

`gunicorn.conf.py` names `asgi()`; any WSGI server can name `wsgi()`. Engines are imported on the loading thread,
after fork, so `/healthz` answers while they load; TensorFlow only where something needs it (`service.opener`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from a2wsgi import WSGIMiddleware
from flask import Flask

from service.accusations import Loading
from service.api.dialects import every_dialect
from service.api.endpoint import Limits
from service.api.native import NativeEndpoint
from service.api.trust import Hosts
from service.board import Stage, own_slot
from service.cores import usable_cores
from service.drivers.app import create_app
from service.drivers.asgi import ExpressLane
from service.drivers.hosts import NamedLane
from service.drivers.limits import limits_of
from service.errors import ModelNotFound, NotReady, SettingsError
from service.greeting import greet
from service.log_lines import count_dropped
from service.memory import Memory, memory_for_requests
from service.opener import Opener
from service.repository import scan
from service.scheduling.scheduler import BatchReport, Scheduler
from service.scheduling.schedulers import Schedulers
from service.serving.reloading import Reloader
from service.serving.runtime import Runtime, RuntimeOptions
from service.serving.served import ModelStatus, State
from service.serving.together import Together
from service.settings import Settings, load_settings, strange_variables
from service.startup import process_age_s
from service.telemetry import Telemetry
from service.threads import start_thread

_log = logging.getLogger("layertap.service")

_CANNOT_START = 3  # the exit code that gunicorn itself has for this


class Service:
    """One process's service.

    Args:
        settings: everything it is told.

    Raises:
        RepositoryError: there is no models folder.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.telemetry = Telemetry(settings.access_log)
        self._thread: threading.Thread | None = None
        self._age_s: float | None = None
        self._told: dict[str, dict[int, float]] = {}  # model -> version -> how long it took to load
        metrics = self.telemetry.metrics
        self._opener = Opener(settings, metrics, loading := Loading(own_slot()))
        make = partial(
            Scheduler,
            max_queue_rows=settings.max_queue_rows,
            max_batch_delay_s=settings.max_batch_delay_ms / 1000,
            observe=_batch_observer(self.telemetry),
            on_death=_replace_worker,
        )
        self._schedulers = Schedulers(make(), make)
        look = partial(scan, Path(settings.models_dir))
        self.runtime = Runtime(
            look,
            self._opener.open,
            self._schedulers,
            _runtime_options(settings),
            self._model_changed,
            refused=lambda model: metrics.refused_compilations.labels(model).inc(),
            memory=_memory(settings, self.telemetry),
            loading=loading,
            everywhere=self._change_everywhere,
        )
        self._together = self._join()
        self._reloader = Reloader(self.runtime, look, settings.poll_interval_s)
        self._publish_runtime()
        for status in self.runtime.models():
            self._publish_state(status)
        limits = Limits(settings.max_input_bytes, settings.max_image_pixels, settings.max_reply_bytes)
        self.endpoints = [NativeEndpoint("predict", limits), NativeEndpoint("features", limits)]
        self.dialects = every_dialect(limits, admin=settings.admin, admin_key=settings.admin_key)
        self.hosts = Hosts(settings.allowed_hosts) if settings.allowed_hosts else None

    def start(self) -> None:
        """Starts the engine thread, and the loading of models in the background."""
        self._age_s = process_age_s()
        self._schedulers.shared.start()
        self._tell_stage(Stage.LOADING)
        if self._together is not None and self.settings.workers > 1:
            self._together.start()
            self.telemetry.gather = self._together.gather
        self._thread = start_thread(self._load, "layertap-loader")

    def retire(self) -> None:
        """Says from now on that it is not ready; everything is still answered."""
        self.runtime.retire()

    def stop(self, *, drain: bool = True) -> None:
        """Answers what waits (`drain`) or refuses it, then stops."""
        self._reloader.stop()
        self.runtime.stop(drain=drain)

    def flask(self) -> Flask:
        """The Flask application over this service."""
        return create_app(
            self.runtime,
            self.telemetry,
            self.endpoints,
            self.dialects,
            max_body_bytes=self.settings.max_body_bytes,
            device=self._opener.device,
            hosts=self.hosts,
        )

    def express(self) -> ExpressLane:
        """The ASGI application over this service."""
        flask = self.flask()
        lane = ExpressLane if self.hosts is None else partial(NamedLane, hosts=self.hosts)
        return lane(
            self.runtime,
            self.telemetry,
            self.endpoints,
            self.dialects,
            rest=WSGIMiddleware(flask),
            watch=WSGIMiddleware(flask, workers=2),
            lifespan=self,
            max_body_bytes=self.settings.max_body_bytes,
            decode_threads=self.settings.decode_threads or usable_cores(),
            max_decoding=self.settings.max_queue_rows,
            connection_limits=limits_of(self.settings),
        )

    # -- loading ------------------------------------------------------------------------------------------

    def _load(self) -> None:
        settings = self.settings
        try:
            self._opener.start()
        except SettingsError as error:
            _log.critical("%s", error.message)
            self._stop_service()
            return
        self.runtime.load()
        self._leave_unloaded()
        failed = [status.name for status in self.runtime.models() if status.state is State.FAILED]
        if failed and settings.fail_on_load_error:
            _log.critical("stopping: fail_on_load_error is set and %s failed to load", ", ".join(failed))
            self._stop_service()
        elif self.runtime.ready:
            greet(self.runtime, settings)
            self._tell_phases()
        else:
            _log.error("not ready: no model could be loaded from %s", settings.models_dir)
        self._tell_stage(Stage.READY if self.runtime.ready else Stage.USELESS)
        if settings.poll_interval_s:
            self._reloader.start()

    def _join(self) -> Together | None:
        """This worker among others, or after others; `None` where no master keeps a board."""
        slot, settings, runtime = own_slot(), self.settings, self.runtime
        if slot is None:
            return None
        within_s = settings.load_timeout_s + settings.request_timeout_ms / 1000

        def own_metrics(openmetrics: bool) -> str:
            return self.telemetry.render_own(openmetrics=openmetrics).decode()

        return Together(slot, runtime.load_model, runtime.unload_model, own_metrics, within_s)

    def _change_everywhere(self, change: str, name: str, here: Callable[[], ModelStatus]) -> ModelStatus:
        return here() if self._together is None else self._together.change(change, name, here)

    def _leave_unloaded(self) -> None:
        """Takes out of service what was unloaded in the worker that had this one's place."""
        for name in self._together.unloaded() if self._together is not None else ():
            with contextlib.suppress(NotReady, ModelNotFound):
                self.runtime.unload_model(name)

    def _tell_stage(self, stage: Stage) -> None:
        """Tells the other processes of the service, unless this one is about to leave."""
        slot = own_slot()
        if slot is not None and slot.stage < Stage.LEAVING:
            slot.stage = stage

    def _stop_service(self) -> None:
        """Ends the whole service with an exit code that says so: its master takes this one for its own."""
        self._tell_stage(Stage.HOPELESS)
        logging.shutdown()
        os._exit(_CANNOT_START)

    def _model_changed(self, status: ModelStatus) -> None:
        """Tells metrics and log what is served now."""
        self._publish_state(status)
        metrics = self.telemetry.metrics
        before = self._told.get(status.name, {})
        for number in before.keys() - status.versions.keys():
            metrics.model_load.remove(status.name, str(number))
            metrics.model_bytes.remove(status.name, str(number))
            _log.info("model '%s' version %d is no longer served", status.name, number)
        for number, served in status.versions.items():
            if before.get(number) == served.load_s:
                continue
            metrics.model_load.labels(status.name, str(number)).set(served.load_s)
            metrics.model_bytes.labels(status.name, str(number)).set(served.facts["file_bytes"])
            _log.info(
                "model '%s' version %d is ready after %.2f s: %d layers",
                status.name, number, served.load_s, len(served.spec.layers),
            )  # fmt: skip
        self._told[status.name] = {number: served.load_s for number, served in status.versions.items()}

    def _tell_phases(self) -> None:
        """Logs what the start took its time for."""
        phases_s = {"process": self._age_s or 0.0, **self._opener.phases_s}
        for status in self.runtime.models():
            for served in status.versions.values():
                for name, seconds in served.facts["phases_s"].items():
                    phases_s[name] = phases_s.get(name, 0.0) + seconds
        rounded = {name: round(seconds, 3) for name, seconds in phases_s.items()}
        told = ", ".join(f"{name} {seconds:.2f}" for name, seconds in rounded.items())
        _log.info("start, in seconds: %s", told, extra={"fields": {"phases_s": rounded}})

    def _publish_runtime(self) -> None:
        metrics, runtime = self.telemetry.metrics, self.runtime
        metrics.queue_rows.set_function(lambda: runtime.waiting_rows)
        metrics.waiting_compilations.set_function(lambda: runtime.waiting_compilations)
        metrics.backlog.set_function(lambda: runtime.backlog_s)
        metrics.engine_alive.set_function(lambda: float(runtime.alive))
        count_dropped(metrics.dropped_log_lines.inc)
        slot = own_slot()
        if slot is not None:
            metrics.lost_workers.set_function(lambda: slot.board.deaths)

    def _publish_state(self, status: ModelStatus) -> None:
        for state in State:
            gauge = self.telemetry.metrics.model_state.labels(status.name, state.value)
            gauge.set(1 if status.state is state else 0)


def asgi() -> ExpressLane:
    """The application for gunicorn's ASGI worker; it starts and stops with the server's lifespan."""
    return _service().express()


def wsgi() -> Flask:
    """The application for WSGI servers, one process each; loading starts at once."""
    service = _service()
    service.start()
    return service.flask()


def _service() -> Service:
    settings = load_settings()
    for sentence in strange_variables():
        _log.warning("%s", sentence)
    if settings.admin and settings.admin_key is None:
        _log.warning("admin: no admin_key is set, so only requests from this machine to localhost are obeyed")
    return Service(settings)


def _runtime_options(settings: Settings) -> RuntimeOptions:
    return RuntimeOptions(
        default_model=settings.default_model,
        max_batch_size=settings.max_batch_size,
        max_compiled_outputs=settings.max_compiled_outputs,
        request_timeout_s=settings.request_timeout_ms / 1000,
        load_timeout_s=settings.load_timeout_s,
        max_waiting_compilations=settings.max_waiting_compilations,
    )


def _batch_observer(telemetry: Telemetry) -> Callable[[BatchReport], None]:
    metrics = telemetry.metrics

    def observe(report: BatchReport) -> None:
        model, _ = report.label
        metrics.batch_rows.labels(model).observe(report.rows)
        if report.failed:
            metrics.failed_batches.labels(model).inc()

    return observe


def _memory(settings: Settings, telemetry: Telemetry) -> Memory:
    metrics = telemetry.metrics
    limit = memory_for_requests(settings.max_memory_bytes, settings.workers)
    memory = Memory(limit, metrics.refused_memory.inc)
    metrics.memory_limit.set(limit)
    metrics.memory.set_function(lambda: memory.held)
    metrics.memory_peak.set_function(lambda: memory.peak)
    return memory


def _replace_worker(error: BaseException) -> None:
    """The engine thread is dead: leave gracefully, so that replies go out and gunicorn forks a new worker."""
    _log.critical("the engine thread stopped; this worker ends", exc_info=error)
    os.kill(os.getpid(), signal.SIGTERM)
