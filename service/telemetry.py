"""Owns what an operator sees: Prometheus metrics, the access log, request ids.

Label values are known models, layers and routes only; anything else is `unknown`, so that no client can make
new time series. Every metric is declared in `Metrics`, from which the README's table is generated.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Callable
from typing import Any

import orjson
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from service.log_lines import PatientHandler
from service.reply_counts import ReplyCounts
from service.stage_times import StageTimes
from service.tensors import Timings

UNKNOWN = "unknown"
_STAGES = {
    "layertap_decode_seconds": ("decode_s", "Time from the body to valid arrays, for each answered request."),
    "layertap_queue_seconds": ("queue_s", "Time a request waited for its first batch."),
    "layertap_compute_seconds": ("compute_s", "Time of the batches that a request was part of."),
    "layertap_encode_seconds": ("encode_s", "Time from arrays to the reply's body."),
}
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_MAX_REQUEST_ID = 128
_PROBES = ("/healthz", "/readyz")  # asked every few seconds, and 503 is a plain answer there


class Metrics:
    """Every metric of one process.

    Args:
        registry: where they are registered; one per process, never the global one.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each, that nobody reads
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        counter, gauge = self._counter, self._gauge
        self.requests = ReplyCounts("layertap_requests", "Replies by route, model and HTTP status.")
        registry.register(self.requests)
        self.rejected = counter("rejected_total", "Error replies by their code.", "reason")
        self.stages = StageTimes(_STAGES)
        registry.register(self.stages)
        self.batch_rows = Histogram(
            "layertap_batch_rows",
            "Rows of each batch, without padding.",
            ("model",),
            registry=registry,
            buckets=_ROWS,
        )
        self.padding_rows = counter("padding_rows_total", "Rows added to fill batches to a bucket.", "model")
        self.failed_batches = counter("failed_batches_total", "Batches that raised, halves too.", "model")
        self.traces = counter(
            "traces_total", "Functions traced; constant once the layers in use are warm.", "model"
        )
        self.engine_fallbacks = counter("engine_fallbacks_total", "Functions left to TensorFlow.", "model")
        self.layers = counter("layer_requests_total", "Requests for a hidden layer.", "model", "layer")
        self._declare_states(counter, gauge)

    def _declare_states(self, counter: Callable[..., Counter], gauge: Callable[..., Gauge]) -> None:
        self.queue_rows = gauge("queue_rows", "Rows that wait now.")
        self.waiting_compilations = gauge("waiting_compilations", "Sets of layers that wait to be compiled.")
        self.refused_compilations = counter(
            "refused_compilations_total", "Requests refused since too many sets of layers wait.", "model"
        )
        self.backlog = gauge("backlog_seconds", "Estimated time until what waits or runs is computed.")
        self.engine_alive = gauge("engine_alive", "1 while the engine thread runs.")
        self.model_state = gauge("model_state", "1 for the state a model is in.", "model", "state")
        self.model_load = gauge(
            "model_load_seconds", "Seconds from opening the file to ready.", "model", "version"
        )
        self.model_bytes = gauge("model_bytes", "Size of the model's file.", "model", "version")
        self._add_connections()
        self._add_memory()
        self.dropped_log_lines = counter(
            "dropped_log_lines_total", "Log lines that nobody took in time, see max_log_bytes."
        )
        self.lost_workers = gauge(
            "lost_workers", "Workers that ended unasked since the service was started, and were replaced."
        )

    def _add_connections(self) -> None:
        self.connections = self._gauge("connections", "Connections by what they wait for.", "phase")
        self.connection_limit = self._gauge("connection_limit", "How many there may be.")
        self.connections_closed = self._counter(
            "connections_closed_total",
            "Connections that the service ended: by the phase whose time was over, as too_many, or as refused.",
            "reason",
        )

    def _add_memory(self) -> None:
        self.memory = self._gauge("memory_bytes", "What requests hold now, of max_memory_bytes.")
        self.memory_peak = self._gauge("memory_peak_bytes", "The most that they have held.")
        self.memory_limit = self._gauge("memory_limit_bytes", "What they may hold together.")
        self.refused_memory = self._counter(
            "refused_memory_total",
            "Requests refused since all together, or one by itself, need too much memory.",
        )

    def _counter(self, name: str, doc: str, *labels: str) -> Counter:
        return Counter(f"layertap_{name}", doc, labels, registry=self.registry)

    def _gauge(self, name: str, doc: str, *labels: str) -> Gauge:
        return Gauge(f"layertap_{name}", doc, labels, registry=self.registry)


class Telemetry:
    """Records requests and writes the access log.

    Args:
        access_log: `off`, `errors` (status 500 and above) or `all`.

    Attributes:
        gather: puts the metrics of other workers beside this one's; `None`: there are no others.
    """

    def __init__(self, access_log: str = "off") -> None:
        self.metrics = Metrics(CollectorRegistry())
        self._log_from = {"off": 1000, "errors": 500, "all": 0}[access_log]
        self._log = logging.getLogger("layertap.access")
        self._layers: dict[tuple[str, str], Any] = {}
        self._prefix = os.urandom(4).hex()
        self._numbers = itertools.count(1)
        self.gather: Callable[[str, bool], str] | None = None

    def request_id(self, given: bytes | None) -> str:
        """The client's own id where it is short printable ASCII without spaces, else a new one."""
        if given and len(given) <= _MAX_REQUEST_ID and given.isascii():
            text = given.decode("ascii")
            if text.isprintable() and " " not in text:
                return text
        return f"{self._prefix}-{next(self._numbers):x}"

    def answered(self, route: str, model: str, status: int, timings: Timings | None, request_id: str) -> None:
        """Records one reply.

        Args:
            route: a known route, or UNKNOWN.
            model: a served model, or UNKNOWN.
            status: the HTTP status.
            timings: of a request that the model answered.
            request_id: for the log.
        """
        self.metrics.requests.add(route, model, status)
        if timings is not None:
            self.metrics.stages.add(model, timings)
        if status >= self._log_from and route not in _PROBES:
            self._log.info(
                "request",
                extra={"fields": {"route": route, "model": model, "status": status, "request_id": request_id,
                                  **(server_timings(timings) if timings else {})}},
            )  # fmt: skip

    def layer_asked(self, model: str, path: str) -> None:
        """Counts a request for a known layer of a known model."""
        child = self._layers.get((model, path))
        if child is None:
            child = self._layers[model, path] = self.metrics.layers.labels(model, path)
        child.inc()

    def render(self, *, openmetrics: bool = False) -> bytes:
        """The exposition text, format 0.0.4 or that of OpenMetrics 1.0, of all workers."""
        own = self.render_own(openmetrics=openmetrics)
        return own if self.gather is None else self.gather(own.decode(), openmetrics).encode()

    def render_own(self, *, openmetrics: bool = False) -> bytes:
        """The same of this worker alone."""
        return (generate_openmetrics if openmetrics else generate_latest)(self.metrics.registry)


def server_timings(timings: Timings) -> dict[str, float]:
    """Stage -> milliseconds, as logs tell them."""
    return {
        "decode_ms": round(timings.decode_s * 1e3, 3),
        "queue_ms": round(timings.queue_s * 1e3, 3),
        "compute_ms": round(timings.compute_s * 1e3, 3),
        "encode_ms": round(timings.encode_s * 1e3, 3),
    }


def server_timing_header(timings: Timings) -> str:
    """The value of a Server-Timing header, milliseconds. Source: https://www.w3.org/TR/server-timing/."""
    return (
        f"decode;dur={timings.decode_s * 1e3:.3f}, queue;dur={timings.queue_s * 1e3:.3f}, "
        f"compute;dur={timings.compute_s * 1e3:.3f}, encode;dur={timings.encode_s * 1e3:.3f}"
    )


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # text that is no UTF-8, as in file names, or a number beyond 64 bits
            return json.dumps(line, default=str)


class _TextLines(logging.Formatter):
    def __init__(self, format: str, datefmt: str) -> None:  # noqa: A002 the name that logging.config passes
        super().__init__(format, datefmt)

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        tail = "".join(f" {name}={value}" for name, value in fields.items())
        return super().format(record) + tail


def logging_config(log_format: str, max_log_bytes: int = 4 * 2**20) -> dict[str, Any]:
    """A `logging.config` dictionary that sends every log to standard error, and has nobody wait for that.

    One line an event; as text, an exception's trace follows on lines of its own.

    Args:
        log_format: `json` or `text`.
        max_log_bytes: of lines that may wait to be written.
    """
    formatter: dict[str, Any] = {"()": _JsonLines} if log_format == "json" else {
        "()": _TextLines, "format": "%(asctime)s %(levelname)-7s %(message)s", "datefmt": "%H:%M:%S",
    }  # fmt: skip
    quiet = {"level": "WARNING", "handlers": ["stderr"], "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": formatter},
        "handlers": {
            "stderr": {
                "()": PatientHandler,
                "formatter": "line",
                "stream": "ext://sys.stderr",
                "most_bytes": max_log_bytes,
            }
        },
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {
            "layertap": {"level": "INFO", "handlers": ["stderr"], "propagate": False},
            "gunicorn.error": quiet,
            "gunicorn.access": quiet,
            "uvicorn.error": quiet,
        },
    }
