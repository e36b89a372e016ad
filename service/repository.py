"""Owns what lies in the models folder: names, versions, files, `model.toml`. It opens no weights.

models/iris.h5                    a bare file: name from the file, version 1
models/digits/1/model.h5          numbered folders are versions
models/digits/model.h5            a folder with one file is version 1
models/digits/model.toml          optional settings
models/digits/custom_objects.py   optional: this model's layers, losses, metrics
models/custom_objects.py          optional: shared by all models
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import RepositoryError
from service.model_config import ModelConfig, read_model_config

SUFFIXES = (".h5", ".hdf5", ".keras")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SHARED_OBJECTS = "custom_objects.py"


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One file that can be served.

    Args:
        number: the version.
        path: the file.
    """

    number: int
    path: Path


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model of the repository.

    Args:
        name: the folder's or the file's name.
        folder: where model.toml and its companions lie.
        versions: highest first; empty where `error` says why.
        config: the model's settings.
        object_files: files that define custom objects, shared ones first.
        classes: class names in label order, or empty.
        error: what makes the entry unusable, or `None`.
    """

    name: str
    folder: Path
    versions: tuple[ModelVersion, ...] = ()
    config: ModelConfig = field(default_factory=ModelConfig)
    object_files: tuple[Path, ...] = ()
    classes: tuple[str, ...] = ()
    error: str | None = None


def scan(models_dir: Path) -> tuple[ModelEntry, ...]:
    """The models in a folder, by name; a broken entry is listed with its error and never hides the others.

    Raises:
        RepositoryError: the folder does not exist.
    """
    if not models_dir.is_dir():
        raise RepositoryError(f"Expected a folder of models at {models_dir}. Received: nothing there.")
    entries: dict[str, ModelEntry] = {}
    for path in sorted(models_dir.iterdir()):
        if path.name.startswith((".", "_")):
            continue
        if path.is_file() and path.suffix.lower() in SUFFIXES:
            entry = _bare_file(path, models_dir)
        elif path.is_dir() and _holds_model(path):
            entry = _folder(path, models_dir)
        else:
            continue
        if entry.name in entries:
            message = f"Expected one model named '{entry.name}'. Received: a file and a folder of that name."
            entry = ModelEntry(entry.name, models_dir, error=message)
        entries[entry.name] = entry
    return tuple(entries.values())


def _bare_file(path: Path, models_dir: Path) -> ModelEntry:
    name = path.name[: -len(path.suffix)]
    shared = models_dir / _SHARED_OBJECTS
    return ModelEntry(
        name,
        models_dir,
        versions=(ModelVersion(1, path),),
        object_files=(shared,) if shared.is_file() else (),
        error=_name_error(name),
    )


def _holds_model(folder: Path) -> bool:
    if (folder / "model.toml").is_file():
        return True
    children = list(folder.iterdir())
    return any(
        (child.is_file() and child.suffix.lower() in SUFFIXES) or (child.is_dir() and child.name.isdecimal())
        for child in children
    )


def _folder(folder: Path, models_dir: Path) -> ModelEntry:
    name = folder.name
    try:
        config = read_model_config(folder / "model.toml")
        return ModelEntry(
            name,
            folder,
            versions=_versions(folder),
            config=config,
            object_files=_object_files(folder, models_dir, config),
            classes=_classes(folder, config),
            error=_name_error(name),
        )
    except RepositoryError as error:
        return ModelEntry(name, folder, error=error.message)


def _name_error(name: str) -> str | None:
    if _NAME.fullmatch(name):
        return None
    return f"Expected a model name of letters, digits, '_', '-' and '.'. Received: {name!r}."


def _versions(folder: Path) -> tuple[ModelVersion, ...]:
    numbered = [child for child in folder.iterdir() if child.is_dir() and child.name.isdecimal()]
    if not numbered:
        return (ModelVersion(1, _model_file(folder)),)
    found = [ModelVersion(int(child.name), _model_file(child)) for child in numbered]
    return tuple(sorted(found, key=lambda version: version.number, reverse=True))


def _model_file(folder: Path) -> Path:
    files = sorted(f for f in folder.iterdir() if f.is_file() and f.suffix.lower() in SUFFIXES)
    preferred = [f for f in files if f.name.split(".")[0] == "model"]
    if len(preferred or files) == 1:
        return (preferred or files)[0]
    received = ", ".join(f.name for f in files) or "none"
    raise RepositoryError(
        f"Expected one model file ({', '.join(SUFFIXES)}) in {folder}, or one of them named model.*. "
        f"Received: {received}."
    )


def _object_files(folder: Path, models_dir: Path, config: ModelConfig) -> tuple[Path, ...]:
    shared = models_dir / _SHARED_OBJECTS
    files = [shared] if shared.is_file() else []
    for name in config.custom_objects:
        path = folder / name
        if path.is_file():
            files.append(path)
        elif name != _SHARED_OBJECTS:  # the default need not exist
            raise RepositoryError(f"Expected the custom_objects file {path}. Received: nothing there.")
    return tuple(files)


def _classes(folder: Path, config: ModelConfig) -> tuple[str, ...]:
    if not isinstance(config.classes, str):
        return config.classes
    path = folder / config.classes
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return tuple(line.strip() for line in text.splitlines() if line.strip())
        return _classes_from_json(json.loads(text))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RepositoryError(
            f"Expected class names in {path}: one a line, or JSON as a list, as name -> index, or as index -> "
            f"name. Received: {type(error).__name__}: {error}."
        ) from error


def _classes_from_json(value: object) -> tuple[str, ...]:
    """A list, Keras' `class_indices` (name -> index), or the ImageNet style (index -> name or [id, name])."""
    if isinstance(value, list):
        return tuple(str(name) for name in value)
    if not isinstance(value, dict):
        raise TypeError(f"a {type(value).__name__}")
    if all(isinstance(index, int) for index in value.values()):
        by_index = {index: str(name) for name, index in value.items()}
    else:
        by_index = {
            int(index): str(name[-1] if isinstance(name, list) else name) for index, name in value.items()
        }
    return tuple(by_index[index] for index in range(len(by_index)))
