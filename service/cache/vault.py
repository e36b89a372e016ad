"""Owns a folder of entries that are whole or not there: one file each, private, checked when read, bounded together.

An entry is named by its key and holds named parts, which are bytes; what they mean is nobody's business here. It
is written beside its place and renamed, so a reader sees all of it or none. It carries the SHA-256 of everything
behind it; one that does not match is removed and said so. The checksum finds damage. Against forgery stands the
folder: it must belong to this user, and nobody else may write into it.

All work is done relative to the opened folder, so that it cannot be exchanged between the check and the use.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_MAGIC = b"layertap-entry-1\n"
_DIGEST_BYTES = 32
_LENGTH = struct.Struct("<Q")
_SUFFIX = ".entry"
_UNFINISHED = ".part"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_log = logging.getLogger("layertap.cache")


class Vault:
    """Entries in one folder, shared by every process of this user that names it.

    Args:
        folder: made when first written to, for this user only.
        max_bytes: of all entries together; the least recently used ones go.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def read(self, key: str) -> dict[str, memoryview] | None:
        """An entry's parts, or `None` where there is none that can be relied on; the log says why.

        Args:
            key: a name without separators, as `service.cache.keys` makes them.
        """
        try:
            with self._open_folder() as folder:
                content = _read(folder, key + _SUFFIX)
                if content is None:
                    return None
                with contextlib.suppress(OSError):  # the folder may be one that can only be read
                    os.utime(key + _SUFFIX, dir_fd=folder)
        except FileNotFoundError:  # nothing was ever written
            return None
        except OSError as error:
            _log.info("nothing is read from the cache: %s", error)
            return None
        try:
            return _unpack(content)
        except ValueError as error:
            self.discard(key, str(error))
            return None

    def is_writable(self) -> bool:
        """Whether anything can be kept; the log says why not. The folder is made."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._open_folder() as folder:
                if os.access(".", os.W_OK | os.X_OK, dir_fd=folder):
                    return True
                raise PermissionError(f"Expected to be able to write into {self._folder}.")
        except OSError as error:
            _log.info("nothing is kept for the next start: %s", error)
            return False

    def write(self, key: str, parts: Mapping[str, bytes | memoryview]) -> bool:
        """Keeps an entry, in the place of one of the same key; whether that could be done.

        Args:
            key: as `read`.
            parts: name -> bytes.
        """
        pieces = _pack(parts)
        size = sum(len(piece) for piece in pieces)
        if size > self._max_bytes:
            _log.info("not kept for the next start: %d bytes are more than max_cache_bytes", size)
            return False
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._open_folder() as folder:
                _write(folder, key + _SUFFIX, pieces)
                self._evict(folder, key + _SUFFIX)
        except OSError as error:
            _log.info("not kept for the next start: %s", error)
            return False
        return True

    def discard(self, key: str, why: str) -> None:
        """Removes an entry that is of no use.

        Args:
            key: as `read`.
            why: for the log.
        """
        _log.warning("a cache entry is of no use and is made again: %s", why)
        with contextlib.suppress(OSError), self._open_folder() as folder:
            os.unlink(key + _SUFFIX, dir_fd=folder)

    @contextlib.contextmanager
    def _open_folder(self) -> Iterator[int]:
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(folder)
            if found.st_uid != os.geteuid() or found.st_mode & _OTHERS_WRITE:
                raise PermissionError(
                    f"Expected {self._folder} to be this user's own, and nobody else to write there. "
                    f"Received: user {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}."
                )
            yield folder
        finally:
            os.close(folder)

    def _evict(self, folder: int, newest: str) -> None:
        """Removes what was used least recently, until the rest fits; and what a crash left unfinished."""
        found = []
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):  # another process was quicker
                if name.endswith(_SUFFIX):
                    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    found.append((name == newest, status.st_mtime_ns, status.st_size, name))
                elif name.endswith(_UNFINISHED) and not _writer_lives(name):
                    os.unlink(name, dir_fd=folder)
        room = self._max_bytes
        for _, _, size, name in sorted(found, reverse=True):
            room -= size
            if room < 0:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=folder)


def _read(folder: int, name: str) -> bytes | None:
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    with open(file, "rb") as stream:  # noqa: PTH123 a descriptor has no path
        return stream.read()


def _write(folder: int, name: str, pieces: Sequence[bytes | memoryview]) -> None:
    unfinished = f"{name}.{os.getpid()}.{secrets.token_hex(4)}{_UNFINISHED}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(unfinished, flags, 0o600, dir_fd=folder)
    try:
        with open(file, "wb") as stream:  # noqa: PTH123 a descriptor has no path
            stream.writelines(pieces)
        os.replace(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished, dir_fd=folder)
        raise


def _writer_lives(name: str) -> bool:
    try:
        os.kill(int(name.split(".")[-3]), 0)
    except (ValueError, IndexError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _pack(parts: Mapping[str, bytes | memoryview]) -> list[bytes | memoryview]:
    """Magic, digest of the rest, length of the index, the index, the parts."""
    index = json.dumps([[name, len(part)] for name, part in parts.items()]).encode()
    behind = [_LENGTH.pack(len(index)), index, *parts.values()]
    digest = hashlib.sha256()
    for piece in behind:
        digest.update(piece)
    return [_MAGIC, digest.digest(), *behind]


def _unpack(content: bytes) -> dict[str, memoryview]:
    """What was packed.

    Raises:
        ValueError: it is not what was written.
    """
    head = len(_MAGIC) + _DIGEST_BYTES
    view = memoryview(content)
    behind = view[head:]
    if not content.startswith(_MAGIC) or hashlib.sha256(behind).digest() != view[len(_MAGIC) : head]:
        raise ValueError("its checksum does not match")
    (length,) = _LENGTH.unpack(behind[: _LENGTH.size])
    start = _LENGTH.size + length
    parts = {}
    for name, size in json.loads(bytes(behind[_LENGTH.size : start])):
        parts[name] = behind[start : start + size]
        start += size
    return parts
