"""Keras' addition of a bias along an inner axis, which Keras 3.15.1 gets wrong when sizes coincide."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from service.loading.corrected_add import correct_add

GENERATOR = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def corrected():
    correct_add()


@pytest.mark.parametrize(
    ("shape", "bias"), [((2, 4, 6, 4), (1, 4, 1, 1)), ((2, 4, 4), (4, 1)), ((2, 3, 4, 3), (1, 3, 1, 1))]
)
def test_a_bias_goes_where_its_shape_says(shape, bias):
    x, b = GENERATOR.normal(size=shape).astype("float32"), GENERATOR.normal(size=bias).astype("float32")
    np.testing.assert_array_equal(np.asarray(keras.ops.add(x, b)), x + b)


def test_what_was_right_stays_as_it_was():
    x = GENERATOR.normal(size=(2, 5, 3)).astype("float32")
    for other in (x, x[:1], x[0, 0], np.float32(2.0), 1.5, np.arange(3)):
        np.testing.assert_allclose(np.asarray(keras.ops.add(x, other)), x + other, rtol=1e-7)
    assert keras.ops.add(np.ones((2, 3, 3), "int32"), np.ones((3, 1), "float32")).dtype == "float32"


def test_a_convolution_as_wide_as_it_has_filters_is_right():
    layer = keras.layers.Conv2D(4, 3, data_format="channels_first", bias_initializer="normal")
    x = GENERATOR.normal(size=(2, 3, 8, 6)).astype("float32")
    biased = np.asarray(layer(x))
    bias = layer.bias.numpy()
    layer.bias.assign(np.zeros(4))
    np.testing.assert_allclose(biased, np.asarray(layer(x)) + bias[:, None, None], atol=1e-6)


def test_keras_still_needs_it():
    code = "import keras, numpy as np; print(float(np.abs(keras.ops.add(np.zeros((1,2,2)), np.array([[1.],[2.]]))[0] - [[1,1],[2,2]]).max()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 0, "this Keras adds it right: service/loading/corrected_add.py can go"
