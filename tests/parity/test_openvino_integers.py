"""Integers in OpenVINO: exactly TensorFlow's at the limits of every type, or TensorFlow computes them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from service.engines.openvino import WHOLE_LIMIT, OpenVINOOptions
from service.engines.openvino_conversion import convert
from service.engines.openvino_engine import OpenVINOEngine
from service.engines.tensorflow import TensorFlowEngine
from service.errors import LoadError
from service.surgery.cut import describe, seeded_rows

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
WIDE = ("int32", "int64", "uint32", "uint64")


def calling(function, shape=(6,), dtype="int32"):
    x = keras.Input(shape, dtype=dtype, name="x")
    return keras.Model(x, layers.Lambda(function, name="called")(x))


def both(model):
    """OpenVINO's and TensorFlow's function of the model's outputs."""
    spec = describe(model)
    paths = tuple(output.path for output in spec.outputs)
    tensorflow = TensorFlowEngine(model, spec)
    engine = OpenVINOEngine(
        convert(model, spec, paths),
        tensorflow,
        seeded_rows(model, 2),
        OpenVINOOptions(threads=1),
        max_batch_size=4,
    )
    return engine.require(paths), tensorflow.compile(paths)


def at_the_limits(dtype, limit, shape=(3, 6)):
    """Neighbours, in twos, so that a type with fewer digits would take one for the other."""
    limits = np.iinfo(dtype)
    low, high = max(limits.min, -limit + 1), min(limits.max, limit - 1)
    flat = np.tile([low, low + 1, high, high - 1, 0, 1], 3)
    return flat.astype(dtype).reshape(shape)


def assert_equal(got, wanted):
    assert list(got) == list(wanted)
    for path, values in wanted.items():
        assert got[path].dtype == values.dtype
        np.testing.assert_array_equal(got[path], values)


MOVED = {
    "padded": lambda x: ops.pad(x, [[0, 0], [1, 1]]),
    "turned round": lambda x: ops.flip(x, axis=1),
    "transposed": lambda x: ops.transpose(ops.reshape(x, (-1, 2, 3)), (0, 2, 1)),
    "beside itself": lambda x: ops.concatenate([x, x], axis=1),
    "repeated": lambda x: ops.repeat(x, 2, axis=1),
    "equal": lambda x: ops.equal(x, x[:, :1]),
    "less": lambda x: ops.less(x, x[:, :1]),
    "chosen": lambda x: ops.where(x > x[:, 1:2], x, x[:, :1]),
    "told as booleans": lambda x: ops.cast(x, "bool"),
    "told as int64": lambda x: ops.cast(x, "int64"),
    "told as uint8": lambda x: ops.cast(x, "uint8"),
    "told as float32": lambda x: ops.cast(x, "float32"),
}


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", MOVED)
def test_integers_that_are_moved_and_compared_are_exact(name, dtype):
    function, tensorflow = both(calling(MOVED[name], dtype=dtype))
    rows = {"x": at_the_limits(dtype, WHOLE_LIMIT)}
    assert_equal(function.run(rows), tensorflow.run(rows))


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("name", MOVED)
def test_larger_ones_are_tensorflows(name, dtype):
    function, tensorflow = both(calling(MOVED[name], dtype=dtype))
    rows = {"x": at_the_limits(dtype, 2**63)}
    assert_equal(function.run(rows), tensorflow.run(rows))


COMPUTED = {
    "sum": lambda x: ops.sum(x, axis=1),
    "largest": lambda x: ops.max(x, axis=1),
    "smallest": lambda x: ops.min(x, axis=1),
    "mean": lambda x: ops.cast(ops.mean(ops.cast(x, "float32"), axis=1), "int32"),
    "twice": lambda x: x + x,
    "product": lambda x: x * x[:, :1],
    "matrix": lambda x: ops.matmul(x, ops.transpose(x[:1])),
    "relu": ops.relu,
    "place of the largest": lambda x: ops.argmax(x, axis=1),
    "constants one after the other": lambda x: (x + 5000) + 5000,
    "a large constant": lambda x: x + WHOLE_LIMIT,
    "rounded": lambda x: ops.cast(ops.round(ops.cast(x, "float32") / 3), "int32"),
}


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64"])
@pytest.mark.parametrize("name", COMPUTED)
def test_arithmetic_of_a_models_integers_is_tensorflows(name, dtype):
    model = calling(COMPUTED[name], dtype=dtype)
    spec = describe(model)
    with pytest.raises(LoadError, match="operations that take any value"):
        convert(model, spec, tuple(output.path for output in spec.outputs))


@pytest.mark.parametrize("to", ["int8", "uint8", "int64", "uint32"])
def test_floats_beyond_a_types_range_are_tensorflows(to):
    model = calling(lambda x: ops.cast(x, to), dtype="float32")
    spec = describe(model)
    with pytest.raises(LoadError, match="Cast of float32, "):
        convert(model, spec, tuple(output.path for output in spec.outputs))


def test_floats_as_int32_are_the_same():
    function, tensorflow = both(calling(lambda x: ops.cast(x, "int32"), dtype="float32"))
    rows = {"x": np.array([[-0.9, 0.9, -1.5, 2.0**24 + 2, -(2.0**29), 7]], "float32")}
    assert_equal(function.run(rows), tensorflow.run(rows))


def positions():
    """Ids to vectors of their places, padding not counted, as language models do it."""
    ids = keras.Input((6,), dtype="int32", name="x")
    mask = layers.Lambda(lambda x: ops.cast(ops.not_equal(x, 0), "int32"), name="mask")(ids)
    places = layers.Lambda(lambda m: ops.cumsum(m, axis=1) * m, name="places")(mask)
    lengths = layers.Lambda(lambda m: ops.sum(m, axis=1), name="lengths")(mask)
    return keras.Model(ids, [layers.Embedding(7, 2, name="vectors")(places), places, lengths])


def test_counts_of_what_is_true_are_computed():
    function, tensorflow = both(positions())
    rows = {"x": np.array([[5, 0, 7, 7, 0, 1], [0] * 6, [1] * 6], "int32")}
    assert_equal(function.run(rows), tensorflow.run(rows))
