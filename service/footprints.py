"""Owns what a model's files look like from outside, which tells whether they have changed. It reads none of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from service.repository import ModelEntry, ModelVersion

# Path, size, inode and the times of the last change of contents and of anything: a file that was replaced by one of
# the same size and date differs in the others.
Footprint: TypeAlias = frozenset[tuple[str, int, int, int, int]]

_SETTINGS = "model.toml"  # compared by what it says
_GOLDEN = "golden.npz"


def version_footprint(entry: ModelEntry, version: ModelVersion) -> Footprint:
    """Everything that a version is made from: its file, what lies beside it, and the model's code."""
    return _look_at(version_files(entry, version))


def version_files(entry: ModelEntry, version: ModelVersion) -> set[Path]:
    """The files that a version is made from; what `model.toml` says is compared by other means."""
    if entry.bare:
        return set(_bare_files(entry, version))
    beside = version.path if version.path.is_dir() else version.path.parent
    files = {*_files(entry.folder), *_files(beside)} - {entry.folder / _SETTINGS}
    return {version.path, *files, *entry.object_files}


def entry_footprint(entry: ModelEntry) -> Footprint:
    """Everything that a model is made from, all versions of it and its settings."""
    versions = [version_footprint(entry, version) for version in entry.versions]
    rest = () if entry.bare else _files(entry.folder)
    return _look_at(rest).union(*versions)


def _bare_files(entry: ModelEntry, version: ModelVersion) -> Iterator[Path]:
    stem = version.path.name[: -len(version.path.suffix)]
    yield from (path for path in _files(entry.folder) if path.name.startswith(f"{stem}."))
    yield from (*entry.object_files, entry.folder / _GOLDEN)


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.is_dir()]
    except OSError:  # it has just gone
        return []


def _look_at(paths: Iterable[Path]) -> Footprint:
    found = set()
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            continue
        found.add((str(path), stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns))
    return frozenset(found)
