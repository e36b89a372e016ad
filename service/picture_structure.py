"""Owns what the structure of a picture file may cost: how many parts it has, and how often its pixels are gone over.

Pillow reads the parts of a file in Python, some of them one byte at a time, and decodes as many scans as there are: 20 KB
can take half a minute. So the parts are counted first, no further than the bounds, and passes over the pixels before they
are decoded. What is odd in other ways is Pillow's to tell.

Sources: ITU-T T.81, annex B (JPEG); RFC 2083, section 3 (PNG); the GIF89a specification; TIFF 6.0, section 2, and BigTIFF.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from service.errors import ImageTooLarge, UndecodableImage
from service.memory import pay

_MAX_PARTS = 65_536  # chunks of a PNG, blocks before a GIF's first frame
_MAX_PACKED_PARTS = 8  # of a PNG: texts and profiles, each of which may unpack to a megabyte
_MAX_UNPACKED, _MAX_RATIO = (
    2**20,
    1032,
)  # bytes of one, as Pillow has it, and for each packed byte, as zlib has it
_TEXT_TIMES = 5  # bytes, and characters of four bytes
_MAX_SEGMENTS = 1024  # before a JPEG's first scan
_MAX_SEGMENT_BYTES = 16 * 2**20
_MAX_JUNK_BYTES = 4096  # between them
_MAX_TAGS = 4096  # of a TIFF
_MAX_TAG_VALUES = 262_144  # numbers in them: the colours of a 16-bit palette are 196,608
_MAX_FRACTIONS = 4096
_MAX_STRIPS = 20_000

_FREE_WORK = 100_000_000  # pixels that may be gone over, whatever the file's size: a third of a second
_WORK_PER_BYTE = 256  # and more for each of its bytes: about a microsecond
_RLE_PASSES = 64  # Pillow reads run lengths in Python; a pixel takes it as long as so many elsewhere

_MAX_KEYWORD = 80  # bytes of a text's name, and the flag behind it
_STRIP_TAGS = (273, 324)
_FRACTIONS = (5, 10)
_BYTES = (1, 2, 6, 7)
_SIZES = {
    3: 2,
    4: 4,
    5: 8,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}  # bytes of a value by its type
_STANDALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length


def check_parts(data: bytes | memoryview) -> None:
    """Refuses a file of more parts than pictures have, before anything else looks at them.

    Raises:
        UndecodableImage: it has too many.
        MemoryFull, BodyTooLarge: those that are unpacked take too much, see `service.memory`.
    """
    data = bytes(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(data)
    elif data.startswith(b"GIF8"):
        _check_gif(data)
    elif data.startswith((b"II", b"MM")):
        _check_tiff(data)
    elif data.startswith(b"\xff\xd8"):
        _walk_jpeg(data)


def check_work(picture: Any, data: bytes | memoryview) -> None:
    """Refuses a picture whose pixels would be gone over too often for the size of its file.

    Args:
        picture: a `PIL.ImageFile.ImageFile`, opened and not yet decoded.
        data: the file.

    Raises:
        ImageTooLarge: it would.
    """
    pixels = picture.width * picture.height
    work = _passes(picture, bytes(data)) * max(pixels, _tiled_pixels(picture))
    allowed = _FREE_WORK + _WORK_PER_BYTE * len(data)
    if work > allowed:
        raise ImageTooLarge(
            f"Expected a picture whose pixels are gone over at most {allowed} times in all, {_FREE_WORK} and "
            f"{_WORK_PER_BYTE} for each byte of its file. Received: {pixels} pixels, gone over {work} times in all."
        )


def is_progressive(picture: Any) -> bool:
    """Whether a JPEG has its pixels in several scans, for which its decoder keeps all coefficients."""
    return bool(picture.info.get("progressive"))


def _tiled_pixels(picture: Any) -> int:
    """Pixels of all tiles or strips: they may lie upon each other."""
    extents = [tile[1] for tile in picture.tile if tile[1] is not None]
    return sum((right - left) * (lower - upper) for left, upper, right, lower in extents)


def _passes(picture: Any, data: bytes) -> int:
    if picture.format in ("JPEG", "MPO"):
        components, in_first_scan = _walk_jpeg(data)
        if in_first_scan < components or is_progressive(picture):
            return max(1, data.count(b"\xff\xda"))
    elif picture.format == "TIFF" and "jpeg" in str(picture.info.get("compression")):
        return math.ceil(data.count(b"\xff\xda") / max(1, len(picture.tile)))
    elif picture.format == "BMP" and picture.tile and picture.tile[0][0] == "bmp_rle":
        return _RLE_PASSES
    return 1


def _too_many(what: str, most: int) -> UndecodableImage:
    return UndecodableImage(f"Expected a picture with at most {most} {what}. Received: one with more.")


def _check_png(data: bytes) -> None:
    place, packed = 8, 0
    for _ in range(_MAX_PARTS):
        if place + 8 > len(data):
            return
        size = int.from_bytes(data[place : place + 4], "big")
        if _is_packed(data[place + 4 : place + 8], data[place + 8 : place + 8 + min(size, _MAX_KEYWORD)]):
            packed += 1
            if packed > _MAX_PACKED_PARTS:
                raise _too_many("packed texts and profiles", _MAX_PACKED_PARTS)
            pay(_TEXT_TIMES * min(_MAX_UNPACKED, _MAX_RATIO * size), "a text or profile in a picture")
        place += 12 + size
    raise _too_many("chunks", _MAX_PARTS)


def _is_packed(name: bytes, start: bytes) -> bool:
    """Whether a chunk of a PNG is unpacked when it is read; `start`: its first bytes."""
    if name == b"iTXt":
        keyword = start.find(b"\0")
        return keyword >= 0 and start[keyword + 1 : keyword + 2] != b"\0"
    return name in (b"zTXt", b"iCCP")


def _check_gif(data: bytes) -> None:
    """Counts the blocks before the first frame; nothing behind it is read."""
    flags = data[10] if len(data) > 10 else 0
    place = 13 + (3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0)
    in_extension = False
    for _ in range(_MAX_PARTS):
        if place >= len(data):
            return
        if in_extension:
            size = data[place]
            in_extension = size > 0
            place += 1 + size
        elif data[place] == 0x21:
            in_extension = True
            place += 2
        elif data[place] == 0x2C:
            return
        else:
            place += 1  # passed over, as Pillow does
    raise _too_many("blocks before its first frame", _MAX_PARTS)


def _check_tiff(data: bytes) -> None:
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    try:
        (start,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
        (tags,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start)
    except struct.error:  # cut off
        return
    if tags > _MAX_TAGS:
        raise _too_many("tags", _MAX_TAGS)
    entry = struct.Struct(f"{order}HH{'Q' if big else 'I'}")
    first, step = start + (8 if big else 2), 20 if big else 12
    values = fractions = 0
    for place in range(first, min(first + tags * step, len(data) - entry.size), step):
        tag, kind, count = entry.unpack_from(data, place)
        if count * _SIZES.get(kind, 1) > len(data):  # more than there is: Pillow passes over it
            continue
        if tag in _STRIP_TAGS and count > _MAX_STRIPS:
            raise _too_many("strips or tiles", _MAX_STRIPS)
        if kind not in _BYTES:
            values += count
        if kind in _FRACTIONS:
            fractions += count
    if values > _MAX_TAG_VALUES or fractions > _MAX_FRACTIONS:
        raise _too_many(f"values in its tags, {_MAX_FRACTIONS} of them fractions", _MAX_TAG_VALUES)


def _walk_jpeg(data: bytes) -> tuple[int, int]:
    """How many components a JPEG has, and how many of them are in its first scan.

    Raises:
        UndecodableImage: there is too much before that.
    """
    components = in_scan = junk = segments = size = 0
    place = 2
    while segments <= _MAX_SEGMENTS and junk <= _MAX_JUNK_BYTES and size <= _MAX_SEGMENT_BYTES:
        found = data.find(b"\xff", place)
        if found < 0 or found + 4 > len(data):
            return components, in_scan
        junk += found - place
        marker = data[found + 1]
        if marker in (0x00, 0xFF):
            junk += 1
            place = found + 1
            continue
        segments += 1
        if marker in _STANDALONE:
            place = found + 2
            continue
        length = int.from_bytes(data[found + 2 : found + 4], "big")
        if marker == 0xDA:
            return components, data[found + 4] if found + 4 < len(data) else 0
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and found + 9 < len(data):
            components = data[found + 9]
        size += length
        place = found + 2 + length
    raise UndecodableImage(
        f"Expected a JPEG with at most {_MAX_SEGMENTS} segments of {_MAX_SEGMENT_BYTES} bytes together before its "
        f"pixels, and {_MAX_JUNK_BYTES} bytes between them. Received: one with more."
    )
