"""Owns the files that name a model's classes, in label order: one a line, or JSON as Keras and ImageNet write it."""

from __future__ import annotations

import json
from pathlib import Path

from service.errors import RepositoryError

_CLASS_FILES = ("classes.txt", "classes.json", "class_indices.json")  # the first that exists counts


def classes_beside(folder: Path, prefix: str = "") -> tuple[str, ...]:
    """The names in a file that needs no mention; empty where there is none.

    Args:
        folder: where it would lie.
        prefix: what its name begins with.

    Raises:
        RepositoryError: it makes no sense.
    """
    for name in _CLASS_FILES:
        path = folder / f"{prefix}{name}"
        if path.is_file():
            return read_classes(path)
    return ()


def read_classes(path: Path) -> tuple[str, ...]:
    """The names in a file, in label order.

    Raises:
        RepositoryError: it is missing or makes no sense.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows put a mark in front
        if path.suffix != ".json":
            return tuple(line.strip() for line in text.splitlines() if line.strip())
        return _classes_from_json(json.loads(text))
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise RepositoryError(
            f"Expected class names in {path}: one a line, or JSON as a list, as name -> index, or as index -> "
            f"name. Received: {type(error).__name__}: {error}."
        ) from error


def _classes_from_json(value: object) -> tuple[str, ...]:
    """A list, Keras' `class_indices` (name -> index), or the ImageNet style (index -> name or [id, name])."""
    if isinstance(value, list):
        return tuple(_class_name(name) for name in value)
    if not isinstance(value, dict):
        raise TypeError(f"a {type(value).__name__}")
    if all(isinstance(index, int) for index in value.values()):
        by_index = {index: name for name, index in value.items()}
    else:
        by_index = {
            int(index): _class_name(name[-1] if isinstance(name, list) else name)
            for index, name in value.items()
        }
    return tuple(by_index[index] for index in range(len(value)))


def _class_name(value: object) -> str:
    if isinstance(value, str | int | float):
        return str(value)
    raise TypeError(f"a {type(value).__name__} as a name")
