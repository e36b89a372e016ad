"""Pictures against keras.utils.load_img and img_to_array, bit for bit."""

import io
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from pictures import KINDS, picture

from service.errors import UndecodableImage
from service.images import image_input, prepare
from service.model_config import PreprocessConfig
from service.tensors import TensorSpec

CHANNELS = {"grayscale": 1, "rgb": 3, "rgba": 4}
FILTERS = ("nearest", "bilinear", "bicubic", "hamming", "box", "lanczos")
OWN_SIZE = (None, None)
# The pictures are 40 wide and 30 high: their size, another shape, smaller, larger, and one side as it is.
SIZES = (OWN_SIZE, (30, 40), (41, 23), (16, 16), (61, 77), (30, 19))

# Keras converts palettes with alpha without saying how, at which Pillow warns.
pytestmark = pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")


def ours(data, color_mode, size, *, channels_first=False, dtype="float32", **config):
    channels = CHANNELS[color_mode]
    shape = (None, channels, *size) if channels_first else (None, *size, channels)
    target = image_input(TensorSpec("x", shape, dtype), PreprocessConfig(**config))
    return prepare(data, target, max_pixels=10**6)


def keras_image(data, color_mode, size, interpolation="nearest", *, crop=False):
    return keras.utils.load_img(
        io.BytesIO(data),
        color_mode=color_mode,
        target_size=None if size == OWN_SIZE else size,
        interpolation=interpolation,
        keep_aspect_ratio=crop,
    )


def assert_same(row, expected, *about):
    assert row.dtype == expected.dtype, about
    assert row.flags.c_contiguous, about
    assert np.array_equal(row, expected), about


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_gives_the_pixels_of_keras(kind):
    data = picture(kind)
    for color_mode, size, interpolation, resize in itertools.product(
        CHANNELS, SIZES, FILTERS, ("stretch", "crop")
    ):
        expected = keras.utils.img_to_array(
            keras_image(data, color_mode, size, interpolation, crop=resize == "crop")
        )
        row = ours(data, color_mode, size, interpolation=interpolation, resize=resize)
        assert_same(row, expected, color_mode, size, interpolation, resize)


@pytest.mark.parametrize("kind", ["jpeg_rgb", "png_rgba", "png_16bit", "gif"])
@pytest.mark.parametrize("color_mode", CHANNELS)
def test_channels_first(kind, color_mode):
    data = picture(kind)
    image = keras_image(data, color_mode, (20, 25))
    expected = keras.utils.img_to_array(image, data_format="channels_first")
    assert_same(ours(data, color_mode, (20, 25), channels_first=True), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_other_dtypes_are_those_of_img_to_array(kind, dtype):
    data = picture(kind)
    expected = keras.utils.img_to_array(keras_image(data, "rgb", (16, 16)), dtype=dtype)
    assert_same(ours(data, "rgb", (16, 16), dtype=dtype), expected)


@pytest.mark.parametrize("size", [(600, 800), (601, 799), (224, 224), (37, 901)])
@pytest.mark.parametrize("kind", ["jpeg_rgb", "png_16bit"])
def test_larger_pictures_of_odd_shapes(kind, size):
    data = picture(kind, 331, 203)
    for interpolation, resize in itertools.product(FILTERS, ("stretch", "crop")):
        image = keras_image(data, "grayscale", size, interpolation, crop=resize == "crop")
        row = ours(data, "grayscale", size, interpolation=interpolation, resize=resize)
        assert_same(row, keras.utils.img_to_array(image), interpolation, resize)


@pytest.mark.parametrize("kind", ["png_rgb", "png_rgba", "png_grey", "png_16bit"])
# Among these sizes no sample falls on the very edge of two pixels, where TensorFlow's float32 decides.
@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (97, 13), (13, 97), (63, 63), (333, 251)])
def test_padding_with_nearest_is_resize_with_pad(kind, shape):
    data = picture(kind, *shape)
    color_mode = {"png_rgb": "rgb", "png_rgba": "rgba"}.get(kind, "grayscale")
    whole = keras.utils.img_to_array(keras_image(data, color_mode, OWN_SIZE))
    for size in ((32, 32), (224, 224), (48, 20), (20, 48), (31, 33)):
        expected = tf.image.resize_with_pad(whole, *size, method="nearest").numpy()
        assert_same(ours(data, color_mode, size, resize="pad"), expected, size)


@pytest.mark.parametrize("interpolation", FILTERS[1:])
def test_padding_borders_are_those_of_resize_with_pad(interpolation):
    for width, height in itertools.product(range(3, 90, 7), repeat=2):
        white = np.full((height, width, 1), 255, np.float32)
        file = io.BytesIO()
        keras.utils.array_to_img(white, scale=False).save(file, "PNG")
        expected = tf.image.resize_with_pad(white, 40, 50, method="nearest").numpy()
        row = ours(file.getvalue(), "grayscale", (40, 50), resize="pad", interpolation=interpolation)
        assert_same(row, expected, width, height)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns about odd metadata, in production too
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_or_damaged_file_is_refused_exactly_where_keras_fails(kind):
    data = picture(kind)
    rng = np.random.default_rng(3)
    cuts = [data[:size] for size in np.linspace(0, len(data), 60).astype(int)]
    for damaged in [*cuts, *(_flip(data, rng) for _ in range(60))]:
        try:
            expected = keras.utils.img_to_array(keras_image(damaged, "rgb", (16, 16)))
        except Exception:  # noqa: BLE001 - whatever Pillow raises; that it does is the point
            with pytest.raises(UndecodableImage):
                ours(damaged, "rgb", (16, 16))
        else:
            assert_same(ours(damaged, "rgb", (16, 16)), expected)


def _flip(data, rng):
    damaged = bytearray(data)
    for place in rng.integers(0, len(data), 3):
        damaged[place] ^= 1 << int(rng.integers(8))
    return bytes(damaged)
