"""The layers that Keras 3 dropped, against plain numpy transcriptions of what the old Keras computed."""

import json

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from service.loading.legacy.keras1_layers import Deconvolution2D, ParametricSoftplus, SReLU
from service.loading.legacy.merge_layers import Cosine
from service.loading.legacy.operators import SYMBOLS
from service.loading.legacy.tensorflow_layers import CornerUpSampling2D, TensorFlowOperator
from service.loading.loader import load
from service.model_config import ModelConfig

GENERATOR = np.random.default_rng(0)
ALONE = ModelConfig(loader="keras3")


def random(*shape):
    return GENERATOR.normal(size=shape).astype("float32")


def test_srelu_has_three_straight_pieces():
    x, (t_left, a_left, t_right, a_right) = random(6, 5) * 3, random(4, 5)
    layer = SReLU()
    layer.build(x.shape)
    layer.set_weights([t_left, a_left, t_right, a_right])
    end = t_left + np.abs(t_right)
    right = end + a_right * (x - end)
    expected = np.where(x >= end, right, np.where(x > t_left, x, t_left + a_left * (x - t_left)))
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)


def test_parametric_softplus_shares_along_axes():
    x, alpha, beta = random(2, 3, 4), random(1, 4), random(1, 4)
    layer = ParametricSoftplus(shared_axes=[1])
    layer.build(x.shape)
    layer.set_weights([alpha, beta])
    np.testing.assert_allclose(layer(x), alpha * np.log1p(np.exp(beta * x)), atol=1e-5)


def test_the_cosine_of_keras_1_has_an_axis_more():
    a, b = random(3, 4), random(3, 4)
    expected = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    found = np.asarray(Cosine(axes=[1, 1])([a, b]))
    assert found.shape == (3, 1, 1)
    np.testing.assert_allclose(found[:, 0, 0], expected, atol=1e-6)


@pytest.mark.parametrize(("padding", "size"), [("same", 10), ("same", 9), ("valid", 11), ("valid", 12)])
def test_a_deconvolution_has_the_size_that_was_asked_for(padding, size):
    x = random(2, 5, 5, 3)
    layer = Deconvolution2D(4, 3, output_shape=[None, size, size, 4], strides=2, padding=padding)
    found = np.asarray(layer(x))
    expected = tf.nn.conv2d_transpose(x, layer.kernel.value, [2, size, size, 4], 2, padding.upper())
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_tensorflow_1_enlarged_by_corners(data_format):
    x = np.arange(4, dtype="float32").reshape(1, 2, 2, 1)
    expected = np.array([[0, 0.5, 1, 1], [1, 1.5, 2, 2], [2, 2.5, 3, 3], [2, 2.5, 3, 3]], "float32")
    if data_format == "channels_first":
        x = x.reshape(1, 1, 2, 2)
    found = np.asarray(CornerUpSampling2D(2, data_format=data_format, interpolation="bilinear")(x))
    np.testing.assert_array_equal(found.reshape(4, 4), expected)


@pytest.mark.parametrize(
    "symbol", ["io.write_file", "py_function", "nn.__class__", "keras.models.load_model"]
)
def test_no_other_function_is_an_operator(symbol):
    with pytest.raises(ValueError, match="list of allowed"):
        TensorFlowOperator(symbol)


def test_every_operator_that_may_be_named_exists():
    missing = []
    for symbol in sorted(SYMBOLS):
        try:
            TensorFlowOperator(symbol)
        except AttributeError:
            missing.append(symbol)
    assert missing == []


def write(path, config, layers, **attributes):
    """A file as Keras 1 and 2 lay it out."""
    with h5py.File(path, "w") as file:
        file.attrs.update({"model_config": json.dumps(config), **attributes})
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in layers]
        for layer, arrays in layers.items():
            own = group.create_group(layer)
            own.attrs["weight_names"] = [name.encode() for name in arrays]
            for name, array in arrays.items():
                own[name] = array


@pytest.mark.parametrize(("kernels", "turned"), [("auto", False), ("theano", True), ("tensorflow", False)])
def test_the_operator_says_what_keras_1_does_not(kernels, turned, tmp_path):
    kernel, bias, x = random(2, 3, 2, 4), random(4), random(2, 6, 6, 2)
    conv = {
        "name": "c",
        "nb_filter": 4,
        "nb_row": 2,
        "nb_col": 3,
        "border_mode": "valid",
        "dim_ordering": "tf",
    }
    first = {"batch_input_shape": [None, 6, 6, 2], "activation": "linear", "subsample": [1, 1]}
    config = {"class_name": "Sequential", "config": [{"class_name": "Convolution2D", "config": conv | first}]}
    path = tmp_path / "old.h5"
    write(path, config, {"c": {"c_W:0": kernel, "c_b:0": bias}}, keras_version="1.2.2")
    loaded = load(path, ModelConfig(loader="keras3", kernels=kernels))
    used = kernel[::-1, ::-1] if turned else kernel
    np.testing.assert_allclose(loaded.model(x), tf.nn.conv2d(x, used, 1, "VALID") + bias, atol=1e-5)
    words = {sentence.partition(":")[0] for sentence in loaded.repairs}
    assert {"theano-kernels": kernels == "theano", "kernels": kernels == "auto"} == {
        word: word in words for word in ("theano-kernels", "kernels")
    }


def test_keras_3s_own_h5_is_not_read_by_its_reader_of_old_files(tmp_path):
    x = keras.Input((3, 4))
    scores = keras.layers.Softmax(axis=[1, 2])(x)
    attended = keras.layers.Attention(score_mode="concat", use_scale=True)([x, x])
    model = keras.Model(x, [scores, attended])
    path = tmp_path / "new.h5"
    model.save(path)
    loaded = load(path, ALONE)
    rows = random(2, 3, 4)
    for ours, theirs in zip(loaded.model(rows), model(rows), strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    assert loaded.repairs == ()
