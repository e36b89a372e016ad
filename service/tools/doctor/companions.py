"""Owns what lies beside a model file and belongs to it: `model.toml`, `custom_objects.py`, an architecture.

Source: service/repository.py, which says what the models folder looks like.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from service.model_config import ModelConfig, read_model_config

_SETTINGS = "model.toml"
_OBJECTS = "custom_objects.py"


@dataclass(frozen=True, slots=True)
class Companions:
    """What belongs to a file.

    Args:
        config: of its model.toml.
        object_files: Python files that define custom objects; a later one wins.
        object_names: what installed packages define by `module:attribute`, as model.toml says.
        folders: where an architecture is looked for.
    """

    config: ModelConfig
    object_files: tuple[Path, ...]
    object_names: tuple[str, ...]
    folders: tuple[Path, ...]


def companions(path: Path, given: tuple[Path, ...] = ()) -> Companions:
    """What belongs to the model file at `path`.

    Args:
        path: the file.
        given: further files that define custom objects.

    Raises:
        RepositoryError: its model.toml is wrong.
    """
    folder = path.resolve().parent
    model_folder = folder.parent if folder.name.isdecimal() else folder
    config = read_model_config(model_folder / _SETTINGS)
    named = [name for name in config.custom_objects if ":" not in name]
    files = [
        model_folder.parent / _OBJECTS,
        *(model_folder / name for name in dict.fromkeys([_OBJECTS, *named])),
    ]
    return Companions(
        config,
        tuple(file for file in [*files, *given] if file.is_file()),
        tuple(name.rpartition(":")[2] for name in config.custom_objects if ":" in name),
        tuple(dict.fromkeys([folder, model_folder])),
    )
