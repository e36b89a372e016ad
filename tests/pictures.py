"""Picture files for tests, made by Pillow from seeded numbers: `picture("png_rgb", 40, 30)` is the file's bytes."""

import functools
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

ORIENTATION = 0x0112


def scene(width: int, height: int, channels: int, seed: int = 7) -> np.ndarray:
    """(H, W, C) uint8: slopes and waves that a camera could see, with some noise on them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    planes = [
        128 + 70 * np.sin(x * rng.uniform(3, 12) + k) + 50 * np.cos(y * rng.uniform(3, 12) - k)
        for k in range(channels)
    ]
    noisy = np.stack(planes, axis=-1) + rng.normal(0, 6, (height, width, channels))
    return noisy.clip(0, 255).astype(np.uint8)


def _rgb(width: int, height: int, seed: int = 7) -> Image.Image:
    return Image.fromarray(scene(width, height, 3, seed))


def _grey(width: int, height: int) -> Image.Image:
    return Image.fromarray(scene(width, height, 1)[:, :, 0])


def _deep(width: int, height: int) -> Image.Image:
    return Image.fromarray(scene(width, height, 1)[:, :, 0].astype(np.uint16) * 257)


def _palette(width: int, height: int) -> Image.Image:
    return _rgb(width, height).quantize(32)


def _rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return exif


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


_MAKERS: dict[str, Callable[[int, int], bytes]] = {
    "jpeg_rgb": lambda w, h: _saved(_rgb(w, h), "JPEG", quality=90),
    "jpeg_progressive": lambda w, h: _saved(_rgb(w, h), "JPEG", progressive=True),
    "jpeg_grey": lambda w, h: _saved(_grey(w, h), "JPEG"),
    "jpeg_cmyk": lambda w, h: _saved(_rgb(w, h).convert("CMYK"), "JPEG"),
    "jpeg_exif6": lambda w, h: _saved(_rgb(w, h), "JPEG", exif=_rotated()),
    "png_rgb": lambda w, h: _saved(_rgb(w, h), "PNG"),
    "png_rgb_transparent": lambda w, h: _saved(_rgb(w, h), "PNG", transparency=(128, 100, 90)),
    "png_rgba": lambda w, h: _saved(Image.fromarray(scene(w, h, 4)), "PNG"),
    "png_grey": lambda w, h: _saved(_grey(w, h), "PNG"),
    "png_grey_alpha": lambda w, h: _saved(Image.fromarray(scene(w, h, 4)).convert("LA"), "PNG"),
    "png_palette": lambda w, h: _saved(_palette(w, h), "PNG"),
    "png_palette_index": lambda w, h: _saved(_palette(w, h), "PNG", transparency=3),
    "png_palette_alpha": lambda w, h: _saved(_palette(w, h), "PNG", transparency=bytes(range(0, 256, 8))),
    "png_1bit": lambda w, h: _saved(_grey(w, h).convert("1"), "PNG"),
    "png_16bit": lambda w, h: _saved(_deep(w, h), "PNG"),
    "gif": lambda w, h: _saved(_palette(w, h), "GIF"),
    "gif_transparent": lambda w, h: _saved(_palette(w, h), "GIF", transparency=2),
    "gif_animated": lambda w, h: _saved(
        _palette(w, h), "GIF", save_all=True, append_images=[_rgb(w, h, seed).quantize(16) for seed in (1, 2)]
    ),
    "bmp": lambda w, h: _saved(_rgb(w, h), "BMP"),
    "bmp_grey": lambda w, h: _saved(_grey(w, h), "BMP"),
    "webp": lambda w, h: _saved(_rgb(w, h), "WEBP"),
    "webp_alpha": lambda w, h: _saved(Image.fromarray(scene(w, h, 4)), "WEBP", lossless=True),
    "webp_animated": lambda w, h: _saved(
        _rgb(w, h), "WEBP", save_all=True, append_images=[_rgb(w, h, seed) for seed in (1, 2)]
    ),
    "tiff": lambda w, h: _saved(_rgb(w, h), "TIFF"),
    "tiff_lzw": lambda w, h: _saved(_rgb(w, h), "TIFF", compression="tiff_lzw"),
    "tiff_jpeg": lambda w, h: _saved(_rgb(w, h), "TIFF", compression="jpeg"),
    "tiff_pages": lambda w, h: _saved(_rgb(w, h), "TIFF", save_all=True, append_images=[_rgb(w, h, 1)]),
    "tiff_exif6": lambda w, h: _saved(_rgb(w, h), "TIFF", exif=_rotated()),
    "tiff_16bit": lambda w, h: _saved(_deep(w, h), "TIFF"),
    "tiff_32bit": lambda w, h: _saved(
        Image.fromarray(scene(w, h, 1)[:, :, 0].astype(np.int32) * 70_001), "TIFF"
    ),
    "tiff_float": lambda w, h: _saved(Image.fromarray(scene(w, h, 1)[:, :, 0] * np.float32(1.25)), "TIFF"),
}
KINDS = tuple(_MAKERS)


@functools.cache
def picture(kind: str, width: int = 40, height: int = 30) -> bytes:
    """The bytes of one file; `kind` is one of `KINDS`."""
    return _MAKERS[kind](width, height)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and brings almost no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
