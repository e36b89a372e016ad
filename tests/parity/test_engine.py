"""The TensorFlow engine and the way from a file to it: traced once, padded unseen, proved against Keras."""

import keras
import numpy as np
import pytest
from keras import layers

from service.engines.parity import prove
from service.engines.tensorflow import TensorFlowEngine, bucket_sizes
from service.errors import InputRejected, LoadError
from service.repository import scan
from service.serving.opening import open_model
from service.surgery.cut import describe

TOLERANCE = 1e-5
VOCABULARY = 10


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(11)


class Counts:
    """What an engine reports while it works."""

    def __init__(self):
        self.traces = 0
        self.padding = []

    def trace(self):
        self.traces += 1


def dense_model():
    x = keras.Input((4,), name="x")
    hidden = layers.Dense(8, activation="relu", name="hidden")(x)
    return keras.Model(x, layers.Dense(3, activation="softmax", name="probabilities")(hidden))


def word_model():
    ids = keras.Input((3,), name="ids", dtype="int32")
    vectors = layers.Embedding(VOCABULARY, 4, name="vectors")(ids)
    return keras.Model(ids, layers.Dense(1, name="score")(layers.Flatten()(vectors)))


def text_model():
    words = keras.Input((2,), name="words", dtype="string")
    numbers = layers.StringLookup(vocabulary=["red", "green"], name="numbers")(words)
    return keras.Model(words, layers.Flatten(name="flat")(layers.Embedding(3, 2, name="vectors")(numbers)))


def engine_of(model, counts=None, buckets=()):
    counts = counts or Counts()
    return TensorFlowEngine(
        model, describe(model), buckets=buckets, on_trace=counts.trace, on_padding=counts.padding.append
    )


def rows(count, width=4):
    return np.random.default_rng(3).normal(size=(count, width)).astype("float32")


def save(model, folder):
    folder.mkdir(exist_ok=True)
    model.save(folder / "model.h5")


def opened(folder, buckets_to=None, tolerance=TOLERANCE):
    """What `open_model` makes of the model saved in a folder."""
    [entry] = [entry for entry in scan(folder.parent) if entry.name == folder.name]
    return open_model(
        entry,
        entry.versions[0],
        buckets_to=buckets_to,
        tolerance=tolerance,
        on_trace=lambda: None,
        on_padding=lambda _: None,
    )


# -- compiling and running --------------------------------------------------------------------------------


def test_every_batch_size_uses_the_one_trace():
    model, counts = dense_model(), Counts()
    function = engine_of(model, counts).compile(("probabilities",))
    assert counts.traces == 1
    for count in (1, 2, 3, 7, 32, 33, 500):
        got = function.run({"x": rows(count)})["probabilities"]
        np.testing.assert_allclose(got, model(rows(count), training=False), atol=TOLERANCE)
    assert counts.traces == 1
    assert counts.padding == []


def test_the_spec_has_the_types_that_are_computed_whatever_keras_declares():
    image = keras.Input((2, 2, 1), dtype="uint8", name="image")
    padded = layers.ZeroPadding2D(1, name="padded")(image)
    frame = keras.Model(image, [padded, layers.GlobalMaxPooling2D(name="unused")(padded)], name="frame")
    outer = keras.Input((2, 2, 1), dtype="uint8", name="outer")
    half = layers.Dense(2, dtype="mixed_bfloat16", name="half")(layers.Flatten(name="flat")(frame(outer)[0]))
    model = keras.Model(outer, [half, frame(outer)[0]])
    assert padded.dtype == "float32"
    engine = engine_of(model)
    dtypes = {layer.path: layer.dtype for layer in engine.spec.layers}
    assert dtypes.pop("half") == "float32"  # numpy has no bfloat16
    assert set(dtypes.values()) == {"uint8"}  # what no output needs is told, too
    assert any(path.endswith("unused") for path in dtypes)
    assert [output.dtype for output in engine.spec.outputs] == ["float32", "uint8"]
    paths = tuple(layer.path for layer in engine.spec.layers)
    got = engine.compile(paths).run({"outer": np.ones((3, 2, 2, 1), "uint8")})
    assert {path: str(array.dtype) for path, array in got.items()} == {**dtypes, "half": "float32"}


def test_each_set_of_outputs_is_a_function_of_its_own():
    model, counts = dense_model(), Counts()
    engine = engine_of(model, counts)
    both = engine.compile(("hidden", "probabilities")).run({"x": rows(2)})
    alone = engine.compile(("hidden",)).run({"x": rows(2)})
    assert counts.traces == 3  # that of the predictions is there from the beginning
    assert list(both) == ["hidden", "probabilities"]
    assert list(alone) == ["hidden"]
    np.testing.assert_allclose(both["hidden"], alone["hidden"], atol=TOLERANCE)


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [(1, (1,)), (2, (1, 2)), (8, (1, 2, 4, 8)), (12, (1, 2, 4, 8, 12)), (32, (1, 2, 4, 8, 16, 32))],
)
def test_buckets_are_powers_of_two_and_the_largest_batch(largest, sizes):
    assert bucket_sizes(largest) == sizes


def test_batches_are_padded_to_the_next_bucket_and_cut_again():
    model, counts = dense_model(), Counts()
    function = engine_of(model, counts, bucket_sizes(12)).compile(("hidden", "probabilities"))
    assert counts.padding == []  # warming up uses the buckets' own sizes
    for count in range(1, 13):
        got = function.run({"x": rows(count)})
        hidden, probabilities = got["hidden"], got["probabilities"]
        assert (hidden.shape, probabilities.shape) == ((count, 8), (count, 3))
        np.testing.assert_allclose(probabilities, model(rows(count), training=False), atol=TOLERANCE)
    assert counts.padding == [1, 3, 2, 1, 3, 2, 1]  # of 3, 5, 6, 7, 9, 10 and 11 rows
    assert counts.traces == 2  # the predictions, and both


def test_padding_never_makes_a_value_that_the_model_rejects():
    counts = Counts()
    function = engine_of(word_model(), counts, bucket_sizes(8)).compile(("score",))
    assert function.run({"ids": np.full((5, 3), VOCABULARY - 1, "int32")})["score"].shape == (5, 1)
    assert counts.padding == [3]


# -- what the model refuses -------------------------------------------------------------------------------


@pytest.mark.parametrize("buckets", [(), bucket_sizes(4)])
def test_an_index_out_of_range_is_the_inputs_fault(buckets):
    function = engine_of(word_model(), buckets=buckets).compile(("score",))
    ids = np.array([[1, 2, 3], [1, 2, VOCABULARY], [0, 0, 0]], "int32")
    with pytest.raises(InputRejected) as refused:
        function.run({"ids": ids})
    assert refused.value.message == (
        "The model rejected these values: indices[1,2] = 10 is not in [0, 10)."  # no path, no graph node
    )
    assert function.run({"ids": ids[:1]})["score"].shape == (1, 1)


def test_a_layer_that_does_not_exist_is_told():
    with pytest.raises(LoadError, match="'nowhere'"):
        engine_of(dense_model()).compile(("nowhere",))


# -- from a file to a proved engine -----------------------------------------------------------------------


def test_an_opened_model_is_proved_on_seeded_rows(tmp_path):
    save(dense_model(), tmp_path / "dense")
    facts = opened(tmp_path / "dense").facts
    assert (facts["parity"]["source"], facts["parity"]["rows"]) == ("seeded", 2)
    assert facts["parity"]["largest"] <= TOLERANCE
    assert facts["file_bytes"] == (tmp_path / "dense" / "model.h5").stat().st_size
    assert facts["compiled"] is False


def test_golden_rows_are_used_where_they_lie_beside_the_file(tmp_path):
    model = dense_model()
    save(model, tmp_path / "dense")
    expected = np.asarray(model(rows(7), training=False))
    np.savez(tmp_path / "dense" / "golden.npz", x=rows(7), probabilities=expected)
    facts = opened(tmp_path / "dense").facts
    assert (facts["parity"]["source"], facts["parity"]["rows"]) == ("golden.npz", 7)


def test_a_file_that_does_not_reproduce_its_golden_outputs_is_refused(tmp_path):
    model = dense_model()
    save(model, tmp_path / "dense")
    expected = np.array(model(rows(7), training=False))
    expected[3, 1] += 1e-3
    np.savez(tmp_path / "dense" / "golden.npz", x=rows(7), probabilities=expected)
    with pytest.raises(LoadError, match="'probabilities' of the tensorflow engine"):
        opened(tmp_path / "dense")


def test_golden_rows_that_the_model_rejects_fail_the_load(tmp_path):
    save(word_model(), tmp_path / "words")
    np.savez(tmp_path / "words" / "golden.npz", ids=np.full((2, 3), VOCABULARY, "int32"))
    with pytest.raises(LoadError, match=r"On golden\.npz rows: .* is not in"):
        opened(tmp_path / "words")


def test_an_engine_with_other_weights_is_not_used():
    model, other = dense_model(), dense_model()
    with pytest.raises(LoadError, match="to equal Keras' own"):
        prove(
            engine_of(other),
            lambda arrays: [np.asarray(model(arrays[0], training=False))],
            {"x": rows(4)},
            source="seeded",
            tolerance=1e-4,
        )


def test_an_engine_that_runs_in_training_mode_is_not_used():
    """A reference in training mode stands for an engine that is in it: batch norm then uses the batch's statistics."""
    x = keras.Input((4,), name="x")
    model = keras.Model(x, layers.BatchNormalization(name="norm")(x))
    with pytest.raises(LoadError, match="'norm'"):
        prove(
            engine_of(model),
            lambda arrays: [np.asarray(model(arrays[0], training=True))],
            {"x": rows(4)},
            source="seeded",
            tolerance=1e-4,
        )


def test_text_is_looked_up_as_keras_does(tmp_path):
    model = text_model()
    save(model, tmp_path / "text")
    function = opened(tmp_path / "text", buckets_to=4).engine.compile(("numbers", "flat"))
    words = np.array([[b"red", b"green"], [b"blue", b"red"], [b"", "grün".encode()]], dtype=object)
    got = function.run({"words": words})
    assert got["numbers"].tolist() == [[1, 2], [0, 1], [0, 0]]
    wanted = model(keras.ops.convert_to_tensor(words.tolist(), "string"), training=False)
    np.testing.assert_allclose(got["flat"], wanted, atol=TOLERANCE)


@pytest.mark.parametrize("wrap", [lambda layer: layer, layers.Bidirectional], ids=["plain", "bidirectional"])
def test_a_model_that_remembers_is_refused(tmp_path, wrap):
    x = keras.Input(batch_shape=(2, 5, 3), name="x")
    save(keras.Model(x, wrap(layers.LSTM(4, stateful=True, name="memory"))(x)), tmp_path / "stateful")
    with pytest.raises(LoadError, match="remembers nothing between requests") as refused:
        opened(tmp_path / "stateful")
    assert "stateful=False" in refused.value.mend


def test_the_same_recurrent_model_without_memory_is_served(tmp_path):
    x = keras.Input((5, 3), name="x")
    model = keras.Model(x, layers.LSTM(4, name="memory")(x))
    save(model, tmp_path / "stateless")
    function = opened(tmp_path / "stateless").engine.compile(("memory",))
    steps = np.random.default_rng(5).normal(size=(3, 5, 3)).astype("float32")
    for _ in range(2):  # the second answer does not depend on the first
        got = function.run({"x": steps})["memory"]
        np.testing.assert_allclose(got, model(steps, training=False), atol=TOLERANCE)
