"""Layers and graphs that the corpus lacks: written by tf_keras here, and computed as tf_keras computes them."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from service.loading.loader import load
from service.model_config import ModelConfig

L = tf_keras.layers
pytestmark = [
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
    pytest.mark.usefixtures("looked_through_here"),
]
ALONE = ModelConfig(loader="keras3")
TOLERANCE = 2e-6  # of the largest number of an output


def functional(*shapes, dtype="float32"):
    """Wraps a function of input tensors into a model's builder."""

    def decorate(function):
        def build():
            inputs = [tf_keras.Input(shape, dtype=dtype) for shape in shapes]
            return tf_keras.Model(inputs if len(inputs) > 1 else inputs[0], function(*inputs))

        build.__name__ = function.__name__
        return build

    return decorate


def chain(shape, *layers, dtype="float32"):
    def build():
        made = [layer() for layer in layers]
        return tf_keras.Sequential([tf_keras.Input(shape, dtype=dtype), *made])

    return build


@functional((6,), (6,), dtype="int32")
def masks_met(a, b):
    a, b = L.Embedding(5, 4, mask_zero=True)(a), L.Embedding(5, 4, mask_zero=True)(b)
    merged = [kind()([a, b]) for kind in (L.Add, L.Multiply, L.Average, L.Maximum, L.Minimum, L.Subtract)]
    merged.append(L.Concatenate()([a, b]))
    merged.append(L.Concatenate(axis=1)([a, b]))
    return [L.LSTM(3)(tensor) for tensor in merged]


@functional((6,), (6, 4))
def mask_met_by_none(ids, dense):
    ids = L.Embedding(5, 4, mask_zero=True)(ids)
    return [L.GRU(3)(L.Add()([ids, dense])), L.GRU(3)(L.Concatenate()([dense, ids]))]


@functional((5, 4))
def bidirectional_modes(x):
    modes = ["sum", "mul", "ave", "concat"]
    return [
        L.Bidirectional(L.LSTM(3, return_sequences=mode != "ave"), merge_mode=mode)(x) for mode in modes
    ] + (L.Bidirectional(L.GRU(3), merge_mode=None)(x))


@functional((5, 4))
def states(x):
    y, h, c = L.LSTM(3, return_state=True, return_sequences=True)(x)
    z = L.LSTM(3, go_backwards=True)(y, initial_state=[h, c])
    both, *rest = L.Bidirectional(L.GRU(3, return_state=True))(x)
    again = L.Bidirectional(L.GRU(3))(x, initial_state=rest)
    return [z, both, again]


@functional((5, 4))
def cells(x):
    stacked = L.RNN([L.LSTMCell(3), L.GRUCell(4)], return_sequences=True)(x)
    return L.RNN(L.SimpleRNNCell(3))(stacked)


@functional((4, 5, 6, 3))
def convolutional_lstms(x):
    y = L.ConvLSTM2D(2, 3, padding="same", return_sequences=True, recurrent_activation="hard_sigmoid")(x)
    return L.ConvLSTM2D(2, (2, 3))(y)


@functional((8, 6, 3))
def pictures(x):
    y = L.ZeroPadding2D(((1, 0), (2, 1)))(x)
    y = L.Conv2D(4, 3, dilation_rate=2, padding="same", activation="swish")(y)
    y = L.SeparableConv2D(4, 3, depth_multiplier=2, activation=tf_keras.activations.relu)(y)
    y = L.DepthwiseConv2D(2, strides=2)(y)
    y = L.UpSampling2D((2, 3), interpolation="bilinear")(y)
    y = L.Conv2DTranspose(3, 3, strides=2, output_padding=1)(y)
    y = L.Cropping2D(((1, 0), (0, 2)))(y)
    y = L.PReLU(shared_axes=[1, 2], alpha_initializer="random_normal")(y)
    y = L.LeakyReLU(0.1)(y)
    y = L.ReLU(max_value=3.0, negative_slope=0.1, threshold=0.2)(y)
    y = L.BatchNormalization(axis=[-1], renorm=True)(y)
    return [L.GlobalMaxPooling2D(keepdims=True)(y), L.Softmax(axis=[1, 2])(y), L.Flatten()(y)]


@functional((3, 8, 6))
def channels_first(x):
    y = L.Conv2D(4, 3, data_format="channels_first")(x)
    y = L.BatchNormalization(axis=1)(y)
    y = L.MaxPooling2D(2, data_format="channels_first")(y)
    return [
        L.Flatten(data_format="channels_first")(y),
        L.GlobalAveragePooling2D(data_format="channels_first")(y),
    ]


@functional((7, 4))
def sequences(x):
    y = L.Conv1D(4, 2, padding="causal", groups=2)(x)
    y = L.SeparableConv1D(4, 3, padding="same")(y)
    y = L.Conv1DTranspose(3, 2, strides=2)(y)
    y = L.SpatialDropout1D(0.5)(L.LocallyConnected1D(3, 3, strides=2)(y))
    y = L.AveragePooling1D(2, padding="same")(L.ZeroPadding1D((1, 2))(y))
    y = L.Permute((2, 1))(L.UpSampling1D(2)(L.Cropping1D((1, 0))(y)))
    return L.TimeDistributed(L.Dense(3, activation="hard_sigmoid"))(L.Reshape((-1, 2))(y))


@functional((5, 4, 3))
def places(x):
    return L.LocallyConnected2D(2, (2, 3), strides=(1, 1), activation="elu")(x)


@functional((4, 4, 4, 2))
def volumes(x):
    y = L.Conv3DTranspose(2, 2, strides=2)(L.ZeroPadding3D(1)(x))
    y = L.AveragePooling3D(2)(L.UpSampling3D(2)(L.Cropping3D(1)(y)))
    return L.GlobalAveragePooling3D()(L.SpatialDropout3D(0.1)(y))


@functional((6, 8))
def normalised(x):
    y = L.LayerNormalization(axis=[1, 2], epsilon=1e-4)(x)
    y = L.GroupNormalization(groups=2)(y)
    y = L.UnitNormalization(axis=-1)(y)
    return L.BatchNormalization(center=False, scale=False)(y)


@functional((6, 8), (5, 8))
def attention(query, value):
    heads = L.MultiHeadAttention(2, 3, value_dim=4, output_shape=7)
    y, scores = heads(query, value, return_attention_scores=True)
    z = L.MultiHeadAttention(2, 4)(query, query, use_causal_mask=True)
    dots = L.Attention(use_scale=True, score_mode="concat")([query, value])
    added = L.AdditiveAttention()([query, value], use_causal_mask=True)
    return [y, scores, z, dots, added, L.Dot(axes=(2, 2), normalize=True)([query, value])]


@functional((4,), (4,))
def operators(a, b):
    y = tf.concat([a, b * 2.0, 1.0 - a], axis=-1)
    y = tf.reshape(y, (-1, 3, 4))[:, 1:, ::2]
    y = tf.transpose(y, [0, 2, 1]) / tf.reduce_sum(tf.abs(y), axis=[1, 2], keepdims=True)
    y = tf.matmul(y, y, transpose_b=True)
    y = tf.where(y > 0.1, y, tf.zeros_like(y))
    first, second = tf.split(y, 2, axis=1)
    z = (
        tf.nn.relu(first)
        + tf.math.square(second)
        - tf.cast(tf.argmax(second, axis=-1), tf.float32)[..., tf.newaxis]
    )
    return [
        z,
        tf.stack([a, b], axis=1),
        tf.squeeze(tf.expand_dims(-a, 1), 1),
        tf.image.resize(a[:, None, :, None], (2, 8)),
    ]


@functional((8, 6, 3))
def preprocessing(x):
    y = L.Rescaling(1 / 127.5, offset=-1)(x)
    y = L.Resizing(5, 4)(L.CenterCrop(6, 5)(y))
    y = L.RandomFlip()(L.RandomRotation(0.2)(L.RandomZoom(0.1)(L.RandomContrast(0.1)(y))))
    y = L.RandomTranslation(0.1, 0.1)(L.RandomHeight(0.1)(L.RandomWidth(0.1)(y)))
    return L.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])(y)


@functional((3,))
def buckets(x):
    y = L.Discretization(bin_boundaries=[-1.0, 0.0, 1.0])(x)
    return L.CategoryEncoding(num_tokens=4, output_mode="multi_hot")(y)


@functional((4,))
def activations(x):
    words = [
        "elu",
        "selu",
        "gelu",
        "softplus",
        "softsign",
        "exponential",
        "mish",
        "hard_sigmoid",
        "swish",
        "relu6",
    ]
    found = [L.Activation(word if word != "relu6" else tf.nn.relu6)(x) for word in words]
    found += [L.Dense(3, activation=L.LeakyReLU(0.2))(x), L.Dense(3, activation=tf.nn.tanh)(x)]
    return [*found, L.ThresholdedReLU(0.3)(x), L.ELU(0.5)(x), L.GaussianNoise(1.0)(L.AlphaDropout(0.3)(x))]


def nested_deep():
    inner = tf_keras.Sequential([L.Dense(5, input_shape=(4,)), L.BatchNormalization()], name="inner")
    x = tf_keras.Input((4,))
    middle = tf_keras.Model(x, L.Dense(4)(inner(x)), name="middle")
    middle.layers[1].trainable = False
    a, b = tf_keras.Input((4,)), tf_keras.Input((4,))
    twice = L.Concatenate()([middle(a), middle(b), inner(a)])
    return tf_keras.Model([a, b], [L.Dense(2)(twice), inner(b)])


def nested_output():
    x = tf_keras.Input((4,))
    two = tf_keras.Model(x, [L.Dense(2)(x), L.Dense(3)(x)], name="two")
    y = tf_keras.Input((4,))
    return tf_keras.Model(y, two(y))


def deferred_inside():
    inner = tf_keras.Sequential([L.Dense(5), L.Dense(3)], name="inner")
    x = tf_keras.Input((4,))
    return tf_keras.Model(x, [inner(x), inner(x + 1.0)])


def named_inputs():
    inputs = {name: tf_keras.Input((3,), name=name) for name in ("b", "a")}
    merged = L.Concatenate()([inputs["a"], inputs["b"]])
    return tf_keras.Model(
        inputs, {"sum": L.Dense(2, name="block/one")(merged), "raw": L.Dense(1, name="block_one")(merged)}
    )


def deferred():
    model = tf_keras.Sequential([L.Dense(5, activation="relu"), L.Dense(3)])
    model.build((None, 4))
    return model


def time_distributed_model():
    inner = tf_keras.Sequential([L.Conv2D(2, 2, input_shape=(5, 5, 1)), L.BatchNormalization(), L.Flatten()])
    return tf_keras.Sequential(
        [L.TimeDistributed(inner, input_shape=(3, 5, 5, 1)), L.GRU(2, reset_after=False)]
    )


def fixed_batch():
    x = tf_keras.Input(batch_shape=(3, 4))
    return tf_keras.Model(x, L.Dense(2)(x))


def half():
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        x = tf_keras.Input((4,))
        return tf_keras.Model(x, L.Activation("linear", dtype="float32")(L.Dense(3)(x)))
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")


BUILDERS = [
    *[masks_met, mask_met_by_none, bidirectional_modes, states, cells, convolutional_lstms, pictures],
    *[channels_first, sequences, places, volumes, normalised, attention, operators, preprocessing, buckets],
    *[
        activations,
        nested_deep,
        nested_output,
        deferred_inside,
        named_inputs,
        deferred,
        time_distributed_model,
    ],
    *[fixed_batch, half],
]


def rows(tensor, generator, count):
    shape = (count, *tensor.shape[1:])
    whole = tensor.dtype.is_integer
    return (
        generator.integers(0, 5, shape).astype("int32")
        if whole
        else generator.normal(size=shape).astype("float32")
    )


def settled(model, generator):
    """Weights that no initialiser would make: a repair that loses one shows."""
    for weight in model.weights:
        if weight.dtype.is_floating and "Normalization" not in weight.name:
            values = np.abs(generator.normal(size=weight.shape)) * 0.4 + 0.1
            weight.assign(
                values * (1 if "variance" in weight.name else generator.choice([-1, 1], weight.shape))
            )
    return model


def truth(model, inputs):
    names = getattr(model, "_inputs_struct", getattr(model, "_nested_inputs", None))
    if isinstance(names, dict):
        inputs = dict(zip(names, inputs, strict=True))
    elif len(inputs) == 1:
        inputs = inputs[0]
    return [np.asarray(tensor, "float64") for tensor in tf.nest.flatten(model(inputs, training=False))]


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_what_tf_keras_writes_is_computed_alike(build, tmp_path):
    tf_keras.backend.clear_session()
    generator = np.random.default_rng(0)
    model = settled(build(), generator)
    model.save(tmp_path / "old.h5")
    count = 3
    inputs = [rows(tensor, generator, count) for tensor in model.inputs]
    if build is mask_met_by_none:
        inputs[0] = generator.integers(0, 5, (count, 6)).astype("float32")
    expected = truth(model, inputs)
    loaded = load(tmp_path / "old.h5", ALONE).model
    found = truth(loaded, inputs)
    assert [array.shape for array in found] == [array.shape for array in expected]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * max(1.0, np.abs(theirs).max()))
