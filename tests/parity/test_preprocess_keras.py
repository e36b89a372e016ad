"""`[preprocess]` against ImageDataGenerator.standardize and imagenet_utils.preprocess_input, bit for bit."""

import functools
import io
import itertools

import keras
import numpy as np
import pytest
from keras.applications import imagenet_utils
from pictures import picture
from tensorflow.keras.preprocessing.image import ImageDataGenerator

from service.images import image_input, prepare
from service.model_config import PreprocessConfig
from service.preprocess import preprocess
from service.tensors import TensorSpec

FORMATS = ("channels_last", "channels_first")
SWITCHES = list(itertools.product((False, True), repeat=4))


def pixels(data_format, channels=3):
    image = keras.utils.load_img(
        io.BytesIO(picture("png_rgb")), color_mode="rgb" if channels == 3 else "grayscale"
    )
    return keras.utils.img_to_array(image, data_format=data_format)


@functools.cache
def fitted(data_format, rescale, channels=3):
    """The mean and deviation that ImageDataGenerator finds in random pictures, float32 of shape (C,)."""
    shape = (5, 9, 8, channels) if data_format == "channels_last" else (5, channels, 9, 8)
    batch = np.random.default_rng(5).uniform(0, 255, shape).astype(np.float32)
    generator = ImageDataGenerator(
        featurewise_center=True,
        featurewise_std_normalization=True,
        rescale=rescale,
        data_format=data_format,
    )
    generator.fit(batch)
    return generator.mean, generator.std


def standardized(x, data_format, *, featurewise, mode, rescale, center, std):
    """What Keras makes of one picture with these options; a featurewise generator has been fitted."""
    function = None
    if mode != "none":
        function = functools.partial(imagenet_utils.preprocess_input, data_format=data_format, mode=mode)
    generator = ImageDataGenerator(
        featurewise_center=featurewise[0],
        featurewise_std_normalization=featurewise[0] and featurewise[1],
        samplewise_center=center or std,
        samplewise_std_normalization=std,
        rescale=rescale,
        preprocessing_function=function,
        data_format=data_format,
    )
    generator.mean, generator.std = fitted(data_format, rescale, x.shape[FORMATS.index(data_format) - 1])
    return generator.standardize(
        x
    )  # in place, and with the memory layout of img_to_array: its means depend on it


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("mode", ["none", "tf", "torch", "caffe"])
@pytest.mark.parametrize("rescale", [None, 1 / 255])
def test_every_combination_is_that_of_image_data_generator(data_format, mode, rescale):
    mean, deviation = fitted(data_format, rescale)
    for center, std, *featurewise in SWITCHES:
        expected = standardized(
            pixels(data_format),
            data_format,
            featurewise=featurewise,
            mode=mode,
            rescale=rescale,
            center=center,
            std=std,
        )
        config = PreprocessConfig(
            mode=mode,
            rescale=rescale,
            samplewise_center=center,
            samplewise_std_normalization=std,
            featurewise_mean=tuple(mean.ravel().tolist()) if featurewise[0] else None,
            featurewise_std=tuple(deviation.ravel().tolist()) if all(featurewise) else None,
        )
        row = preprocess(pixels(data_format), config, channels_first=data_format == "channels_first")
        assert row.dtype == np.float32
        assert np.array_equal(row, expected), (center, std, featurewise)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_modes_are_those_of_preprocess_input(data_format, mode):
    expected = imagenet_utils.preprocess_input(pixels(data_format), data_format=data_format, mode=mode)
    batch = imagenet_utils.preprocess_input(
        pixels(data_format)[np.newaxis], data_format=data_format, mode=mode
    )
    row = preprocess(
        pixels(data_format), PreprocessConfig(mode=mode), channels_first=data_format == "channels_first"
    )
    assert np.array_equal(row, expected)
    assert np.array_equal(row, batch[0])


@pytest.mark.parametrize("data_format", FORMATS)
def test_grey_pictures(data_format):
    mean, deviation = fitted(data_format, 0.5, 1)
    expected = standardized(
        pixels(data_format, channels=1),
        data_format,
        featurewise=(True, True),
        mode="tf",
        rescale=0.5,
        center=False,
        std=True,
    )
    config = PreprocessConfig(
        mode="tf",
        rescale=0.5,
        samplewise_std_normalization=True,
        featurewise_mean=(mean.item(),),
        featurewise_std=(deviation.item(),),
    )
    row = preprocess(pixels(data_format, channels=1), config, channels_first=data_format == "channels_first")
    assert np.array_equal(row, expected)


def test_one_number_is_for_all_channels():
    generator = ImageDataGenerator(featurewise_center=True, featurewise_std_normalization=True)
    generator.mean, generator.std = np.float32(101.7), np.float32(55.3)
    config = PreprocessConfig(featurewise_mean=(101.7,), featurewise_std=(55.3,))
    row = preprocess(pixels("channels_last"), config, channels_first=False)
    assert np.array_equal(row, generator.standardize(pixels("channels_last")))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("kind", ["jpeg_rgb", "png_16bit", "gif"])
@pytest.mark.parametrize("mode", ["none", "tf", "torch", "caffe"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_from_file_to_model_input(data_format, kind, mode, dtype):
    image = keras.utils.load_img(io.BytesIO(picture(kind)), target_size=(24, 20), interpolation="bilinear")
    expected = standardized(
        keras.utils.img_to_array(image, data_format=data_format),
        data_format,
        featurewise=(True, False),
        mode=mode,
        rescale=1 / 255,
        center=False,
        std=True,
    )
    mean, _ = fitted(data_format, 1 / 255)
    shape = (None, 24, 20, 3) if data_format == "channels_last" else (None, 3, 24, 20)
    config = PreprocessConfig(
        interpolation="bilinear",
        mode=mode,
        rescale=1 / 255,
        samplewise_std_normalization=True,
        featurewise_mean=tuple(mean.ravel().tolist()),
    )
    target = image_input(TensorSpec("x", shape, dtype), config)
    row = prepare(picture(kind), target, max_pixels=10**6)
    assert row.flags.c_contiguous
    assert row.dtype == dtype
    assert np.array_equal(row, expected.astype(dtype))
