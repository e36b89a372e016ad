"""Owns the safe look into `.keras` files: the config, the weights file inside, and copies with another config.

A `.keras` file is a zip archive with config.json, metadata.json and model.weights.h5.

Source: keras/src/saving/saving_lib.py of Keras 3.15.1.
"""

from __future__ import annotations

import json
import shutil
import stat
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from service.errors import LoadError
from service.loading.hdf5 import BOMB_EXPANSION, BOMB_FLOOR_BYTES, Contents, look, read
from service.tensors import Array

_ZIP_START = b"PK\x03\x04"

CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
METADATA = "metadata.json"
_MEMBERS = frozenset([CONFIG, WEIGHTS, METADATA, "assets"])
MAX_CONFIG_BYTES = 2**27
MAX_METADATA_BYTES = 2**20
MAX_MEMBERS = 10_000

_SAVE_AGAIN = "Save the model again with model.save('model.keras') and copy the whole file."


def is_archive(path: Path) -> bool:
    """Whether a file is a `.keras` archive by its first bytes, whatever it is called."""
    with path.open("rb") as file:
        return file.read(len(_ZIP_START)) == _ZIP_START


@dataclass(frozen=True, slots=True)
class Archive:
    """What a `.keras` file holds.

    Args:
        config: the JSON text of the model's config.
        keras_version: of the Keras that wrote it; `None` where the file does not say.
        contents: of the weights file inside.
    """

    config: str
    keras_version: str | None
    contents: Contents


def look_into(path: Path) -> Archive:
    """The contents of a `.keras` file, its members and weights vetted.

    Raises:
        LoadError: not such an archive, damaged, or holding what Keras never writes.
    """
    with _opened(path) as archive:
        names = archive.namelist()
        if CONFIG not in names or WEIGHTS not in names:
            raise LoadError(
                f"Expected {CONFIG} and {WEIGHTS} in {path.name}. Received: {', '.join(names[:5]) or 'nothing'}.",
                mend=_SAVE_AGAIN,
            )
        _vet_members(archive, path)
        with archive.open(WEIGHTS) as weights:
            contents = look(weights)
        return Archive(archive.read(CONFIG).decode("utf-8"), _version(archive), contents)


def read_config(path: Path) -> str:
    """The config's JSON text of a `.keras` file, whose members and weights are vetted.

    Raises:
        LoadError: not such an archive, damaged, or holding what Keras never writes.
    """
    return look_into(path).config


def read_arrays(path: Path) -> Iterator[Array]:
    """The values of all weights in a `.keras` file, one array after another.

    Raises:
        LoadError: the file is damaged.
    """
    with _opened(path) as archive, archive.open(WEIGHTS) as weights:
        yield from read(weights, look(weights).arrays)


@contextmanager
def with_config(path: Path, text: str) -> Iterator[IO[bytes]]:
    """The `.keras` file with this config in place of its own, as an open temporary copy."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "changed.keras"
        with _opened(path) as archive, zipfile.ZipFile(copy, "w") as changed:
            for name in archive.namelist():
                if name != CONFIG:
                    with archive.open(name) as source, changed.open(name, "w", force_zip64=True) as target:
                        shutil.copyfileobj(source, target)
            changed.writestr(CONFIG, text)
        with copy.open("rb") as file:
            yield file


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, UnicodeDecodeError, EOFError, NotImplementedError, OSError) as error:
        raise LoadError(
            f"Expected an intact .keras archive. Received: {type(error).__name__}: {error}.", mend=_SAVE_AGAIN
        ) from error


def _version(archive: zipfile.ZipFile) -> str | None:
    if METADATA not in archive.namelist() or archive.getinfo(METADATA).file_size > MAX_METADATA_BYTES:
        return None
    try:
        metadata = json.loads(archive.read(METADATA))
    except (ValueError, RecursionError):
        return None
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    return version if isinstance(version, str) else None


def _is_kerass(member: zipfile.ZipInfo) -> bool:
    """Whether a member is one of Keras' own, or an asset that stays in its folder and is no link."""
    parts = member.filename.split("/")
    inside = parts[0] in _MEMBERS and ".." not in parts and "\\" not in member.filename
    return inside and not stat.S_ISLNK(member.external_attr >> 16)


def _vet_members(archive: zipfile.ZipFile, path: Path) -> None:
    members = archive.infolist()
    odd = [member.filename for member in members if not _is_kerass(member)]
    odd += [name for name, count in Counter(archive.namelist()).items() if count > 1]
    if odd:
        raise LoadError(
            f"Expected a .keras archive as Keras writes it. Received: {path.name} with a member {odd[0][:80]!r}.",
            mend=_SAVE_AGAIN,
        )
    declared = sum(member.file_size for member in members)
    stored = sum(member.compress_size for member in members)
    too_large = archive.getinfo(CONFIG).file_size > MAX_CONFIG_BYTES
    if too_large or len(members) > MAX_MEMBERS or declared > max(BOMB_FLOOR_BYTES, BOMB_EXPANSION * stored):
        raise LoadError(
            f"Expected a .keras archive as Keras writes it. Received: {path.name} with {len(members)} members, "
            f"{declared} bytes unpacked from {stored}.",
            mend=_SAVE_AGAIN,
        )
