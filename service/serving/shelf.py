"""Owns which models there are now, and the one that a request means; it changes nothing by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from service.errors import (
    ModelLoadFailed,
    ModelLoading,
    ModelNotFound,
    ModelRequired,
    ModelUnloaded,
    VersionNotFound,
)
from service.fields import nearest
from service.repository import ModelEntry
from service.serving.served import IndexedVersion, ModelStatus, ServedModel, State


class Shelf:
    """Models by name. Any thread may read; one at a time may `put` and `remove`.

    Args:
        names: the models to begin with; they are loading.
        default_model: as the setting.
    """

    def __init__(self, names: Iterable[str], default_model: str | None) -> None:
        self._default_model = default_model
        # Replaced as a whole, so that whoever reads sees all of it before or after a change.
        self._models: Mapping[str, ModelStatus] = {name: ModelStatus(name) for name in names}
        self._generation = 0

    @property
    def generation(self) -> int:
        """Another number whenever something has changed; what `resolve` said holds until then."""
        return self._generation

    def models(self) -> Sequence[ModelStatus]:
        """Every model's status, in the order they came."""
        return tuple(self._models.values())

    def find(self, name: str) -> ModelStatus | None:
        """A model's status, or `None` where there is none of this name."""
        return self._models.get(name)

    def label(self, name: str | None) -> str | None:
        """The name of the model that a request means, served or not; `None` for one that nobody knows.

        Args:
            name: as `resolve`.
        """
        try:
            return self.status(name if name is not None else self._default()).name
        except (ModelNotFound, ModelRequired):
            return None

    def latest(self, name: str | None) -> ServedModel | None:
        """The highest version of a model that is served, if any; name as `resolve`."""
        label = self.label(name)
        return None if label is None else self._models[label].latest

    def status(self, name: str) -> ModelStatus:
        """One model's status.

        Raises:
            ModelNotFound: there is none; names the nearest.
        """
        status = self._models.get(name)
        if status is None:
            raise unknown_model(name, self._models)
        return status

    def put(self, status: ModelStatus) -> None:
        """Replaces what is known of a model, or adds it."""
        self._models = {**self._models, status.name: status}
        self._generation += 1  # after the change: whoever sees the number sees the models, too

    def remove(self, name: str) -> None:
        """Forgets a model."""
        self._models = {other: status for other, status in self._models.items() if other != name}
        self._generation += 1

    def resolve(self, name: str | None, version: int | None = None, label: str | None = None) -> ServedModel:
        """The model that a request means.

        Args:
            name: `None` means the setting `default_model`, else the only model.
            version: `None` means the highest that is served.
            label: a name of a version, instead of it.

        Raises:
            ModelRequired, ModelNotFound, VersionNotFound, ModelLoading, ModelLoadFailed, ModelUnloaded: as they
                say; VersionNotFound also for a label that the model does not have.
        """
        status = self.status(name if name is not None else self._default())
        if label is not None and status.versions:
            version = _labelled(status, label)
        served = status.latest if version is None else status.versions.get(version)
        if served is not None:
            return served
        if status.state in (State.UNLOADING, State.UNAVAILABLE):
            raise ModelUnloaded(
                f"Expected a model that is served. Received: '{status.name}', which was unloaded."
            )
        if status.state is State.LOADING or version in status.moving:
            raise ModelLoading(f"Model '{status.name}' is still loading; /readyz tells when it is done.")
        if version is not None and version not in status.errors:
            raise VersionNotFound(
                f"Expected a served version of model '{status.name}': {sorted(status.versions)}. "
                f"Received: {version}."
            )
        raise load_failed(status, version)

    def index(self, entries: Iterable[ModelEntry]) -> list[IndexedVersion]:
        """Every version that is served or lies in the folder, by name and version.

        Args:
            entries: what lies in the folder now.
        """
        inside = {entry.name: entry for entry in entries}
        models = self._models
        lines: list[IndexedVersion] = []
        for name in sorted({*inside, *models}):
            status = models.get(name) or ModelStatus(name, State.UNAVAILABLE, reason="not loaded")
            lines += _lines(status, inside.get(name))
        return lines

    def _default(self) -> str:
        if self._default_model is not None:
            return self._default_model
        names = [name for name, status in self._models.items() if status.state is not State.UNAVAILABLE]
        if len(names) == 1:
            return names[0]
        raise ModelRequired(
            f"Expected a model by name, as ?model=NAME, out of {names}. Received: none.",
            models=names,
        )


def unknown_model(name: str, names: Iterable[str]) -> ModelNotFound:
    """The error for a model that there is none of."""
    known = list(names)
    return ModelNotFound(
        f"Expected one of the models {known}. Received: {name[:80]!r}.{nearest(name, known)}",
        name=name,
        models=known,
    )


def load_failed(status: ModelStatus, version: int | None = None) -> ModelLoadFailed:
    """The error for a version that did not load; without one, for the highest of those."""
    error = status.errors[version if version is not None else max(status.errors)]
    return ModelLoadFailed(f"Model '{status.name}' failed to load: {error.message}", mend=error.mend or None)


def _labelled(status: ModelStatus, label: str) -> int:
    if label in status.labels:
        return status.labels[label]
    raise VersionNotFound(
        f"Expected a label of model '{status.name}': {sorted(status.labels)}. Received: '{label}'."
    )


def _lines(status: ModelStatus, entry: ModelEntry | None) -> list[IndexedVersion]:
    if entry is not None and entry.error is not None and not status.versions:
        return [IndexedVersion(status.name, None, "UNAVAILABLE", entry.error)]
    inside = {version.number for version in entry.versions} if entry is not None else set()
    numbers = sorted(
        {*inside, *status.versions, *status.moving, *(number for number in status.errors if number)}
    )
    return [_line(status, number) for number in numbers]


def _line(status: ModelStatus, number: int) -> IndexedVersion:
    error = status.errors.get(number) or status.errors.get(0)
    reason = error.message if error is not None else ""
    if status.state is State.UNLOADING and number in status.moving:
        return IndexedVersion(status.name, number, "UNLOADING", status.reason)
    if number in status.versions:
        return IndexedVersion(status.name, number, "READY", reason)
    if number in status.moving:
        return IndexedVersion(status.name, number, "LOADING")
    return IndexedVersion(status.name, number, "UNAVAILABLE", reason or status.reason or "not loaded")
