"""Owns a folder of entries that are whole or not there: one file each, private, checked when read, bounded together.

An entry is named by its key and holds named parts, which are bytes; what they mean is nobody's business here. It
is written beside its place and renamed, so a reader sees all of it or none. Its head says how long each part is and
carries the SHA-256 of the parts; before that stands the head's own. What does not match is removed and said so, and
nothing is read that the head does not tell of. The checksums find damage. Against forgery stand folder and file: both
must belong to this user, and nobody else may write to them (`service.cache.belongings`).

All work is done relative to the opened folder, so that it cannot be exchanged between the check and the use.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from service.cache.belongings import check_file, check_folder

_MAGIC = b"layertap-entry-2\n"
_DIGEST_BYTES = 32
_LENGTH = struct.Struct("<Q")
_START = len(_MAGIC) + _DIGEST_BYTES + _LENGTH.size
_MAX_HEAD = 2**24  # bytes; a name and a number for each part
_SUFFIX = ".entry"
_UNFINISHED = ".part"
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
                parts = _read(folder, key + _SUFFIX, self._max_bytes)
                with contextlib.suppress(OSError):  # the folder may be one that can only be read
                    os.utime(key + _SUFFIX, dir_fd=folder)
                return parts
        except FileNotFoundError:  # nothing was ever written
            return None
        except OSError as error:
            _log.info("nothing is read from the cache: %s", error)
            return None
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
            check_folder(folder, self._folder)
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


def _read(folder: int, name: str, max_bytes: int) -> dict[str, memoryview]:
    """The parts of an entry.

    Raises:
        OSError: there is none, or it is a link.
        ValueError: it is not what was written, or may not be.
    """
    flags = (
        os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    )  # a pipe would hold up whoever opens it
    file = os.open(name, flags, dir_fd=folder)
    try:
        size = check_file(file)
        if size > max_bytes:
            raise ValueError(f"its {size} bytes are more than max_cache_bytes")
        with open(file, "rb", closefd=False) as stream:
            return _unpack(stream, size)
    finally:
        os.close(file)


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
    """Magic, digest of the rest of the head, length of the index, the index; then the parts."""
    digest = hashlib.sha256()
    for part in parts.values():
        digest.update(part)
    told = {"parts": [[name, len(part)] for name, part in parts.items()], "sha256": digest.hexdigest()}
    index = json.dumps(told).encode()
    head = _LENGTH.pack(len(index)) + index
    return [_MAGIC, hashlib.sha256(head).digest(), head, *parts.values()]


def _unpack(stream: IO[bytes], size: int) -> dict[str, memoryview]:
    """What was packed.

    Args:
        stream: at its beginning.
        size: of the whole, in bytes.

    Raises:
        ValueError: it is not what was written.
    """
    start = _exactly(stream, _START)
    (length,) = _LENGTH.unpack(start[-_LENGTH.size :])
    if not start.startswith(_MAGIC) or length > _MAX_HEAD:
        raise ValueError("it does not begin as an entry")
    index = _exactly(stream, length)
    if hashlib.sha256(start[-_LENGTH.size :] + index).digest() != start[len(_MAGIC) : -_LENGTH.size]:
        raise ValueError("the checksum of its head does not match")
    sizes, digest = _read_index(index)
    left = size - _START - length
    if sum(sizes.values()) != left:
        raise ValueError("it is longer or shorter than its head says")
    content = memoryview(_exactly(stream, left))
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError("its checksum does not match")
    parts, place = {}, 0
    for name, part in sizes.items():
        parts[name] = content[place : place + part]
        place += part
    return parts


def _read_index(index: bytes) -> tuple[dict[str, int], str]:
    """The parts' sizes in bytes, in their order, and the SHA-256 of them all; ValueError where it tells no such thing."""
    try:
        told = json.loads(index)
        sizes, digest = dict(told["parts"]), told["sha256"]
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("its head tells something else") from error
    if any(type(size) is not int or size < 0 for size in sizes.values()):
        raise ValueError("its head tells of sizes that are none")
    return sizes, digest


def _exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise ValueError("it is cut off")
    return content
