"""Owns how an entry of the repository becomes served models: which versions, what is kept, what is told of failures."""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass

from service.accusations import Loading, mark_of
from service.engines import Engine
from service.errors import LayertapError, LoadError
from service.footprints import Footprint, version_footprint
from service.images import image_input
from service.layers import LayerIndex
from service.model_config import ModelConfig
from service.repository import ModelEntry, ModelVersion
from service.scheduling.scheduler import Scheduler
from service.scheduling.schedulers import Schedulers
from service.serving.compiling import Compiler
from service.serving.errands import run_within
from service.serving.lanes import LaneCache
from service.serving.served import ModelStatus, OpenModel, ServedModel, State
from service.startup import timed
from service.tensors import ModelSpec

_log = logging.getLogger("layertap.models")


@dataclass(frozen=True, slots=True)
class Workshop:
    """What it takes to make a served model.

    Args:
        open_model: loads one version of one model.
        schedulers: run its batches.
        compiler: makes functions off the engine thread.
        reserves: makes those that only some rows need, which takes longer.
        max_batch_size: rows of the largest batch, unless the model says otherwise.
        max_compiled_outputs: functions kept besides the warm ones.
        load_timeout_s: how long one version may take until it is reported failed.
        loading: notes what is being loaded, and refuses what has ended a process.
    """

    open_model: OpenModel
    schedulers: Schedulers
    compiler: Compiler
    reserves: Compiler
    max_batch_size: int
    max_compiled_outputs: int
    load_timeout_s: float
    loading: Loading

    def load(self, entry: ModelEntry, before: ModelStatus) -> ModelStatus:
        """The model's status with the files as they are now; slow.

        The highest good version is served, and those that have a label; or all, where the model's settings say so.
        A version whose files are what they were is kept as it is. Where newer files fail, what was served goes on.
        Never raises for a bad file: what went wrong stands in the status and in the log. That goes for code of a
        model that exits or never ends, too; see `run_within` for what is left of the latter.
        """
        versions: dict[int, ServedModel] = {}
        errors: dict[int, LoadError] = {}
        if entry.error is not None:
            errors[0] = LoadError(entry.error, mend="Mend the folder or its model.toml and load it again.")
            _log.error("model '%s': %s", entry.name, entry.error)
        for version in entry.versions if entry.error is None else ():
            if not _is_wanted(entry.config, version.number, found=bool(versions)):
                continue
            served = before.versions.get(version.number)
            try:
                versions[version.number] = self._load_in_time(entry, version, served)
            except BaseException as error:  # noqa: BLE001 neither a defect of ours nor SystemExit stops other models
                errors[version.number] = _failure(entry.name, version.number, error)
                if served is not None:
                    versions[version.number] = served
        labels = before.labels if entry.error is not None else entry.config.labels
        versions = versions or dict(before.versions)
        state = State.READY if versions else State.FAILED
        return ModelStatus(entry.name, state, versions, errors, labels=labels or {})

    def _load_in_time(
        self, entry: ModelEntry, version: ModelVersion, served: ServedModel | None
    ) -> ServedModel:
        try:
            return run_within(
                lambda: self._load_version(entry, version, served),
                self.load_timeout_s,
                f"layertap-load-{entry.name}-{version.number}",
            )
        except TimeoutError as error:
            raise LoadError(
                f"Expected it to load within {self.load_timeout_s:g} s (load_timeout_s). Received: no end so far.",
                mend="Allow it more time, or see what its code waits for. Its thread cannot be ended: it keeps its "
                "memory, and what it computes with, until it ends by itself or the service is started again.",
            ) from error

    def _load_version(
        self, entry: ModelEntry, version: ModelVersion, served: ServedModel | None
    ) -> ServedModel:
        if version.error is not None:
            raise LoadError(version.error, mend="Mend this version's folder and load it again.")
        begun = time.monotonic()
        footprint = version_footprint(entry, version)  # before it is read: what changes meanwhile will differ
        if served is not None and served.footprint == footprint and _same_model(served.entry, entry):
            return dataclasses.replace(served, entry=entry)
        with self.loading.noted(entry.name, version.number, mark_of(footprint)):
            return self._make(entry, version, footprint, begun)

    def _make(
        self, entry: ModelEntry, version: ModelVersion, footprint: Footprint, begun: float
    ) -> ServedModel:
        opened = self.open_model(entry, version)
        engine, config = opened.engine, entry.config
        offered = (
            None if config.layers == "any" else (*config.warm_layers, *filter(None, [config.default_layer]))
        )
        layers = LayerIndex(entry.name, engine.spec, offered)
        phases_s = dict(opened.phases_s)
        with timed(phases_s, "warm"):
            lanes = self._warm_lanes(entry, version, engine, layers)
        with timed(phases_s, "keep"):
            opened.warmed()
        inputs = {spec.name: image_input(spec, config.preprocess) for spec in engine.spec.inputs}
        return ServedModel(
            name=entry.name,
            version=version.number,
            entry=entry,
            spec=engine.spec,
            layers=layers,
            images={name: target for name, target in inputs.items() if target is not None},
            lanes=lanes,
            facts={**opened.facts, "phases_s": {name: round(part, 3) for name, part in phases_s.items()}},
            engine=engine.name,
            activations=engine.activations,
            load_s=time.monotonic() - begun,
            footprint=footprint,
        )

    def _warm_lanes(
        self, entry: ModelEntry, version: ModelVersion, engine: Engine, layers: LayerIndex
    ) -> LaneCache:
        schedulers = self.schedulers
        scheduler = schedulers.own() if _may_block(entry, engine) else schedulers.shared
        try:
            return self._warmed(entry, version, engine, layers, scheduler)
        except BaseException:
            schedulers.let_go(scheduler)
            raise

    def _warmed(
        self,
        entry: ModelEntry,
        version: ModelVersion,
        engine: Engine,
        layers: LayerIndex,
        scheduler: Scheduler,
    ) -> LaneCache:
        lanes = LaneCache(
            (entry.name, version.number),
            engine,
            scheduler,
            self.compiler,
            self.reserves,
            max_batch_size=entry.config.max_batch_size or self.max_batch_size,
            max_compiled=self.max_compiled_outputs,
        )
        for outputs in _warm_sets(layers, engine.spec, entry):
            lanes.warm(outputs)
        return lanes


def _may_block(entry: ModelEntry, engine: Engine) -> bool:
    """Whether a model gets an engine thread of its own: nobody knows how long its batches may take.

    Python code of its own may run in each of them, or its rows may have any size.
    """
    said = entry.config.engine_thread
    if said != "auto":
        return said == "own"
    has_code = bool(entry.object_files) or (entry.config.architecture or "").startswith("builder:")
    return (has_code and engine.name == "tensorflow") or engine.activations is not None


def candidates(entry: ModelEntry) -> tuple[int, ...]:
    """The versions that loading an entry tries first."""
    numbers = [version.number for version in entry.versions]
    return tuple(
        number for number in numbers if _is_wanted(entry.config, number, found=number != max(numbers))
    )


def _is_wanted(config: ModelConfig, number: int, *, found: bool) -> bool:
    return not found or config.versions == "all" or number in (config.labels or {}).values()


def _same_model(before: ModelEntry, now: ModelEntry) -> bool:
    """Whether two entries differ at most in what can be said anew of a loaded model."""
    config = dataclasses.replace(before.config, labels=now.config.labels, versions=now.config.versions)
    return config == now.config and before.object_files == now.object_files


def _failure(name: str, version: int, error: BaseException) -> LoadError:
    """What is told of it; without the trace, which would keep all of a half-loaded model in memory."""
    if isinstance(error, LayertapError):
        mend = error.mend if isinstance(error, LoadError) else ""
        _log.error("model '%s' version %d: %s %s", name, version, error.message, mend)
        return LoadError(error.message, mend=mend)
    _log.error("model '%s' version %d failed to load", name, version, exc_info=error)
    if not isinstance(error, Exception):
        return LoadError(
            f"Expected a model that loads. Received: one whose code ends its thread ({type(error).__name__}).",
            mend="Take the call of sys.exit, or what raises it, out of its custom objects.",
        )
    return LoadError(f"{type(error).__name__}: {error}")


def _warm_sets(layers: LayerIndex, spec: ModelSpec, entry: ModelEntry) -> list[tuple[str, ...]]:
    """The sets of paths compiled before a model is ready: predictions, the default layer, each warm layer."""
    predictions = spec.predictions
    named = entry.config.default_layer or spec.bottleneck
    wanted = [named] if named else []
    named_sets = [layers.resolve([name]) for name in (*wanted, *entry.config.warm_layers)]
    return list(dict.fromkeys([predictions, *named_sets]))
