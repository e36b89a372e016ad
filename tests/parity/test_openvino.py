"""The OpenVINO engine against TensorFlow: the same numbers, the same rejections, and TensorFlow where it cannot."""

import gc
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from opening import opened

from service.engines.converted import unpack
from service.engines.openvino import OpenVINOFunction, OpenVINOOptions, open_function
from service.engines.openvino_conversion import convert
from service.engines.openvino_engine import TOLERANCES, OpenVINOEngine
from service.engines.openvino_library import capabilities
from service.engines.parity import relative_difference
from service.engines.tensorflow import TensorFlowEngine, TensorFlowFunction
from service.errors import InputRejected, LoadError
from service.surgery.cut import describe, seeded_rows

pytestmark = pytest.mark.usefixtures("looked_through_here")

ROOT = Path(__file__).parents[2]
TOLERANCE = TOLERANCES["float32"]
VOCABULARY = 10
MAX_BATCH = 8


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(11)


def saved(model, folder):
    folder.mkdir(exist_ok=True)
    model.save(folder / "model.h5")
    return folder


def both(model, paths=None, **options):
    """OpenVINO's and TensorFlow's function of the same tensors, by default the model's outputs."""
    spec = describe(model)
    paths = paths or tuple(dict.fromkeys(output.path for output in spec.outputs))
    tensorflow = TensorFlowEngine(model, spec)
    engine = OpenVINOEngine(
        convert(model, spec, tuple(layer.path for layer in spec.layers)),
        tensorflow,
        seeded_rows(model, 3),
        OpenVINOOptions(threads=1, **options),
        max_batch_size=MAX_BATCH,
    )
    return engine.require(paths), tensorflow.compile(paths)


def sequential(shape, *steps, dtype=None):
    x = y = keras.Input(shape, dtype=dtype, name="x")
    for step in steps:
        y = step(y)
    return keras.Model(x, y)


def calling(function):
    return layers.Lambda(function, name="called")


def assert_same(got, wanted, tolerance=TOLERANCE):
    assert list(got) == list(wanted)
    for path, values in wanted.items():
        assert got[path].dtype == values.dtype, path
        assert relative_difference(got[path], values) <= tolerance, path


# -- the same numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["iris", "digits", "pairs"])
def test_every_layer_of_the_shipped_models_alone_and_all_at_once(name):
    engine = opened(ROOT / "models" / name).engine
    assert engine.name == "openvino"
    spec, model = engine.spec, engine.tensorflow._model
    paths = tuple(layer.path for layer in spec.layers)
    everything = engine.compile(paths)
    wanted = TensorFlowEngine(model, spec).compile(paths)
    for rows in (1, 2, 7, 32, 70):
        batch = seeded_rows(model, rows, seed=rows)
        expected = wanted.run(batch)
        assert_same(everything.run(batch), expected)
        for path in paths if rows == 7 else ():
            assert_same(engine.compile((path,)).run(batch), {path: expected[path]})
    assert all(entry["engine"] == "openvino" for entry in engine.functions)


IMAGE, STEPS, ROW = (12, 10, 3), (5, 3), (4,)
ZOO = {
    "conv": (IMAGE, layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")),
    "dilated": (IMAGE, layers.Conv2D(4, 3, dilation_rate=2)),
    "grouped": (IMAGE, layers.Conv2D(6, 3, groups=3)),
    "depthwise": (IMAGE, layers.DepthwiseConv2D(3), layers.BatchNormalization(), layers.ReLU(6.0)),
    "separable": (IMAGE, layers.SeparableConv2D(4, 3)),
    "transposed": (IMAGE, layers.Conv2DTranspose(4, 3, strides=2)),
    "conv3d": ((4, 8, 8, 2), layers.Conv3D(3, 3), layers.MaxPooling3D(2), layers.GlobalAveragePooling3D()),
    "max_pool": (IMAGE, layers.MaxPooling2D(2)),
    "average_pool_same": (IMAGE, layers.AveragePooling2D(3, padding="same")),
    "global_max": (IMAGE, layers.GlobalMaxPooling2D()),
    "bilinear": (IMAGE, layers.UpSampling2D(interpolation="bilinear")),
    "resizing": (IMAGE, layers.Resizing(5, 7)),
    "crop_and_pad": (IMAGE, layers.Cropping2D(1), layers.ZeroPadding2D(2), layers.CenterCrop(6, 6)),
    "random_layers_rest": (IMAGE, layers.RandomFlip(), layers.GaussianNoise(0.5), layers.Flatten()),
    "group_norm": (IMAGE, layers.GroupNormalization(3)),
    "prelu": (IMAGE, layers.PReLU(), layers.Permute((2, 1, 3)), layers.Reshape((-1, 6))),
    "normalization": (ROW, layers.Normalization(mean=[1.0] * 4, variance=[2.0] * 4)),
    "dense_gelu": (ROW, layers.Dense(5, activation="gelu"), layers.LayerNormalization()),
    "softmax": (ROW, layers.Dense(5), layers.Dropout(0.5), layers.Softmax()),
    "swish": (ROW, layers.Dense(5, activation="swish"), layers.UnitNormalization()),
    "lstm": (STEPS, layers.LSTM(4, return_sequences=True), layers.LSTM(3)),
    "gru": (STEPS, layers.GRU(4)),
    "bidirectional": (STEPS, layers.Bidirectional(layers.LSTM(4))),
    "masked": (STEPS, layers.Masking(), layers.SimpleRNN(4)),
    "conv_lstm": ((3, 8, 8, 2), layers.ConvLSTM2D(3, 3)),
    "time_distributed": (STEPS, layers.TimeDistributed(layers.Dense(3))),
    "causal": (STEPS, layers.Conv1D(4, 2, padding="causal")),
    "comparison": (ROW, calling(lambda x: x > 0)),
    "sorted": (ROW, calling(lambda x: ops.sort(x, axis=-1))),
    "squares": (ROW, calling(lambda x: ops.einsum("bi,bj->bij", x, x))),
}


@pytest.mark.parametrize("name", ZOO)
def test_layers_of_all_kinds_give_what_tensorflow_gives(name):
    shape, *steps = ZOO[name]
    model = sequential(shape, *steps)
    function, tensorflow = both(model)
    for rows in (1, 3, MAX_BATCH, 2 * MAX_BATCH + 5):
        batch = seeded_rows(model, rows, seed=rows)
        assert_same(function.run(batch), tensorflow.run(batch))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "bool", "float16"])
def test_inputs_of_other_types(dtype):
    model = sequential((4,), calling(lambda x: ops.cast(x, "float32") * 0.5), dtype=dtype)
    function, tensorflow = both(model)
    batch = {"x": np.array([[0, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 1]]).astype(dtype)}
    assert_same(function.run(batch), tensorflow.run(batch))


def test_attention_with_several_inputs_and_outputs():
    query, value = keras.Input((5, 8), name="query"), keras.Input((7, 8), name="value")
    attended = layers.MultiHeadAttention(2, 4, name="heads")(query, value)
    pooled = layers.GlobalAveragePooling1D(name="pooled")(attended)
    model = keras.Model([query, value], {"attended": attended, "pooled": pooled})
    function, tensorflow = both(model)
    batch = seeded_rows(model, 3)
    assert_same(function.run(batch), tensorflow.run(batch))


def test_nested_and_shared_layers_and_two_names_of_one_tensor():
    inner_input = keras.Input((4,), name="inner_input")
    inner = keras.Model(
        inner_input, layers.Dense(3, activation="tanh", name="code")(inner_input), name="base"
    )
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    joined = layers.Concatenate(name="joined")([inner(left), inner(right)])
    model = keras.Model([left, right], layers.Dropout(0.5, name="same_again")(joined))
    paths = tuple(layer.path for layer in describe(model).layers)
    function, tensorflow = both(model, paths)
    batch = seeded_rows(model, 5)
    assert_same(function.run(batch), tensorflow.run(batch))


@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0"])
def test_application_models(name):
    model = getattr(keras.applications, name)(weights=None, input_shape=(96, 96, 3), classes=10)
    model_paths = [layer.path for layer in describe(model).layers]
    paths = (*model_paths[len(model_paths) // 2 :: 40], model_paths[-1])
    function, tensorflow = both(model, paths)
    batch = {
        describe(model).inputs[0].name: np.random.default_rng(5).uniform(0, 255, (3, 96, 96, 3)).astype("f4")
    }
    assert_same(function.run(batch), tensorflow.run(batch))


# -- the same rejections ----------------------------------------------------------------------------------


def embedding(dtype="int32"):
    return sequential((3,), layers.Embedding(VOCABULARY, 4, name="vectors"), layers.Flatten(), dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "ids"),
    [
        ("int32", [1, VOCABULARY, 2]),
        ("int32", [-VOCABULARY - 1, 0, 0]),
        ("int32", [2**31 - 1, 0, 0]),
        ("int64", [0, 0, VOCABULARY]),
        ("int64", [2**32 + 1, 0, 0]),
        ("int64", [-(2**32), 0, 0]),
        ("float32", [3, 2, VOCABULARY]),
        ("float32", [1e20, 0, 0]),
        ("float32", [np.nan, 0, 0]),
        ("uint8", [255, 0, 0]),
    ],
)
def test_an_index_out_of_range_is_rejected_in_the_same_words(dtype, ids):
    function, tensorflow = both(embedding(dtype))
    good = np.zeros((MAX_BATCH + 3, 3), dtype)
    batch = {"x": np.concatenate([good, np.array([ids], dtype)])}  # in the second part of two
    refusals = []
    for engine in (tensorflow, function):
        with pytest.raises(InputRejected) as refused:
            engine.run(batch)
        refusals.append(refused.value.message)
    assert refusals[0] == refusals[1]
    assert_same(function.run({"x": good}), tensorflow.run({"x": good}))


def test_indices_from_the_end_are_taken_as_keras_takes_them():
    function, tensorflow = both(embedding())
    batch = {"x": np.array([[-1, -VOCABULARY, VOCABULARY - 1]], "int32")}
    assert_same(function.run(batch), tensorflow.run(batch))


def test_only_look_ups_that_matter_reject():
    words, tags = (
        keras.Input((2,), dtype="int32", name="words"),
        keras.Input((2,), dtype="int32", name="tags"),
    )
    word = layers.Embedding(VOCABULARY, 2, name="word")(words)
    tag = layers.Embedding(3, 2, name="tag")(tags)
    model = keras.Model([words, tags], layers.Add(name="sum")([word, tag]))
    batch = {"words": np.array([[1, 9]], "int32"), "tags": np.array([[3, 0]], "int32")}
    alone, _ = both(model, ("word",))
    assert alone.run(batch)["word"].shape == (1, 2, 2)
    together, _ = both(model, ("word", "sum"))
    with pytest.raises(InputRejected, match=r"= 3 is not in \[0, 3\)"):
        together.run(batch)


MAKES_NUMBERS_OF_NAN = {
    "relu": ops.relu,
    "relu6": ops.relu6,
    "exp": ops.exp,
    "clip": lambda x: ops.clip(x, -1.0, 1.0),
    "maximum": lambda x: ops.maximum(x, 0.5),
    "largest": lambda x: ops.max(x, axis=-1),
}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, -1e12])
@pytest.mark.parametrize("name", MAKES_NUMBERS_OF_NAN)
def test_numbers_that_are_none_give_what_tensorflow_makes_of_them(name, bad):
    function, tensorflow = both(sequential(ROW, calling(MAKES_NUMBERS_OF_NAN[name])))
    values = np.random.default_rng(3).normal(size=(5, 4)).astype("float32")
    values[3] = bad
    got, wanted = function.run({"x": values}), tensorflow.run({"x": values})
    np.testing.assert_array_equal(got["called"], wanted["called"])


def without_reserve(function):
    """The function, which fails if it wants TensorFlow's."""

    def reserve():
        raise AssertionError("it went to the reserve")

    function._reserve = reserve
    return function


LARGE = {
    "conv": ZOO["conv"],
    "grouped": ZOO["grouped"],
    "conv3d": ZOO["conv3d"],
    "max_pool": ZOO["max_pool"],
    "average_pool_same": ZOO["average_pool_same"],
    "softmax": ZOO["softmax"],
    "normalization": ZOO["normalization"],
    "batch_norm": (IMAGE, layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()),
    "separable": ZOO["separable"],
    "sigmoid": (ROW, layers.Dense(8, activation="relu"), layers.Dense(3, activation="sigmoid")),
    "tanh": (ROW, layers.Dense(8, activation="tanh"), layers.Dense(3)),
    "leaky": (ROW, layers.Dense(8), layers.LeakyReLU(), layers.Dense(3, activation="softmax")),
    "prelu": (IMAGE, layers.PReLU(), layers.Flatten(), layers.Dense(2)),
    "pad": (IMAGE, layers.ZeroPadding2D(2), layers.GlobalAveragePooling2D(), layers.Reshape((3, 1))),
}


@pytest.mark.parametrize("scale", [1.7e9, 1.7e12, 1e20, 1e24])
@pytest.mark.parametrize("name", LARGE)
def test_large_numbers_that_overflow_nowhere_are_openvinos(name, scale):
    """A time in seconds since 1970 is beyond 2**30; it must not cost a start of TensorFlow."""
    shape, *steps = LARGE[name]
    function, tensorflow = both(sequential(shape, *steps))
    values = np.random.default_rng(3).normal(size=(5, *shape)).astype("float32") * np.float32(scale)
    values[0] = scale
    assert_same(without_reserve(function).run({"x": values}), tensorflow.run({"x": values}))


@pytest.mark.parametrize(
    "name", ["squares", "dense_gelu", "transposed", "lstm", "comparison", "sorted", "swish", "masked"]
)
def test_large_numbers_where_something_could_overflow_or_be_an_integer_are_tensorflows(name):
    shape, *steps = ZOO[name]
    function, _ = both(sequential(shape, *steps))
    values = np.full((2, *shape), 1e25, "float32")
    with pytest.raises(AssertionError, match="went to the reserve"):
        without_reserve(function).run({"x": values})


def test_weights_count_for_what_may_overflow():
    model = sequential(ROW, layers.Dense(3, use_bias=False, kernel_initializer="ones"), layers.ReLU())
    values = np.full((1, 4), 2.0**40, "float32")
    function, tensorflow = both(model)
    assert_same(without_reserve(function).run({"x": values}), tensorflow.run({"x": values}))
    model.layers[1].set_weights([np.full((4, 3), 2.0**85, "float32")])
    function, _ = both(model)
    with pytest.raises(AssertionError, match="went to the reserve"):
        without_reserve(function).run({"x": values})


def test_outputs_that_overflow_are_tensorflows():
    model = sequential(ROW, calling(lambda x: ops.exp(x) - ops.exp(2 * x)))
    function, tensorflow = both(model)
    values = np.array([[1, 2, 3, 4], [1, 60, 100, 4]], "float32")
    got, wanted = function.run({"x": values}), tensorflow.run({"x": values})
    np.testing.assert_array_equal(got["called"], wanted["called"])
    assert not np.isfinite(wanted["called"]).all()


# -- what is left to TensorFlow ---------------------------------------------------------------------------

LEFT = {
    "text": lambda: sequential((2,), layers.StringLookup(vocabulary=["a", "b"]), dtype="string"),
    "look-up of integers": lambda: sequential((2,), layers.IntegerLookup(vocabulary=[1, 2]), dtype="int64"),
    "float64": lambda: sequential((2,), calling(lambda x: x * 2), dtype="float64"),
    "a free axis": lambda: sequential((None, 3), layers.LSTM(2)),
    "64-bit arithmetic": lambda: sequential((2,), calling(lambda x: x * 3), dtype="int64"),
    "8-bit arithmetic": lambda: sequential((2,), calling(lambda x: x * x), dtype="uint8"),
    "integer division": lambda: sequential((2,), calling(lambda x: x // 3), dtype="int32"),
    "buckets": lambda: sequential(ROW, layers.Discretization(bin_boundaries=[0.0, 1.0])),
    "many-hot": lambda: sequential(ROW, layers.CategoryEncoding(4), dtype="int32"),
    "a branch": lambda: sequential(ROW, calling(lambda x: ops.cond(ops.sum(x) > 0, lambda: x, lambda: -x))),
    "a hash": lambda: sequential(ROW, layers.Hashing(5), dtype="int32"),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_openvino_may_not_stand_for_is_refused_with_the_reason(name):
    model = LEFT[name]()
    spec = describe(model)
    with pytest.raises(LoadError, match=r"^(Expected .* Received: |OpenVINO |It looks up )"):
        convert(model, spec, tuple(output.path for output in spec.outputs))


def test_a_model_that_openvino_cannot_serve_is_served_by_tensorflow(tmp_path):
    folder = saved(LEFT["text"](), tmp_path / "text")
    result = opened(folder)
    assert result.engine.name == "tensorflow"
    assert "string" in result.facts["engine_reason"]
    with pytest.raises(LoadError, match="OpenVINO serves"):
        opened(folder, engine="openvino")


def test_a_layer_that_openvino_cannot_compute_is_left_out_alone():
    x = keras.Input((4,), name="x")
    good = layers.Dense(3, name="good")(x)
    bucket = layers.Discretization(bin_boundaries=[0.0, 1.0], name="bucket")(x)
    model = keras.Model(x, layers.Dense(2, name="end")(good))
    with_bucket = keras.Model(x, [model.output, bucket])
    spec = describe(with_bucket)
    tensorflow = TensorFlowEngine(with_bucket, spec)
    fallen = []
    engine = OpenVINOEngine(
        convert(with_bucket, spec, ("good", "end")),
        tensorflow,
        seeded_rows(with_bucket, 2),
        OpenVINOOptions(threads=1),
        max_batch_size=MAX_BATCH,
        on_fallback=lambda: fallen.append(1),
    )
    end, bucket = engine.compile(("end",)), engine.compile(("bucket",))
    assert (type(end), type(bucket)) == (OpenVINOFunction, TensorFlowFunction)
    assert fallen == [1]
    batch = seeded_rows(with_bucket, 5)
    assert_same(bucket.run(batch), tensorflow.compile(("bucket",)).run(batch))
    assert [(entry["outputs"], entry["engine"]) for entry in engine.functions] == [
        (["end"], "openvino"),
        (["bucket"], "tensorflow"),
    ]
    assert "bucket" in engine.functions[1]["reason"]
    del bucket
    gc.collect()
    assert [entry["outputs"] for entry in engine.functions] == [["end"]]  # nobody can ask the other any more


def test_an_engine_with_other_numbers_is_not_used():
    model, other = (sequential(ROW, layers.Dense(3, name="end")) for _ in range(2))
    spec = describe(model)
    engine = OpenVINOEngine(
        convert(other, spec, ("end",)),
        TensorFlowEngine(model, spec),
        seeded_rows(model, 2),
        OpenVINOOptions(threads=1),
        max_batch_size=MAX_BATCH,
    )
    with pytest.raises(
        LoadError, match=r"'end' to equal TensorFlow's to 1e-05 of its scale, in batches of 1"
    ):
        engine.require(("end",))
    assert type(engine.compile(("end",))) is TensorFlowFunction


# -- the choice -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "engine", "reason"),
    [
        ({}, "openvino", "gives what Keras gives"),
        ({"engine": "openvino", "gpu": True}, "openvino", "gives what Keras gives"),
        ({"gpu": True}, "tensorflow", "A GPU is in use."),
        ({"engine": "tensorflow"}, "tensorflow", "The setting engine says so."),
    ],
)
def test_the_engine_is_chosen_and_the_reason_told(tmp_path, options, engine, reason):
    result = opened(saved(sequential(ROW, layers.Dense(3)), tmp_path / "dense"), **options)
    assert result.engine.name == engine
    assert reason in result.facts["engine_reason"]
    assert (result.facts["precision"], result.facts["precision_reason"]) == ("float32", None)
    json.dumps(result.facts)


def test_a_models_own_settings_count_more(tmp_path):
    folder = saved(sequential(ROW, layers.Dense(3)), tmp_path / "dense")
    (folder / "model.toml").write_text('engine = "tensorflow"\n')
    assert opened(folder).engine.name == "tensorflow"
    (folder / "model.toml").write_text('precision = "bfloat16"\n')
    facts = opened(folder).facts
    assert facts["precision"] == ("bfloat16" if HAS_BFLOAT16 else "float32")
    assert opened(folder, capabilities=lambda: WITHOUT_BFLOAT16).facts["precision"] == "float32"


# -- bfloat16 ---------------------------------------------------------------------------------------------

HAS_BFLOAT16 = "BF16" in capabilities()
WITHOUT_BFLOAT16 = {"FP32", "INT8"}
WITH_BFLOAT16 = {"FP32", "INT8", "BF16"}
ASKED = "Asked for bfloat16, gives float32, because: "


def in_force(function):
    return str(function._request.get_compiled_model().get_property("INFERENCE_PRECISION_HINT"))


def assert_float32(result, reason):
    """It is OpenVINO's, is proved as float32 is, and says what was asked for and why it is not given."""
    assert result.engine.name == "openvino"
    facts = result.facts
    assert facts["precision"] == "float32"
    assert facts["precision_reason"].startswith(ASKED)
    assert reason in facts["precision_reason"]
    assert facts["parity"]["largest"] <= facts["parity"]["tolerance"] == TOLERANCES["float32"]
    assert "top1_agreement" not in facts
    path = result.engine.spec.outputs[0].path
    assert in_force(result.engine.compile((path,))) == "<Type: 'float32'>"
    json.dumps(facts)


def test_bfloat16_says_how_far_it_is_from_keras():
    result = opened(ROOT / "models" / "digits", precision="bfloat16")
    assert result.facts["parity"]["rows"] == 32
    if not HAS_BFLOAT16:
        assert_float32(result, "The processor has no instructions for it")
        return
    facts = result.facts
    assert (facts["precision"], facts["precision_reason"]) == ("bfloat16", None)
    assert facts["parity"]["tolerance"] == TOLERANCES["bfloat16"]
    assert 0.9 <= facts["top1_agreement"] <= 1
    path = result.engine.spec.outputs[0].path
    assert in_force(result.engine.compile((path,))) == "<Type: 'bfloat16'>"


@pytest.mark.parametrize("engine", ["auto", "openvino"])
def test_a_processor_without_bfloat16_serves_float32_and_says_so(engine):
    folder = ROOT / "models" / "digits"
    result = opened(folder, engine=engine, precision="bfloat16", capabilities=lambda: WITHOUT_BFLOAT16)
    assert_float32(result, "The processor has no instructions for it")


def test_a_model_that_bfloat16_changes_is_served_in_float32_and_says_so(tmp_path):
    """It adds 64 and takes it away; the first leaves bfloat16 halves. A processor that only claims to have the
    instructions computes in float32 from the first, and does not hide it either."""
    up, down = (
        layers.Dense(4, kernel_initializer="identity", bias_initializer=keras.initializers.Constant(bias))
        for bias in (64.0, -64.0)
    )
    folder = saved(sequential(ROW, up, down), tmp_path / "up_and_down")
    result = opened(folder, precision="bfloat16", capabilities=lambda: WITH_BFLOAT16)
    assert_float32(result, "Received: ")


def test_bfloat16_is_not_given_where_tensorflow_serves(tmp_path):
    folder = saved(sequential(ROW, layers.Dense(3)), tmp_path / "dense")
    facts = opened(folder, engine="tensorflow", precision="bfloat16").facts
    assert (facts["precision"], facts["engine_reason"]) == ("float32", "The setting engine says so.")
    assert facts["precision_reason"] == ASKED + "TensorFlow serves this model."


def test_float32_is_in_force_whatever_the_processor_prefers():
    model = sequential(IMAGE, layers.Conv2D(8, 3))
    spec = describe(model)
    converted = convert(model, spec, (spec.outputs[0].path,))
    function = open_function(converted, OpenVINOOptions(threads=1), lambda: None)
    assert in_force(function) == "<Type: 'float32'>"


# -- running ----------------------------------------------------------------------------------------------


def test_results_outlive_the_next_batch_and_inputs_stay_what_they_were():
    function, _ = both(sequential(ROW, layers.Dense(3, name="end")), ("x", "end"))
    first, second = (np.random.default_rng(seed).normal(size=(4, 4)).astype("float32") for seed in (1, 2))
    kept = first.copy()
    got = function.run({"x": first})
    copies = {path: values.copy() for path, values in got.items()}
    function.run({"x": second})
    for path, values in copies.items():
        np.testing.assert_array_equal(got[path], values)
    np.testing.assert_array_equal(first, kept)


def test_memory_that_may_not_be_written_to_is_taken():
    function, tensorflow = both(sequential(ROW, layers.Dense(3)))
    values = np.frombuffer(np.arange(12, dtype="float32").tobytes(), "float32").reshape(3, 4)
    assert not values.flags.writeable
    assert_same(function.run({"x": values}), tensorflow.run({"x": values}))


SERVE_SAVED = """
import json, sys
from pathlib import Path
import numpy as np
from service.engines.converted import unpack
from service.engines.openvino import OpenVINOOptions, open_function
parts = {path.name: path.read_bytes() for path in Path(sys.argv[1]).iterdir()}
function = open_function(unpack(parts).select(("code", "end")), OpenVINOOptions(threads=1), None)
function.use_sizes([1, 2])
got = function.run({"x": np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], "int32")})
heavy = sorted({name.partition(".")[0] for name in sys.modules} & {"tensorflow", "keras", "h5py"})
print(json.dumps({"end": got["end"].tolist(), "paths": list(got), "heavy": heavy,
                  "telemetry": sys.modules["openvino_telemetry"] is not None}))
"""


def test_a_saved_graph_is_served_layer_by_layer_without_tensorflow(tmp_path):
    model = sequential(
        (3,),
        layers.Embedding(VOCABULARY, 4, name="code"),
        layers.Flatten(),
        layers.Dense(2, name="end"),
        dtype="int32",
    )
    spec = describe(model)
    converted = convert(model, spec, tuple(layer.path for layer in spec.layers))
    parts = converted.pack()
    for name, content in parts.items():
        (tmp_path / name).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", SERVE_SAVED, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    wanted = model(tf.constant([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), training=False)
    np.testing.assert_allclose(told["end"], wanted, rtol=1e-5)
    assert (told["heavy"], told["telemetry"], told["paths"]) == ([], False, ["code", "end"])
    read = unpack(parts)
    assert (read.inputs, read.tensors, read.echoes, read.checks) == (
        converted.inputs,
        converted.tensors,
        converted.echoes,
        converted.checks,
    )
    function = open_function(read.select(("code",)), OpenVINOOptions(threads=1), lambda: None)
    with pytest.raises(InputRejected):
        function.run({"x": np.array([[0, 0, VOCABULARY]], "int32")})
