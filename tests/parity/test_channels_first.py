"""Layers with channels first give, on any processor, what the same layers with channels last give.

TensorFlow without oneDNN, as on processors without AVX-512, is another process: what it gives is asked for there.
"""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from opening import opened

from service.loading.corrected_add import correct_add
from service.loading.cpu_kernels import complete_cpu_kernels

pytestmark = pytest.mark.usefixtures("looked_through_here")

TOLERANCE = 1e-5  # of an output's scale, as everywhere
ROOT = Path(__file__).parents[2]
PICTURE = (9, 8, 7)


@pytest.fixture(autouse=True)
def completed():
    correct_add()
    complete_cpu_kernels()


def convolutions(data_format):
    """Name -> a layer, and of how many axes its pictures are."""
    steps = {"": {}, "_strided": {"strides": 2}, "_dilated": {"dilation_rate": 2}}
    for padding in ("valid", "same"):
        for step, how in steps.items():
            options = {"padding": padding, "data_format": data_format, **how}
            for axes in (1, 2, 3):
                plain, transposed = f"Conv{axes}D", f"Conv{axes}DTranspose"
                yield f"{plain}_{padding}{step}", getattr(layers, plain)(6, 3, **options), axes
                yield (
                    f"{plain}_grouped_{padding}{step}",
                    getattr(layers, plain)(6, 3, groups=2, **options),
                    axes,
                )
                yield f"{transposed}_{padding}{step}", getattr(layers, transposed)(6, 3, **options), axes
            for axes in (1, 2):
                separable, depthwise = f"SeparableConv{axes}D", f"DepthwiseConv{axes}D"
                deep = {"depth_multiplier": 2, **options}
                yield f"{separable}_{padding}{step}", getattr(layers, separable)(6, 3, **deep), axes
                yield f"{depthwise}_{padding}{step}", getattr(layers, depthwise)(3, **deep), axes


def others(data_format):
    """As `convolutions`."""
    ordered = {"data_format": data_format}
    axis = 1 if data_format == "channels_first" else -1
    for axes in (1, 2, 3):
        for kind in ("Max", "Average"):
            for padding in ("valid", "same"):
                name = f"{kind}Pooling{axes}D"
                yield f"{name}_{padding}", getattr(layers, name)(2, padding=padding, **ordered), axes
            name = f"Global{kind}Pooling{axes}D"
            yield name, getattr(layers, name)(keepdims=True, **ordered), axes
        yield f"ZeroPadding{axes}D", getattr(layers, f"ZeroPadding{axes}D")(1, **ordered), axes
        yield f"BatchNormalization_{axes}", layers.BatchNormalization(axis=axis), axes
        yield f"GroupNormalization_{axes}", layers.GroupNormalization(2, axis=axis), axes
        yield f"SpatialDropout{axes}D", getattr(layers, f"SpatialDropout{axes}D")(0.5), axes
    for axes in (2, 3):
        yield f"Cropping{axes}D", getattr(layers, f"Cropping{axes}D")(1, **ordered), axes
        yield f"UpSampling{axes}D", getattr(layers, f"UpSampling{axes}D")(2, **ordered), axes
    yield "UpSampling2D_bilinear", layers.UpSampling2D(2, interpolation="bilinear", **ordered), 2


def in_time(data_format):
    """As `convolutions`, of layers whose rows are `(steps, *picture)`."""
    ordered = {"data_format": data_format}
    for axes in (1, 2, 3):
        name = f"ConvLSTM{axes}D"
        yield name, getattr(layers, name)(5, 3, padding="same", return_sequences=True, **ordered), axes
    yield "TimeDistributed", layers.TimeDistributed(layers.Conv2D(6, 3, **ordered)), 2


def named(kinds):
    return {name: (layer, axes) for name, layer, axes in kinds}


def pair_of(kinds, name):
    """The same layer in both orders, and of how many axes its pictures are."""
    (first, axes), (last, _) = (named(kinds(order))[name] for order in ("channels_first", "channels_last"))
    return first, last, axes


KINDS = [(kinds, name) for kinds in (convolutions, others, in_time) for name in named(kinds("channels_last"))]


@pytest.mark.parametrize(("kinds", "name"), KINDS, ids=[name for _, name in KINDS])
def test_a_layer_gives_the_same_in_both_orders(kinds, name):
    first, last, axes = pair_of(kinds, name)
    leading = 2 if kinds is in_time else 1  # the rows' axis, and that of the steps
    x = seeded(0, (*(2, 3)[:leading], 4, *PICTURE[:axes]))
    x_last = np.moveaxis(x, leading, -1)
    first.build(x.shape)
    last.build(x_last.shape)
    weights = [seeded(number, weight.shape) for number, weight in enumerate(last.get_weights(), start=1)]
    first.set_weights(weights)
    last.set_weights(weights)
    wanted = np.moveaxis(np.asarray(last(x_last, training=False)), -1, leading)
    assert_equal(np.asarray(first(x, training=False)), wanted)
    compiled = tf.function(lambda tensor: first(tensor, training=False)).get_concrete_function(
        tf.TensorSpec([None, *x.shape[1:]])
    )
    assert compiled.outputs[0].shape[1:] == wanted.shape[1:]
    assert_equal(compiled(tf.constant(x)).numpy(), wanted)


def test_functions_of_tensorflow_give_the_same_in_both_orders():
    x, scale = seeded(0, (2, 4, 6, 8)), seeded(1, (4,))
    kernel = seeded(2, (3, 3, 4, 5))
    last = np.moveaxis(x, 1, -1)
    norm = tf.compat.v1.nn.fused_batch_norm
    given = {"scale": scale, "offset": scale, "mean": scale, "variance": scale, "is_training": False}
    for first, wanted in [
        (
            tf.nn.conv2d(x, kernel, [1, 1, 2, 3], "SAME", "NCHW"),
            tf.nn.conv2d(last, kernel, [1, 2, 3, 1], "SAME"),
        ),
        (
            tf.nn.conv2d(x, kernel, 1, [[0, 0], [0, 0], [1, 2], [3, 0]], "NCHW"),
            tf.nn.conv2d(last, kernel, 1, [[0, 0], [1, 2], [3, 0], [0, 0]]),
        ),
        (
            tf.nn.max_pool2d(x, [1, 3], [2, 1], "VALID", "NCHW"),
            tf.nn.max_pool2d(last, [1, 3], [2, 1], "VALID"),
        ),
        (tf.nn.depth_to_space(x, 2, "NCHW"), tf.nn.depth_to_space(last, 2)),
        (tf.nn.space_to_depth(x, 2, "NCHW"), tf.nn.space_to_depth(last, 2)),
        (norm(x, **given, data_format="NCHW")[0], norm(last, **given)[0]),
    ]:
        assert_equal(first.numpy(), np.moveaxis(wanted.numpy(), -1, 1))


def test_a_dilated_transposed_convolution_gives_what_its_definition_says():
    x, kernel = seeded(0, (1, 4, 5, 2)), seeded(1, (3, 2, 6, 2))  # (H, W, out, in)
    wanted = np.zeros((1, 8, 8, 6), "float32")
    for row, column in np.ndindex(4, 5):
        for down, right in np.ndindex(3, 2):
            wanted[0, row + 2 * down, column + 3 * right] += kernel[down, right] @ x[0, row, column]
    given = keras.ops.conv_transpose(x, kernel, 1, "valid", dilation_rate=(2, 3))
    assert_equal(np.asarray(given), wanted)


def network(data_format):
    """A picture network of most kinds, its names the same in both orders."""
    first = data_format == "channels_first"
    keras.config.set_image_data_format(data_format)
    try:
        picture = keras.Input((4, 16, 16) if first else (16, 16, 4), name="picture")
        x = layers.Conv2D(8, 3, padding="same", activation="relu", name="wide")(picture)
        x = left = layers.MaxPooling2D(name="pool")(x)
        x = layers.BatchNormalization(axis=1 if first else -1, name="norm")(x)
        x = layers.SeparableConv2D(8, 3, padding="same", name="separable")(x)
        x = layers.Add(name="add")([x, left])
        x = layers.DepthwiseConv2D(3, name="depthwise")(x)
        x = layers.Conv2DTranspose(6, 3, strides=2, name="transposed")(x)
        x = layers.ZeroPadding2D(1, name="padded")(x)
        x = layers.Cropping2D(((2, 1), (1, 2)), name="cropped")(x)
        x = layers.UpSampling2D(2, name="up")(x)
        x = layers.AveragePooling2D(3, name="average")(x)
        x = layers.GlobalAveragePooling2D(name="global")(x)
        return keras.Model(picture, layers.Dense(3, activation="softmax", name="classes")(x))
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
def test_every_layer_of_a_model_is_served_in_its_own_order(engine, tmp_path):
    first, last = network("channels_first"), network("channels_last")
    weights = [seeded(place, weight.shape) for place, weight in enumerate(last.get_weights())]
    first.set_weights(weights)
    last.set_weights(weights)
    (tmp_path / "model").mkdir()
    first.save(tmp_path / "model" / "model.h5")
    served = opened(tmp_path / "model", tolerance=TOLERANCE, engine=engine).engine
    x = seeded(99, (3, 4, 16, 16))
    paths = tuple(layer.path for layer in served.spec.layers)
    assert {"wide", "pool", "norm", "depthwise", "transposed", "global", "classes"} <= set(paths)
    for path in paths[1:]:
        wanted = np.asarray(keras.Model(last.input, last.get_layer(path).output)(np.moveaxis(x, 1, -1)))
        given = served.compile((path,)).run({"picture": x})[path]
        assert_equal(given, np.moveaxis(wanted, -1, 1) if wanted.ndim == 4 else wanted)
    if engine == "openvino":
        assert served.alone


def test_the_same_holds_where_tensorflow_does_without_onednn():
    """Run in a process of its own, since TensorFlow asks for the variable only once, when it is imported."""
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        pytest.skip("this process is that one")
    files = [__file__, str(Path(__file__).with_name("test_legacy_corpus.py"))]
    chosen = ["-k", "channels_first or _th_ or convlstm or local or layer or tensorflow or definition"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", *files, *chosen],
        cwd=ROOT,
        env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0", "SKIPPED_TESTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]


def seeded(seed, shape):
    """Numbers of 0.1 to 1: a variance must be positive, and a row of near zeros would hide a difference."""
    return np.random.default_rng(seed).uniform(0.1, 1, shape).astype("float32")


def assert_equal(given, wanted):
    assert given.shape == wanted.shape
    assert np.abs(given - wanted).max() <= TOLERANCE * np.abs(wanted).max()
