"""Owns what is said of a model: its state, the versions of it that answer, and what each of them is."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from service.engines import Engine
from service.errors import LoadError
from service.footprints import Footprint
from service.images import ImageInput
from service.layers import LayerIndex
from service.repository import ModelEntry, ModelVersion
from service.serving.lanes import LaneCache
from service.tensors import Activations, ModelSpec


class State(enum.StrEnum):
    """Where a model is in its life."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    UNLOADING = "unloading"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A loaded model and what is known about its file.

    Args:
        engine: compiles and runs it.
        facts: further members for `/models`: sha256, bytes, repairs, parity, ...
        phases_s: what opening it took its time for, in seconds.
        warmed: to be called once its warm functions are compiled.
    """

    engine: Engine
    facts: Mapping[str, Any] = field(default_factory=dict)
    phases_s: Mapping[str, float] = field(default_factory=dict)
    warmed: Callable[[], None] = lambda: None


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
        activations: what a row takes in memory while it is computed, where rows may have several sizes.
        load_s: seconds from opening the file to the last warm function.
        footprint: what its files looked like before they were read.
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
    activations: Activations | None
    load_s: float
    footprint: Footprint


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model, whether it can answer or not; another one takes its place whenever something changes.

    Args:
        name: the model.
        state: READY while any version answers, also while others load or fail.
        versions: those that answer.
        errors: version -> why it does not answer, or why newer files of it do not; 0 for the whole model.
        moving: versions that are being loaded or unloaded.
        labels: names of versions.
        reason: why it is unavailable.
    """

    name: str
    state: State = State.LOADING
    versions: Mapping[int, ServedModel] = field(default_factory=dict)
    errors: Mapping[int, LoadError] = field(default_factory=dict)
    moving: tuple[int, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""

    @property
    def latest(self) -> ServedModel | None:
        """The highest version that is served."""
        return self.versions[max(self.versions)] if self.versions else None


@dataclass(frozen=True, slots=True)
class IndexedVersion:
    """One line of the repository's index.

    Args:
        name: the model.
        version: `None` where the model as a whole cannot be used.
        state: `READY`, `LOADING`, `UNLOADING` or `UNAVAILABLE`. Source of the words: the Open Inference Protocol's
            model repository extension.
        reason: why it is not ready, or why newer files of it are not what answers.
    """

    name: str
    version: int | None
    state: str
    reason: str = ""
