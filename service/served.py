"""Owns a served model: its state, its versions, and how a file of the repository becomes one."""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from service.engines import Engine
from service.errors import LayertapError, LoadError
from service.images import ImageInput, image_input
from service.lanes import LaneCache
from service.layers import LayerIndex
from service.repository import ModelEntry, ModelVersion
from service.scheduling.scheduler import Scheduler
from service.tensors import ModelSpec

_log = logging.getLogger("layertap.models")


class State(enum.StrEnum):
    """Where a model is in its life."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A loaded model and what is known about its file.

    Args:
        engine: compiles and runs it.
        facts: further members for `/models`: sha256, bytes, repairs, parity, ...
    """

    engine: Engine
    facts: Mapping[str, Any] = field(default_factory=dict)


OpenModel = Callable[[ModelEntry, ModelVersion], OpenedModel]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One version of one model, ready to answer.

    Args:
        name: the model.
        version: the version.
        entry: its place in the repository, with its settings and class names.
        spec: what it takes and gives.
        layers: its layers by every spelling.
        images: input name -> how a picture becomes that input, for the inputs that take pictures.
        lanes: its compiled functions.
        facts: about the file, for `/models`.
        engine: the engine's name.
        load_s: seconds from opening the file to the last warm function.
    """

    name: str
    version: int
    entry: ModelEntry
    spec: ModelSpec
    layers: LayerIndex
    images: Mapping[str, ImageInput]
    lanes: LaneCache
    facts: Mapping[str, Any]
    engine: str
    load_s: float


@dataclass(slots=True)
class ModelStatus:
    """One model's state, whether it can answer or not."""

    name: str
    state: State = State.LOADING
    versions: dict[int, ServedModel] = field(default_factory=dict)
    errors: dict[int, LoadError] = field(default_factory=dict)

    @property
    def latest(self) -> ServedModel | None:
        """The highest version that is served."""
        return self.versions[max(self.versions)] if self.versions else None


@dataclass(frozen=True, slots=True)
class Workshop:
    """What it takes to make a served model.

    Args:
        open_model: loads one version of one model.
        scheduler: runs its batches.
        compiler: makes functions off the engine thread.
        max_batch_size: rows of the largest batch, unless the model says otherwise.
        max_compiled_outputs: functions kept besides the warm ones.
    """

    open_model: OpenModel
    scheduler: Scheduler
    compiler: Executor
    max_batch_size: int
    max_compiled_outputs: int


def load_entry(entry: ModelEntry, status: ModelStatus, workshop: Workshop) -> None:
    """Loads a model's versions, highest first, until one is good (or all, where its settings say so).

    Never raises for a bad file: what went wrong stands in `status.errors` and in the log.
    """
    if entry.error is not None:
        status.errors[0] = LoadError(entry.error, mend="Mend the folder or its model.toml and restart.")
        _log.error("model '%s': %s", entry.name, entry.error)
    for version in entry.versions if entry.error is None else ():
        try:
            status.versions[version.number] = _load_version(entry, version, workshop)
        except LayertapError as error:
            failure = error if isinstance(error, LoadError) else LoadError(error.message)
            _log.error(
                "model '%s' version %d: %s %s", entry.name, version.number, failure.message, failure.mend
            )
            status.errors[version.number] = failure
        except Exception as error:  # noqa: BLE001 a defect of ours must not stop the other models
            _log.exception("model '%s' version %d failed to load", entry.name, version.number)
            status.errors[version.number] = LoadError(f"{type(error).__name__}: {error}")
        else:
            if entry.config.versions == "latest":
                break
    status.state = State.READY if status.versions else State.FAILED


def _load_version(entry: ModelEntry, version: ModelVersion, workshop: Workshop) -> ServedModel:
    if version.error is not None:
        raise LoadError(version.error, mend="Mend this version's folder and restart.")
    begun = time.monotonic()
    opened = workshop.open_model(entry, version)
    engine, config = opened.engine, entry.config
    offered = None if config.layers == "any" else (*config.warm_layers, *filter(None, [config.default_layer]))
    layers = LayerIndex(entry.name, engine.spec, offered)
    lanes = LaneCache(
        f"{entry.name}/{version.number}",
        engine,
        workshop.scheduler,
        workshop.compiler,
        max_batch_size=config.max_batch_size or workshop.max_batch_size,
        max_compiled=workshop.max_compiled_outputs,
    )
    images = {
        spec.name: target
        for spec in engine.spec.inputs
        if (target := image_input(spec, config.preprocess)) is not None
    }
    for outputs in _warm_sets(layers, engine.spec, entry):
        lanes.warm(outputs)
    return ServedModel(
        name=entry.name,
        version=version.number,
        entry=entry,
        spec=engine.spec,
        layers=layers,
        images=images,
        lanes=lanes,
        facts=opened.facts,
        engine=engine.name,
        load_s=time.monotonic() - begun,
    )


def _warm_sets(layers: LayerIndex, spec: ModelSpec, entry: ModelEntry) -> list[tuple[str, ...]]:
    """The sets of paths compiled before a model is ready: predictions, the default layer, each warm layer."""
    predictions = tuple(dict.fromkeys(output.path for output in spec.outputs))
    named = entry.config.default_layer or spec.bottleneck
    wanted = [named] if named else []
    named_sets = [layers.resolve([name]) for name in (*wanted, *entry.config.warm_layers)]
    return list(dict.fromkeys([predictions, *named_sets]))
