"""Owns how this process opens models: as an earlier start left them, else from their files with TensorFlow.

TensorFlow is imported, and the device settings are applied to it, when something first needs it. Where there may
be a GPU that is at the start, because only TensorFlow tells.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from functools import partial
from pathlib import Path
from typing import Any

from service.accusations import Loading, mark_of
from service.cache.vault import Vault
from service.cores import usable_cores
from service.device import DeviceOptions, apply, foresee
from service.engines import Engine
from service.engines.choice import EngineOptions
from service.footprints import version_footprint
from service.repository import ModelEntry, ModelVersion
from service.serving.reopening import ModelCache
from service.serving.served import OpenedModel
from service.settings import Settings
from service.startup import timed
from service.telemetry import Metrics

_log = logging.getLogger("layertap.service")

_PARITY_TOLERANCE = 1e-4  # of an output's scale, float32, against Keras run eagerly
_FOLDER = "models"


class Opener:
    """Opens models for one process.

    Args:
        settings: everything it is told.
        metrics: what is counted.
        loading: notes what is being loaded, for whoever finds this process dead.

    Attributes:
        device: the device settings in force, for `/models`; filled by `start`.
        phases_s: how long TensorFlow took to import and set up, once it has been.
    """

    def __init__(self, settings: Settings, metrics: Metrics, loading: Loading) -> None:
        self.device: dict[str, Any] = {}
        self.phases_s: dict[str, float] = {}
        self._settings = settings
        self._metrics = metrics
        self._loading = loading
        self._cache = ModelCache(_vault(settings))
        self._tensorflow = threading.Lock()
        self._set_up = False

    def start(self) -> None:
        """Sees to the device settings; call it after fork.

        Raises:
            SettingsError: they cannot be met.
        """
        report = foresee(self._device_options())
        if report is None:
            self._set_tensorflow_up()
        else:
            self._tell(report.as_dict())

    def open(self, entry: ModelEntry, version: ModelVersion) -> OpenedModel:
        """One version of a model, proved; called on the loading thread.

        Raises:
            LoadError: it cannot be loaded.
        """
        opened = self._open(entry, version)
        if (reason := opened.facts["precision_reason"]) is not None:
            _log.warning("model '%s' version %d: %s", entry.name, version.number, reason)
        return opened

    def _open(self, entry: ModelEntry, version: ModelVersion) -> OpenedModel:
        options = self._engine_options(entry)
        key_now = partial(self._cache.key, entry, version, options)
        key = key_now()
        found = self._cache.find(key, options, partial(self._open_tensorflow, entry, version))
        if found is not None:
            return found
        opened = self._open_file(entry, version, options)
        if key is None:
            return opened
        return dataclasses.replace(opened, warmed=lambda: self._cache.keep(key, opened, key_now))

    def _open_file(self, entry: ModelEntry, version: ModelVersion, options: EngineOptions) -> OpenedModel:
        self._set_tensorflow_up()
        from service.serving.opening import open_model  # noqa: PLC0415 imports TensorFlow

        return open_model(
            entry,
            version,
            tolerance=_PARITY_TOLERANCE,
            engine_options=options,
            buckets_to=self._buckets_to(entry),
            on_trace=self._metrics.traces.labels(entry.name).inc,
            on_padding=self._metrics.padding_rows.labels(entry.name).inc,
        )

    def _open_tensorflow(self, entry: ModelEntry, version: ModelVersion, sha256: str) -> Engine:
        _log.info("model '%s' version %d: loading TensorFlow for what OpenVINO does not compute",
                  entry.name, version.number)  # fmt: skip
        self._set_tensorflow_up()
        from service.serving.opening import open_tensorflow  # noqa: PLC0415 imports TensorFlow

        with self._loading.noted(entry.name, version.number, mark_of(version_footprint(entry, version))):
            return open_tensorflow(
                entry,
                version,
                sha256,
                buckets_to=self._buckets_to(entry),
                on_trace=self._metrics.traces.labels(entry.name).inc,
                on_padding=self._metrics.padding_rows.labels(entry.name).inc,
            )

    def _set_tensorflow_up(self) -> None:
        """Once per process; several threads may come.

        Raises:
            SettingsError: a setting cannot be met.
        """
        with self._tensorflow:
            if self._set_up:
                return
            with timed(self.phases_s, "tensorflow"):
                report = apply(self._device_options())
            self._set_up = True
            self._tell(report.as_dict())

    def _tell(self, report: dict[str, Any]) -> None:
        if self.device != report:
            self.device.update(report)
            _log.info("device settings in force", extra={"fields": self.device})

    def _buckets_to(self, entry: ModelEntry) -> int | None:
        settings = self._settings
        on = settings.batch_buckets
        if on == "on" or (on == "auto" and self.device.get("kind") == "gpu"):
            return entry.config.max_batch_size or settings.max_batch_size
        return None

    def _engine_options(self, entry: ModelEntry) -> EngineOptions:
        settings = self._settings
        options = EngineOptions(
            engine=settings.engine,
            precision=settings.precision,
            gpu=self.device.get("kind") == "gpu",
            threads=self.device.get("intra_op_threads") or usable_cores(),
            max_batch_size=settings.max_batch_size,
            on_fallback=self._metrics.engine_fallbacks.labels(entry.name).inc,
        )
        return options.of(entry.config)

    def _device_options(self) -> DeviceOptions:
        settings = self._settings
        return DeviceOptions(
            gpu_memory_fraction=settings.gpu_memory_fraction,
            gpu_allow_growth=settings.gpu_allow_growth,
            visible_gpus=settings.visible_gpus,
            intra_op_threads=settings.intra_op_threads,
            inter_op_threads=settings.inter_op_threads,
            workers=settings.workers,
        )


def _vault(settings: Settings) -> Vault | None:
    if not settings.cache_dir:
        return None
    try:
        folder = Path(settings.cache_dir).expanduser()
    except RuntimeError:  # a user without a home
        return None
    return Vault(folder / _FOLDER, settings.max_cache_bytes)
