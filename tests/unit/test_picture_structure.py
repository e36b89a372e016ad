"""Picture files made to take long: told by their structure, before anything is decoded."""

import contextlib
import io
import struct
import zlib

import pytest
from pictures import KINDS, picture, scene
from PIL import Image

from service.errors import ImageTooLarge, UndecodableImage
from service.images import image_input, prepare
from service.memory import Memory, paid_by
from service.model_config import PreprocessConfig
from service.tensors import TensorSpec

MOST_PIXELS = 64_000_000
TARGET = image_input(TensorSpec("x", (None, 16, 16, 3), "float32"), PreprocessConfig())


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def jpeg_of_scans(count, side):
    """A progressive JPEG that repeats its last scan."""
    whole = saved(Image.new("RGB", (side, side)), "JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * count + whole[-2:]


def jpeg_with(before):
    whole = saved(Image.new("L", (4, 4)), "JPEG")
    return whole[:2] + before + whole[2:]


def segment(marker, content=b""):
    return b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(content)) + content


def bmp_of_runs(side):
    """Run lengths that end each row at once, so that Pillow fills it byte by byte."""
    head = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 62)
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 0, 0, 0, 2, 0)
    return head + info + b"\0\0\0\0\xff\xff\xff\0" + b"\0\0" * 3


def tiff(order, strips=1, *, kind=4, tag=305, values=1):
    """One grey row for each strip, and a tag of many values."""
    entry = struct.Struct(f"{order}HHII")
    width, count = 8, 10
    offsets = 8 + 2 + count * entry.size + 4
    sizes, pixels = offsets + 4 * strips, offsets + 8 * strips
    values_at = pixels + width
    tags = [
        (256, 4, 1, width), (257, 4, 1, strips), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, strips, offsets if strips > 1 else pixels), (277, 3, 1, 1), (278, 4, 1, 1),
        (279, 4, strips, sizes if strips > 1 else width), (tag, kind, values, values_at),
    ]  # fmt: skip
    packed = b""
    for number, form, many, value in tags:
        if form == 3 and many == 1:
            packed += struct.pack(f"{order}HHIHH", number, form, many, value, 0)
        else:
            packed += entry.pack(number, form, many, value)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(f"{order}IH", 8, count) + packed + struct.pack(f"{order}I", 0)
    each = struct.pack(f"{order}{strips}I", *[pixels] * strips) + struct.pack(
        f"{order}{strips}I", *[width] * strips
    )
    return head + each + b"\x80" * width + bytes(8 * values)


def tiff_of_halves(count, side):
    """Strips of half a picture; all but the first two begin again from its top."""
    whole = saved(Image.new("L", (side, side)), "TIFF", tiffinfo={278: side // 2})
    with Image.open(io.BytesIO(whole)) as picture:
        places, sizes = picture.tag_v2[273], picture.tag_v2[279]
    head, start = whole[:4], len(whole)
    tags = struct.Struct("<HHII")
    first = struct.unpack_from("<I", whole, 4)[0]
    [number] = struct.unpack_from("<H", whole, first)
    entries = [whole[first + 2 + 12 * i : first + 14 + 12 * i] for i in range(number)]
    size = start + 2 + 12 * number + 4
    for i, entry in enumerate(entries):
        tag = struct.unpack_from("<H", entry)[0]
        if tag in (273, 279):
            entries[i] = tags.pack(tag, 4, count, size + (4 * count if tag == 279 else 0))
    lists = b"".join(struct.pack("<I", each[i % 2]) for each in (places, sizes) for i in range(count))
    return (
        head
        + struct.pack("<I", start)
        + whole[8:]
        + struct.pack("<H", number)
        + b"".join(entries)
        + bytes(4)
        + lists
    )


def png_of_chunks(count, name=b"abCd", content=b""):
    whole = saved(Image.new("L", (4, 4)), "PNG")
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return whole[:33] + chunk * count + whole[33:]


def gif_of_blocks(blocks):
    whole = saved(Image.new("P", (4, 4)), "GIF")
    first = whole.index(b",")
    return whole[:first] + blocks + whole[first:]


ATTACKS = {
    "run lengths": (lambda: bmp_of_runs(8000), "64000000 pixels, gone over 4096000000 times"),
    "scans": (lambda: jpeg_of_scans(2000, 1000), "times in all"),
    "scans of few pixels": (lambda: jpeg_of_scans(20_000, 200), "times in all"),
    "strips upon each other": (lambda: tiff_of_halves(4000, 1000), "times in all"),
    "profiles": (lambda: png_of_chunks(9, b"iCCP", b"k\0\0" + zlib.compress(bytes(1000))), "8 packed texts"),
    "packed texts": (
        lambda: png_of_chunks(9, b"zTXt", b"k\0\0" + zlib.compress(bytes(1000))),
        "8 packed texts",
    ),
    "packed texts of the world": (
        lambda: png_of_chunks(9, b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(1000))),
        "8 packed texts",
    ),
    "segments": (lambda: jpeg_with(segment(0xFE) * 100_000), "1024 segments"),
    "long segments": (lambda: jpeg_with(segment(0xE1, b"Exif\0\0" + bytes(60_000)) * 400), "16777216 bytes"),
    "fill bytes": (lambda: jpeg_with(b"\xff" * 100_000), "4096 bytes between"),
    "junk": (lambda: jpeg_with(b"x" * 100_000), "4096 bytes between"),
    "strips": (lambda: tiff("<", 100_000), "20000 strips"),
    "strips, the other way round": (lambda: tiff(">", 100_000), "20000 strips"),
    "values": (lambda: tiff("<", values=1_000_000), "262144 values"),
    "fractions": (lambda: tiff(">", kind=5, tag=282, values=10_000), "4096 of them fractions"),
    "chunks": (lambda: png_of_chunks(200_000), "65536 chunks"),
    "comments": (lambda: gif_of_blocks(b"!\xfe\0" * 100_000), "65536 blocks"),
    "a long comment": (lambda: gif_of_blocks(b"!\xfe" + b"\1x" * 100_000 + b"\0"), "65536 blocks"),
    "nothing": (lambda: gif_of_blocks(b"\0" * 100_000), "65536 blocks"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_more_than_pictures_have_is_refused(attack):
    make, words = ATTACKS[attack]
    with pytest.raises(UndecodableImage, match=words):
        prepare(make(), TARGET, max_pixels=MOST_PIXELS)


@pytest.mark.parametrize(
    "data",
    [
        jpeg_of_scans(100, 200),
        jpeg_with(segment(0xFE, b"a comment") * 1000),
        jpeg_with(segment(0xE2, b"ICC_PROFILE\0" + bytes(60_000)) * 20),
        tiff("<", 2000),
        tiff(">", 2000),
        png_of_chunks(1000),
        png_of_chunks(8, b"zTXt", b"k\0\0" + zlib.compress(bytes(1000))),
        png_of_chunks(1000, b"iTXt", b"k\0\0\0\0\0plain"),
        saved(Image.new("1", (2480, 3508)), "TIFF", compression="group4"),
        gif_of_blocks(b"!\xfe" + (b"\xff" + b"x" * 255) * 2000 + b"\0"),
        saved(Image.fromarray(scene(600, 600, 3)), "JPEG", progressive=True),
        saved(Image.new("P", (4, 4)), "GIF", save_all=True, append_images=[Image.new("P", (4, 4), 1)] * 50),
        saved(Image.new("RGB", (4000, 2100)), "PNG"),
        saved(Image.new("RGB", (8, 8)), "TIFF", big_tiff=True),
    ],
    ids=["scans", "comments", "profile", "strips", "strips turned", "chunks", "packed texts", "texts", "fax", "comment", "progressive", "frames", "flat", "big"],
)  # fmt: skip
def test_uncommon_pictures_are_decoded(data):
    assert prepare(data, TARGET, max_pixels=MOST_PIXELS).shape == (16, 16, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_cut_off_anywhere_it_is_told_what_is_wrong_or_decoded(kind):
    data = picture(kind, 24, 16)
    for end in range(0, len(data), max(1, len(data) // 50)):
        with contextlib.suppress(UndecodableImage):
            prepare(data[:end], TARGET, max_pixels=MOST_PIXELS)


def test_what_a_picture_unpacks_to_is_charged():
    charge = Memory().charge()
    charge.receive(10**9)
    with paid_by(charge):
        prepare(
            png_of_chunks(8, b"zTXt", b"k\0\0" + zlib.compress(bytes(10**6), 9)),
            TARGET,
            max_pixels=MOST_PIXELS,
        )
    assert charge.held - 10**9 >= 8 * 10**6


def test_what_may_be_gone_over_grows_with_the_file():
    """A large progressive picture of real content passes, one of the same size that is made of nothing does not."""
    with pytest.raises(ImageTooLarge, match="100000000 and 256 for each byte"):
        prepare(jpeg_of_scans(30, 2000), TARGET, max_pixels=MOST_PIXELS)
    noisy = saved(Image.effect_noise((2000, 2000), 90).convert("RGB"), "JPEG", progressive=True, quality=95)
    last = noisy[noisy.rindex(b"\xff\xda") : -2]
    assert prepare(noisy[:-2] + last + noisy[-2:], TARGET, max_pixels=MOST_PIXELS).shape == (16, 16, 3)
