"""What small requests can make of themselves: `.venv/bin/python benchmarks/amplification.py`, two minutes.

Sends every attack that is known, packed bodies, JSON and pictures, to a real service and prints for each what it took of
a core and of the memory, in all and for each byte sent. The last line has the worst of each: what is fixed for a request,
and what each byte adds.
"""

from __future__ import annotations

import gzip
import http.client
import io
import os
import struct
import tempfile
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from starting_service import Started, started

_MIB = 2**20
_LONG = 48 * _MIB
_LOOK_EVERY_S = 0.005
_FREE_S, _FREE_BYTES = 0.5, 48 * _MIB  # what any request may take: see SECURITY.md
_JSON, _NPY, _NPZ = "application/json", "application/x-npy", "application/x-npz"


@dataclass(frozen=True)
class Attack:
    """One request.

    Args:
        body: makes it.
        media: its content type.
        packed: it is gzip.
        model: whom it is for.
    """

    body: Callable[[], bytes]
    media: str
    packed: bool = False
    model: str = "iris"


def main() -> None:
    worst: dict[str, float] = {"seconds": 0.0, "us a byte": 0.0, "MB": 0.0, "bytes a byte": 0.0}
    print(f"{'attack':34} {'sent':>9} {'status':>6} {'s':>6} {'us/B':>7} {'MB':>7} {'B/B':>6}")
    with tempfile.TemporaryDirectory() as cache, started(cache) as service:
        _send(
            service, Attack(lambda: b'{"instances": [[1, 2, 3, 4]]}', _JSON), b'{"instances": [[1, 2, 3, 4]]}'
        )
        for name, attack in ATTACKS.items():
            body = attack.body()
            status, seconds, grown = _send(service, attack, body)
            a_byte_us = max(0.0, seconds - _FREE_S) / len(body) * 1e6
            a_byte = max(0.0, grown - _FREE_BYTES) / len(body)
            print(
                f"{name:34} {len(body):9} {status:6} {seconds:6.2f} {a_byte_us:7.3f} "
                f"{grown / _MIB:7.1f} {a_byte:6.1f}",
                flush=True,
            )
            small = len(body) < _MIB
            worst["seconds"] = max(worst["seconds"], seconds if small else 0.0)
            worst["MB"] = max(worst["MB"], grown / _MIB if small else 0.0)
            worst["us a byte"] = max(worst["us a byte"], a_byte_us)
            worst["bytes a byte"] = max(worst["bytes a byte"], a_byte)
    print(
        f"worst: {worst['seconds']:.2f} s and {worst['MB']:.0f} MB for less than a megabyte; beyond {_FREE_S} s and "
        f"{_FREE_BYTES // _MIB} MiB {worst['us a byte']:.2f} us and {worst['bytes a byte']:.1f} bytes for each byte"
    )


def _send(service: Started, attack: Attack, body: bytes) -> tuple[int, float, int]:
    """The status, seconds of processor time, and bytes by which the worker grew at most."""
    headers = {"Content-Type": attack.media, **({"Content-Encoding": "gzip"} if attack.packed else {})}
    before_s, before = _cpu_s(service.worker), service.rss_bytes()
    peak, done = [before], threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_EVERY_S):
            peak.append(max(peak[-1], service.rss_bytes()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=120)
    try:
        connection.request("POST", f"/predict?model={attack.model}", body, headers)
        reply = connection.getresponse()
        reply.read()
    finally:
        connection.close()
        done.set()
        watcher.join()
    return reply.status, _cpu_s(service.worker) - before_s, peak[-1] - before


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# -- texts and arrays -----------------------------------------------------------------------------------------


def _rows(piece: bytes, size: int, inside: bytes = b"") -> bytes:
    """`{"instances": [piece, piece, ...]}`; `inside` opens and closes one more list."""
    start, end = b'{"instances":[' + inside[:1], inside[1:] + b"]}"
    return start + (piece + b",") * (size // (len(piece) + 1)) + piece + end


def _packed(body: bytes) -> bytes:
    return gzip.compress(body, 9)


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, x=np.zeros((30_000_000, 4), np.float32))
    return file.getvalue()


# -- pictures ---------------------------------------------------------------------------------------------------


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _flat(kind: str, side: int, mode: str = "RGB", **options: object) -> bytes:
    return _saved(Image.new(mode, (side, side)), kind, **options)


def _scans(count: int, side: int) -> bytes:
    whole = _flat("JPEG", side, progressive=True)
    return whole[:-2] + whole[whole.rindex(b"\xff\xda") : -2] * count + whole[-2:]


def _segments(segment: bytes, count: int) -> bytes:
    whole = _flat("JPEG", 4, "L")
    return whole[:2] + segment * count + whole[2:]


def _exif(size: int) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", size) + b"Exif\0\0" + bytes(size - 8)


def _runs(side: int) -> bytes:
    head = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 62)
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 0, 0, 0, 2, 0)
    return head + info + b"\0\0\0\0\xff\xff\xff\0" + b"\0\0" * side + b"\0\1"


def _strips(count: int) -> bytes:
    offsets = 8 + 2 + 9 * 12 + 4
    pixels = offsets + 8 * count
    tags = [(256, 8), (257, count), (258, 8), (259, 1), (262, 1), (277, 1), (278, 1)]
    packed = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags]
    packed.insert(5, struct.pack("<HHII", 273, 4, count, offsets))
    packed.append(struct.pack("<HHII", 279, 4, count, offsets + 4 * count))
    places = struct.pack("<I", pixels) * count + struct.pack("<I", 8) * count
    return b"II*\0" + struct.pack("<IH", 8, 9) + b"".join(packed) + bytes(4) + places + b"\x80" * 8


def _chunks(name: bytes, content: bytes, count: int) -> bytes:
    """Each with a key of its own, where it has one."""
    whole = _flat("PNG", 4, "L")
    chunks = b""
    for number in range(count):
        own = content.replace(b"key", b"%06d" % number, 1)
        chunks += struct.pack(">I", len(own)) + name + own + struct.pack(">I", zlib.crc32(name + own))
    return whole[:33] + chunks + whole[33:]


def _blocks(block: bytes, count: int) -> bytes:
    whole = _flat("GIF", 4, "P")
    first = whole.index(b",")
    return whole[:first] + b"!\xfe" + block * count + b"\0" + whole[first:]


def _picture(body: Callable[[], bytes]) -> Attack:
    return Attack(body, "image/*", model="digits")


_EMOJI = zlib.compress("\U0001f600".encode() + b"a" * 1_000_000, 9)
_TEXT = zlib.compress(b"a" * 1_000_000, 9)
ATTACKS = {
    "gzip, whole numbers": Attack(lambda: _packed(_rows(b"1", 250 * _MIB, b"[]")), _JSON, packed=True),
    "gzip, empty lists": Attack(lambda: _packed(_rows(b"[]", 100 * _MIB)), _JSON, packed=True),
    "gzip, zeros as npy": Attack(lambda: _packed(b"\x93NUMPY" + bytes(500 * _MIB)), _NPY, packed=True),
    "npz of zeros": Attack(_npz, _NPZ),
    "whole numbers": Attack(lambda: _rows(b"1", _LONG, b"[]"), _JSON),
    "rows of whole numbers": Attack(lambda: _rows(b"[1,2,3,4]", _LONG), _JSON),
    "rows of one": Attack(lambda: _rows(b"[1]", _LONG), _JSON),
    "empty lists": Attack(lambda: _rows(b"[]", _LONG), _JSON),
    "empty objects": Attack(lambda: _rows(b"{}", _LONG), _JSON),
    "objects": Attack(lambda: _rows(b'{"x":1}', _LONG), _JSON),
    "strings": Attack(lambda: _rows(b'"ab"', _LONG), _JSON),
    "empty lists, short": Attack(lambda: _rows(b"[]", 30_000), _JSON),
    "objects, short": Attack(lambda: _rows(b'{"x":1}', 30_000), _JSON),
    "BMP, run lengths, 64 MP": _picture(lambda: _runs(8000)),
    "BMP, run lengths, 1.2 MP": _picture(lambda: _runs(1100)),
    "JPEG, 2,000 scans": _picture(lambda: _scans(2000, 2000)),
    "JPEG, 85 scans": _picture(lambda: _scans(85, 1000)),
    "JPEG, 64 MP": _picture(lambda: _flat("JPEG", 8000, quality=1)),
    "JPEG, 8 MP": _picture(lambda: _flat("JPEG", 2850, quality=1)),
    "JPEG, 1,000,000 segments": _picture(lambda: _segments(b"\xff\xfe\0\2", 1_000_000)),
    "JPEG, 240 long segments": _picture(lambda: _segments(_exif(65_000), 240)),
    "TIFF, 500,000 strips": _picture(lambda: _strips(500_000)),
    "TIFF, 20,000 strips": _picture(lambda: _strips(20_000)),
    "TIFF, 64 MP": _picture(lambda: _flat("TIFF", 8000, compression="tiff_adobe_deflate")),
    "PNG, 1,000,000 chunks": _picture(lambda: _chunks(b"abCd", b"", 1_000_000)),
    "PNG, 65,000 chunks": _picture(lambda: _chunks(b"abCd", b"", 65_000)),
    "PNG, 60 MB of packed text": _picture(lambda: _chunks(b"zTXt", b"key\0\0" + _TEXT, 60)),
    "PNG, 8 MB of packed text": _picture(lambda: _chunks(b"zTXt", b"key\0\0" + _TEXT, 8)),
    "PNG, 8 MB of emoji": _picture(lambda: _chunks(b"iTXt", b"key\0\1\0\0\0" + _EMOJI, 8)),
    "PNG, 1,000 profiles": _picture(lambda: _chunks(b"iCCP", b"key\0\0" + _TEXT, 1000)),
    "PNG, 64 MP": _picture(lambda: _flat("PNG", 8000)),
    "PNG, 8 MP": _picture(lambda: _flat("PNG", 2850)),
    "GIF, 1,000,000 blocks": _picture(lambda: _blocks(b"\1a", 1_000_000)),
    "GIF, 65,000 blocks": _picture(lambda: _blocks(b"\1a", 65_000)),
    "GIF, 64 MP": _picture(lambda: _flat("GIF", 8000, "P")),
    "WebP, 64 MP": _picture(lambda: _flat("WEBP", 8000, lossless=True)),
    "WebP, 2 MP": _picture(lambda: _flat("WEBP", 1400, lossless=True)),
}


if __name__ == "__main__":
    main()
