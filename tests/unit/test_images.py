"""Which inputs take pictures, what is refused and how, and that threads do not disturb each other."""

import io
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import KINDS, ORIENTATION, picture, png_header, scene
from PIL import Image, ImageFile

from service.errors import ImageTooLarge, RepositoryError, UndecodableImage
from service.images import image_input, prepare
from service.model_config import PreprocessConfig
from service.tensors import TensorSpec

ROOT = Path(__file__).parents[2]
PIXELS = 10**6


def target(shape=(None, 16, 16, 3), dtype="float32", **config):
    found = image_input(TensorSpec("x", shape, dtype), PreprocessConfig(**config))
    assert found is not None
    return found


def row(data, *args, **config):
    return prepare(data, target(*args, **config), max_pixels=PIXELS)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


# --- which inputs take pictures


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((None, 28, 30, 1), (28, 30, 1, False)),
        ((None, 28, 30, 3), (28, 30, 3, False)),
        ((None, None, None, 4), (None, None, 4, False)),
        ((None, 3, 28, 30), (28, 30, 3, True)),
        ((8, 1, None, None), (None, None, 1, True)),
        ((None, 3, 30, 4), (3, 30, 4, False)),
    ],
)
def test_rank_4_with_channels_takes_pictures(shape, expected):
    found = target(shape)
    assert (found.height, found.width, found.channels, found.channels_first) == expected


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((None, 4), "float32"),
        ((None, 28, 28), "float32"),
        ((None, 28, 28, 2), "float32"),
        ((None, None, None, None), "float32"),
        ((None, 5, 28, 28, 3), "float32"),
        ((None, 28, 28, 3), "string"),
        ((None, 28, 28, 3), "bool"),
        ((None, 28, 28, 3), "complex64"),
        ((), "float32"),
    ],
)
def test_other_inputs_take_none(shape, dtype):
    assert image_input(TensorSpec("x", shape, dtype), PreprocessConfig()) is None


def test_rank_3_takes_grey_pictures_only_when_asked():
    assert row(picture("png_rgb"), (None, 28, 29), color_mode="grayscale").shape == (28, 29)
    assert image_input(TensorSpec("x", (None, 28, 28), "float32"), PreprocessConfig(color_mode="rgb")) is None


@pytest.mark.parametrize(
    ("shape", "dtype", "config"),
    [
        ((None, 8, 8, 1), "float32", {"color_mode": "rgb"}),
        ((None, 8, 8, 3), "float32", {"color_mode": "rgba"}),
        ((None, 8, 8, 4), "float32", {"mode": "caffe"}),
        ((None, 8, 8, 1), "float32", {"mode": "torch"}),
        ((None, 8, 8, 3), "float32", {"featurewise_mean": (1.0, 2.0)}),
        ((None, 8, 8, 3), "float32", {"featurewise_std": ()}),
        ((None, 8, 8, 3), "uint8", {"rescale": 0.5}),
        ((None, 8, 8, 3), "int32", {"samplewise_center": True}),
    ],
)
def test_a_configuration_that_contradicts_the_input_is_refused(shape, dtype, config):
    with pytest.raises(RepositoryError, match=r"Expected .+\. Received: .+\."):
        image_input(TensorSpec("x", shape, dtype), PreprocessConfig(**config))


# --- what comes out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_rows_have_the_shape_and_dtype_of_the_input(kind, dtype):
    for shape, expected in [
        ((None, 16, 12, 3), (16, 12, 3)),
        ((None, 4, 16, 12), (4, 16, 12)),
        ((None, 16, None, 3), (16, 30 if kind == "tiff_exif6" else 40, 3)),
    ]:
        result = row(picture(kind), shape, dtype)
        assert result.shape == expected
        assert result.dtype == dtype
        assert result.flags.c_contiguous


def test_memoryview_and_bytes_are_the_same():
    data = picture("jpeg_rgb")
    assert np.array_equal(row(memoryview(data)), row(data))


def test_whole_numbers_that_do_not_fit_are_refused_not_wrapped():
    data = picture("png_16bit")
    shape = (None, 16, 16, 1)
    assert row(data, shape, "uint16").max() > 255
    assert np.array_equal(row(data, shape, "int32"), row(data, shape, "float32"))
    with pytest.raises(UndecodableImage, match="from 0 to 255, as input 'x' takes uint8"):
        row(data, shape, "uint8")
    with pytest.raises(UndecodableImage, match="from -128 to 127"):
        row(picture("png_rgb"), (None, 16, 16, 3), "int8")


def test_16_bits_too_large_for_float16_are_refused_unless_rescaled():
    data = png(np.full((16, 16), 65535, np.uint16))
    with pytest.raises(UndecodableImage, match="takes float16"):
        row(data, (None, 16, 16, 1), "float16")
    assert row(data, (None, 16, 16, 1), "float16", rescale=1 / 65535).max() == 1


def test_padding_keeps_the_whole_picture_between_zeros():
    white = png(np.full((10, 20, 3), 255, np.uint8))
    padded = row(white, (None, 16, 16, 3), resize="pad", interpolation="bilinear")
    assert np.all(padded[4:12] == 255)
    assert not padded[:4].any()
    assert not padded[12:].any()
    opaque = row(white, (None, 16, 16, 4), resize="pad")
    assert np.all(opaque[4:12, :, 3] == 255)
    assert not opaque[:4].any()


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (3, 499)])
@pytest.mark.parametrize("resize", ["stretch", "pad"])
def test_thin_pictures(size, resize):
    white = png(np.full((*size, 3), 255, np.uint8))
    assert row(white, (None, 16, 24, 3), resize=resize).max() == 255


def test_a_picture_too_thin_to_crop_is_refused():
    with pytest.raises(UndecodableImage, match=r"cropped to 32 x 8 pixels\. Received: 1 x 500 pixels"):
        row(png(np.zeros((500, 1, 3), np.uint8)), (None, 8, 32, 3), resize="crop")


# --- beyond Keras: orientation and fast decoding


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_exif_orientation_turns_the_picture_upright(orientation, kind):
    upright = scene(24, 18, 3)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(np.ascontiguousarray(stored)).save(file, kind, exif=exif, **options)
    shape = (None, None, None, 3)
    assert np.array_equal(row(file.getvalue(), shape, exif_orientation=True), upright)
    if kind != "TIFF":  # which Pillow turns by itself
        assert np.array_equal(row(file.getvalue(), shape), stored)


def test_fast_decoding_is_close_where_it_scales_and_exact_elsewhere():
    large = picture("jpeg_rgb", 640, 480)
    shape = (None, 100, 120, 3)
    exact = row(large, shape, interpolation="bilinear")
    fast = row(large, shape, interpolation="bilinear", decode="fast")
    assert fast.shape == exact.shape
    assert not np.array_equal(fast, exact)
    assert np.abs(fast - exact).mean() < 2
    for data, size in [(large, (300, 321)), (large, (None, 20)), (picture("png_rgb", 640, 480), (100, 120))]:
        same = row(data, (None, *size, 3), decode="fast")
        assert np.array_equal(same, row(data, (None, *size, 3)))


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_fast_decoding_of_a_turned_picture_scales_by_the_upright_size(resize):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    file = io.BytesIO()
    Image.fromarray(scene(800, 200, 3)).save(file, "JPEG", exif=exif, quality=95)
    options = {"resize": resize, "exif_orientation": True, "interpolation": "bilinear"}
    shape = (None, 390, 95, 3)  # half of it as turned; as stored only one axis is twice this
    exact = row(file.getvalue(), shape, **options)
    fast = row(file.getvalue(), shape, decode="fast", **options)
    assert not np.array_equal(fast, exact)
    assert np.abs(fast - exact).mean() < 2


# --- what is refused


@pytest.mark.parametrize(
    ("data", "received"),
    [
        (b"", "0 bytes"),
        (b"hello, I am no picture", "22 bytes that start with b'hello, I am '"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "%!PS-Adobe"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "<svg"),
        (b"P6 1 1 255\n\0\0\0", "P6 1 1"),
        (b"GIF89a", "6 bytes that start with b'GIF89a'"),
        (b"\0" * 5000, "5000 bytes"),
    ],
)
def test_what_is_no_picture_is_named(data, received):
    with pytest.raises(UndecodableImage) as caught:
        row(data)
    assert caught.value.status == 422
    assert caught.value.code == "image_not_decodable"
    assert caught.value.message.startswith(
        "Expected a picture in JPEG, PNG, WEBP, GIF, BMP or TIFF format. Received: "
    )
    assert received in caught.value.message


@pytest.mark.parametrize("kind", ["EPS", "PPM", "ICO", "PDF", "TGA", "JPEG2000"])
def test_other_formats_of_pillow_are_refused(kind):
    file = io.BytesIO()
    Image.fromarray(scene(40, 30, 3)).save(file, kind)
    with pytest.raises(UndecodableImage):
        row(file.getvalue())


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_off_is_refused(kind):
    data = picture(kind, 64, 48)
    # Frames after the first are not read; what is cut there cannot be missed.
    needed = len(data) // 3 if kind.endswith(("animated", "pages")) else int(len(data) * 0.9)
    for size in np.linspace(0, needed, 40).astype(int):
        with pytest.raises(UndecodableImage, match=r"Expected a .+ Received: ") as caught:
            row(data[:size])
        assert caught.value.code == "image_not_decodable"


def test_a_damaged_picture_is_described():
    with pytest.raises(UndecodableImage, match="Received: PNG of 40 x 30 pixels that does not decode"):
        row(picture("png_rgb")[:1500])


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (2**31 - 1, 2**31 - 1), (12_000, 10_000)])
def test_bombs_above_the_limit_of_pillow(width, height):
    with pytest.raises(ImageTooLarge, match="Expected a picture of at most") as caught:
        prepare(png_header(width, height), target(), max_pixels=10**12)
    assert caught.value.status == 422
    assert caught.value.code == "image_too_large"


@pytest.mark.filterwarnings(
    "ignore::PIL.Image.DecompressionBombWarning"
)  # as in production: said, not raised
def test_a_bomb_that_pillow_only_warns_of_is_refused_too():
    with pytest.raises(ImageTooLarge, match="Received: 12000 x 10000 = 120000000 pixels"):
        prepare(png_header(12_000, 10_000), target(), max_pixels=10**12)


def test_the_limit_in_pixels_is_inclusive_and_comes_before_decoding():
    data = picture("jpeg_rgb")
    assert prepare(data, target(), max_pixels=1200).shape == (16, 16, 3)
    with pytest.raises(ImageTooLarge, match=r"at most 1199 pixels\. Received: 40 x 30 = 1200 pixels"):
        prepare(data, target(), max_pixels=1199)
    with pytest.raises(ImageTooLarge):  # the pixels are not there: decoding would say that the file is broken
        prepare(png_header(1000, 2000), target(), max_pixels=PIXELS)


@settings(deadline=None, max_examples=400)
@given(data=st.data())
def test_flipped_bytes_never_lead_to_another_error(data):
    file = bytearray(picture(data.draw(st.sampled_from(KINDS))))
    flips = st.tuples(st.integers(0, len(file) - 1), st.integers(0, 255))
    for place, value in data.draw(st.lists(flips, max_size=8)):
        file[place] = value
    shape = data.draw(st.sampled_from([(None, 16, 12, 3), (None, 16, 12, 1), (None, None, None, 4)]))
    decode = data.draw(st.sampled_from(["exact", "fast"]))
    turn = data.draw(st.booleans())
    try:
        row(bytes(file), shape, decode=decode, exif_orientation=turn)
    except UndecodableImage as error:
        message = error.message
    else:
        message = "Expected nothing else. Received: a picture."
    assert re.fullmatch(r"Expected .+\. Received: .+\.", message, re.DOTALL)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300), st.sampled_from([b"", *(picture(kind)[:30] for kind in KINDS)]))
def test_random_bytes_never_lead_to_another_error(body, start):
    with pytest.raises(UndecodableImage):
        row(start + body)


# --- threads and global state


def test_many_threads_decode_at_the_same_time():
    jobs = [(kind, shape) for kind in KINDS for shape in ((None, 20, 20, 3), (None, 1, 33, 9))] * 8
    expected = {job: row(picture(job[0]), job[1]) for job in jobs}
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda job: row(picture(job[0]), job[1]), jobs))
    assert all(np.array_equal(result, expected[job]) for job, result in zip(jobs, results, strict=True))
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


FIRST_USE = """
import sys, threading
from pathlib import Path
from service.errors import UndecodableImage
from service.images import image_input, prepare
from service.model_config import PreprocessConfig
from service.tensors import TensorSpec

target = image_input(TensorSpec("x", (None, 16, 16, 3), "float32"), PreprocessConfig())
start, good, bad = threading.Barrier(len(sys.argv) - 1), [], []

def decode(data):
    start.wait()
    try:
        good.append(prepare(data, target, max_pixels=10**6))
    except UndecodableImage:
        bad.append(data)

threads = [threading.Thread(target=decode, args=(Path(name).read_bytes(),)) for name in sys.argv[1:]]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(good), len(bad), "PIL.EpsImagePlugin" in sys.modules, "keras" in sys.modules)
"""


def test_the_first_pictures_of_a_process_may_come_at_once(tmp_path):
    files = []
    for kind in KINDS:
        files.append(tmp_path / kind)
        files[-1].write_bytes(picture(kind))
    (tmp_path / "eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    command = [sys.executable, "-W", "ignore", "-c", FIRST_USE, *files, tmp_path / "eps"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == [str(len(KINDS)), "1", "False", "False"]
