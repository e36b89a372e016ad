"""Owns what lies in the models folder: names, versions, files, `model.toml`. It opens no weights.

models/iris.h5                    a bare file: name from the file, version 1
models/digits/1/model.h5          numbered folders are versions
models/digits/model.h5            a folder with one file is version 1
models/digits/model.toml          optional settings
models/digits/custom_objects.py   optional: this model's layers, losses, metrics
models/custom_objects.py          optional: shared by all models

Class names stand in model.toml, or in a file that needs no mention: classes.txt, classes.json or
class_indices.json in the model's folder; iris.classes.txt and so on beside a bare iris.h5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from service.class_names import classes_beside, read_classes
from service.errors import RepositoryError
from service.model_config import ModelConfig, read_model_config

SUFFIXES = (".h5", ".hdf5", ".keras")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_VERSION = re.compile(r"[0-9]{1,18}")
_SHARED_OBJECTS = "custom_objects.py"


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One file that can be served.

    Args:
        number: the version.
        path: the file, or the folder where there should be one.
        error: what makes this version unusable, or `None`.
    """

    number: int
    path: Path
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model of the repository.

    Args:
        name: the folder's or the file's name; bytes that are no UTF-8 are written as escapes.
        folder: where model.toml and its companions lie.
        versions: highest first; empty where `error` says why.
        config: the model's settings.
        object_files: files that define custom objects, shared ones first.
        classes: class names in label order, or empty.
        bare: whether it is a file of the models folder itself, with its companions beside it.
        error: what makes the entry unusable, or `None`.
    """

    name: str
    folder: Path
    versions: tuple[ModelVersion, ...] = ()
    config: ModelConfig = field(default_factory=ModelConfig)
    object_files: tuple[Path, ...] = ()
    classes: tuple[str, ...] = ()
    bare: bool = False
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
            message = f"Expected one file or folder for model '{entry.name}'. Received: several."
            entry = ModelEntry(entry.name, models_dir, error=message)
        entries[entry.name] = entry
    return tuple(entries[name] for name in sorted(entries))


def _bare_file(path: Path, models_dir: Path) -> ModelEntry:
    stem = path.name[: -len(path.suffix)]
    name = _printable(stem)
    shared = models_dir / _SHARED_OBJECTS
    try:
        return ModelEntry(
            name,
            models_dir,
            versions=(ModelVersion(1, path),),
            object_files=(shared,) if shared.is_file() else (),
            classes=classes_beside(models_dir, f"{stem}."),
            bare=True,
            error=_name_error(name),
        )
    except RepositoryError as error:
        return ModelEntry(name, models_dir, bare=True, error=error.message)


def _holds_model(folder: Path) -> bool:
    if (folder / "model.toml").is_file():
        return True
    try:
        children = list(folder.iterdir())
    except OSError:  # told as an entry that cannot be read
        return True
    return any(
        (child.is_file() and child.suffix.lower() in SUFFIXES) or _is_version(child) for child in children
    )


def _is_version(path: Path) -> bool:
    return path.is_dir() and _VERSION.fullmatch(path.name) is not None


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _folder(folder: Path, models_dir: Path) -> ModelEntry:
    name = _printable(folder.name)
    try:
        config = read_model_config(folder / "model.toml")
        versions = _versions(folder)
        _check_labels(config, versions, folder)
        return ModelEntry(
            name,
            folder,
            versions=versions,
            config=config,
            object_files=_object_files(folder, models_dir, config),
            classes=_classes(folder, config),
            error=_name_error(name),
        )
    except RepositoryError as error:
        return ModelEntry(name, folder, error=error.message)
    except OSError as error:
        return ModelEntry(name, folder, error=f"Expected a folder that can be read. Received: {error}.")


def _name_error(name: str) -> str | None:
    if _NAME.fullmatch(name):
        return None
    return f"Expected a model name of letters, digits, '_', '-' and '.'. Received: {name!r}."


def _versions(folder: Path) -> tuple[ModelVersion, ...]:
    numbered = [child for child in folder.iterdir() if _is_version(child)]
    if not numbered:
        return (ModelVersion(1, _model_file(folder)),)
    found: dict[int, ModelVersion] = {}
    for child in sorted(numbered):
        version = _version(child)
        if version.number in found:
            message = f"Expected one folder for version {version.number} in {folder}. Received: several."
            version = ModelVersion(version.number, child, message)
        found[version.number] = version
    return tuple(found[number] for number in sorted(found, reverse=True))


def _version(folder: Path) -> ModelVersion:
    """A version whose file is missing is listed with its error, so that it does not hide the good ones."""
    try:
        return ModelVersion(int(folder.name), _model_file(folder))
    except (RepositoryError, OSError) as error:
        return ModelVersion(int(folder.name), folder, str(error))


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
        if ":" in name:  # an attribute of an installed package; loading imports it
            continue
        path = folder / name
        if path.is_file():
            files.append(path)
        elif name != _SHARED_OBJECTS:  # the default need not exist
            raise RepositoryError(f"Expected the custom_objects file {path}. Received: nothing there.")
    return tuple(files)


def _check_labels(config: ModelConfig, versions: tuple[ModelVersion, ...], folder: Path) -> None:
    numbers = sorted(version.number for version in versions)
    for label, number in (config.labels or {}).items():
        if not _NAME.fullmatch(label):
            raise RepositoryError(
                f"Expected labels of letters, digits, '_', '-' and '.' in {folder}. Received: {label!r}."
            )
        if number not in numbers:
            raise RepositoryError(
                f"Expected labels of versions that are in {folder}: {numbers}. Received: {label} = {number}."
            )


def _classes(folder: Path, config: ModelConfig) -> tuple[str, ...]:
    if isinstance(config.classes, str):
        return read_classes(folder / config.classes)
    return config.classes or classes_beside(folder)
