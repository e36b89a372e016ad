"""Every tensor that a cut yields, against Keras' own sub-models."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from service.errors import LoadError
from service.surgery.cut import cut, describe, seeded_rows
from service.surgery.graph import flatten

TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(11)


def traced(model, paths):
    """The cut in a tf.function with a free batch axis, and the list that grows by one for each trace."""
    forward, traces = cut(model, tuple(paths)), []
    signature = [tf.TensorSpec(spec.shape, spec.dtype) for spec in describe(model).inputs]

    @tf.function(input_signature=signature, autograph=False)
    def function(*tensors):
        traces.append(len(traces))
        return forward(tensors)

    return function, traces


def rows_of(model, rows=3):
    return [tf.constant(array) for array in seeded_rows(model, rows).values()]


def assert_close(got, wanted, what=""):
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.shape == wanted.shape, what
    assert got.dtype == wanted.dtype, what
    if got.dtype.kind == "f":
        scale = max(np.abs(wanted).max(), 1e-12)
        np.testing.assert_allclose(got / scale, wanted / scale, rtol=0, atol=TOLERANCE, err_msg=what)
    else:
        np.testing.assert_array_equal(got, wanted, err_msg=what)


def assert_every_tensor_equals_keras(model, inside=None):
    """All tensors through one function, against keras.Model; `inside` gives the references of nested ones."""
    inside = inside or {}
    rows = rows_of(model)
    spec = describe(model)
    function, traces = traced(model, [layer.path for layer in spec.layers])
    got = dict(zip([layer.path for layer in spec.layers], function(*rows), strict=True))
    symbolic = {tensor.path: tensor.symbolic for tensor in flatten(model).tensors}
    outer = [path for path in got if "/" not in path]
    reference = keras.Model(model.inputs, [symbolic[path] for path in outer])(rows, training=False)
    for path, wanted in zip(outer, reference, strict=True):
        assert_close(got[path], wanted, path)
    for path, make in inside.items():
        assert_close(got[path], make(rows), path)
    assert got.keys() == {*outer, *inside}, "a nested tensor has no reference in this test"
    whole = keras.tree.flatten(
        model(keras.tree.pack_sequence_as(flatten(model).functional.input, rows), training=False)
    )
    for output, wanted in zip(spec.outputs, whole, strict=True):
        assert_close(got[output.path], wanted, output.name)
    for layer in spec.layers:
        value = got[layer.path]
        assert value.dtype.name == layer.dtype
        assert all(size in (None, given) for size, given in zip(layer.shape, value.shape, strict=True)), layer
    for rows in (1, 3, 32):
        function(*rows_of(model, rows))
    assert len(traces) == 1
    return spec


def at(model, tensor):
    """A reference: Keras' sub-model from the model's inputs to a tensor of its own graph."""
    return lambda rows: keras.Model(model.inputs, tensor)(rows, training=False)


def into(outer, feeding, inner, tensor):
    """A reference for a tensor of a nested model: Keras' two sub-models, one after the other."""

    def reference(rows):
        between = keras.Model(outer.inputs, feeding)(rows, training=False)
        return keras.Model(inner.inputs, tensor)(between, training=False)

    return reference


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50", "EfficientNetB0"])
def test_applications_layer_by_layer(name):
    model = getattr(keras.applications, name)(input_shape=(64, 64, 3), weights=None, classes=10)
    generator = np.random.default_rng(3)
    for _ in range(3):  # batch norms get real statistics
        model(generator.uniform(0, 255, (4, 64, 64, 3)).astype("float32"), training=True)
    pictures = generator.uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    spec = describe(model)
    paths = [layer.path for layer in spec.layers]
    assert paths == [layer.name for layer in model.layers]
    function, _ = traced(model, paths)
    got = function(pictures)
    wanted = keras.Model(model.inputs, [layer.output for layer in model.layers])([pictures], training=False)
    for path, value, reference in zip(paths, got, wanted, strict=True):
        assert_close(value, reference, path)
    pools = [layer for layer in model.layers if isinstance(layer, layers.GlobalAveragePooling2D)]
    assert spec.bottleneck == pools[-1].name  # Keras numbers the names of unnamed layers through the process
    assert spec.outputs[0].activation == "softmax"


def small_base(name="base"):
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, activation="relu", name="a"), layers.Dense(4, name="b")],
        name=name,
    )


def test_a_sequential_in_a_functional_model():
    base = small_base()
    inputs = keras.Input((6,), name="x")
    scaled = layers.Rescaling(0.5, name="scaled")(inputs)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="top")(base(scaled)))
    names = [base.layers[0].name, base.layers[1].name]
    first = base._functional.layers[0].name
    spec = assert_every_tensor_equals_keras(
        model,
        {
            f"base/{first}": at(model, scaled),
            **{f"base/{n}": into(model, scaled, base, base.get_layer(n).output) for n in names},
        },
    )
    assert spec.bottleneck == "base"
    assert spec.outputs[0].path == "top"


def test_a_functional_model_in_a_sequential_two_deep():
    innermost = small_base("innermost")
    middle_in = keras.Input((6,), name="middle_in")
    doubled = layers.Rescaling(2.0, name="doubled")(middle_in)
    middle = keras.Model(
        middle_in, layers.Add(name="sum")([innermost(doubled), innermost(middle_in)]), name="middle"
    )
    model = keras.Sequential(
        [keras.Input((6,)), layers.Rescaling(3.0, name="tripled"), middle, layers.Dense(2)]
    )
    tripled = model.get_layer("tripled").output
    first = innermost._functional.layers[0].name

    def deepest(tensor, feeding):
        return lambda rows: keras.Model(innermost.inputs, tensor)(
            into(model, tripled, middle, feeding)(rows), training=False
        )

    inside = {
        "middle/middle_in": at(model, tripled),
        "middle/doubled": into(model, tripled, middle, doubled),
        "middle/sum": into(model, tripled, middle, middle.outputs[0]),
    }
    for use, feeding in enumerate([doubled, middle_in]):
        inside[f"middle/innermost:{use}"] = deepest(innermost.outputs[0], feeding)
        inside[f"middle/innermost:{use}/{first}"] = deepest(innermost.inputs[0], feeding)
        for name in "ab":
            inside[f"middle/innermost:{use}/{name}"] = deepest(innermost.get_layer(name).output, feeding)
    spec = assert_every_tensor_equals_keras(model, inside)
    assert spec.aliases["middle/innermost/b"] == "middle/innermost:0/b"
    assert spec.aliases["middle/innermost"] == "middle/innermost:0"


def test_a_nested_model_with_two_inputs_and_two_outputs():
    one, two = keras.Input((4,), name="one"), keras.Input((3,), name="two")
    joined = layers.Concatenate(name="joined")([one, two])
    left, right = layers.Dense(5, name="left")(joined), layers.Dense(2, name="right")(two)
    inner = keras.Model([one, two], [left, right], name="inner")
    x, y = keras.Input((4,), name="x"), keras.Input((3,), name="y")
    first, second = inner([x, y])
    model = keras.Model([x, y], [layers.Dense(2, name="head")(first), second])
    inputs = [x, y]
    spec = assert_every_tensor_equals_keras(
        model,
        {
            f"inner/{name}": into(model, inputs, inner, inner.get_layer(name).output)
            for name in ("one", "two", "joined", "left", "right")
        },
    )
    paths = [layer.path for layer in spec.layers]
    assert {"inner:0:0", "inner:0:1"} <= set(paths)
    assert spec.aliases["inner"] == "inner:0:0"
    assert [(output.name, output.path) for output in spec.outputs] == [
        ("head", "head"),
        ("inner", "inner:0:1"),
    ]


def test_a_nested_model_called_with_a_dict():
    one, two = keras.Input((4,), name="one"), keras.Input((4,), name="two")
    inner = keras.Model([two, one], layers.Subtract(name="minus")([one, two]), name="inner")
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    model = keras.Model(
        {"x": x, "y": y}, {"difference": inner({"one": x, "two": y}), "again": layers.ReLU()(x)}
    )
    rows = seeded_rows(model, 3)
    spec = describe(model)
    assert [entry.name for entry in spec.inputs] == ["x", "y"]
    assert [output.name for output in spec.outputs] == ["again", "difference"]
    function, _ = traced(model, ["inner/minus", "inner/one", *(output.path for output in spec.outputs)])
    minus, inner_one, again, difference = function(*rows.values())
    wanted = model(rows, training=False)
    assert_close(difference, wanted["difference"])
    assert_close(again, wanted["again"])
    assert_close(minus, rows["x"] - rows["y"])
    assert_close(inner_one, rows["x"])


def test_shared_layers_have_a_path_for_each_use():
    shared = layers.Dense(4, activation="tanh", name="shared")
    inputs = keras.Input((4,), name="x")
    layers.Dense(1)(shared(keras.Input((4,))))  # a use elsewhere does not count
    model = keras.Model(inputs, layers.Add(name="sum")([shared(inputs), shared(shared(inputs))]))
    spec = assert_every_tensor_equals_keras(model)
    shown = {layer.path: layer.parameters for layer in spec.layers if layer.path.startswith("shared")}
    assert shown == {"shared:0": 20, "shared:1": 20, "shared:2": 20}
    assert spec.aliases == {"shared": "shared:0"}


def test_masks_reach_the_recurrent_layer_and_its_states():
    tokens = keras.Input((7,), name="tokens", dtype="int32")
    embedded = layers.Embedding(9, 5, mask_zero=True, name="words")(tokens)
    dropped = layers.Dropout(0.5, name="dropped")(embedded)
    sequence, hidden, cell = layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")(dropped)
    both = layers.Bidirectional(layers.GRU(3, return_sequences=True), name="both")(sequence)
    each = layers.TimeDistributed(layers.Dense(2), name="each")(both)
    last = layers.Concatenate(name="last")([hidden, cell])
    model = keras.Model(tokens, [each, last])
    spec = assert_every_tensor_equals_keras(model)
    paths = [layer.path for layer in spec.layers]
    assert [path for path in paths if path.startswith("lstm")] == ["lstm:0:0", "lstm:0:1", "lstm:0:2"]
    assert spec.aliases["lstm"] == "lstm:0:0"
    padded = tf.constant([[1, 2, 3, 0, 0, 0, 0]])
    (state,) = cut(model, ("lstm:0:1",))([padded])
    (shorter,) = cut(model, ("lstm:0:1",))([padded[:, :3]])
    assert_close(state, shorter, "the mask stops the state")


@pytest.mark.filterwarnings("ignore:.*does not support masking")  # of the model itself; its layers do
@pytest.mark.parametrize("sequential", [False, True])
def test_masks_cross_the_border_of_a_nested_model(sequential):
    if sequential:
        inner = keras.Sequential([keras.Input((7, 5)), layers.LSTM(4, name="lstm")], name="inner")
    else:
        features = keras.Input((7, 5))
        inner = keras.Model(features, layers.LSTM(4, name="lstm")(features), name="inner")
    tokens = keras.Input((7,), name="tokens", dtype="int32")
    embedded = layers.Embedding(9, 5, mask_zero=True, name="words")(tokens)
    model = keras.Model(tokens, layers.Dense(2, name="top")(inner(embedded)))
    padded = np.array([[1, 2, 3, 0, 0, 0, 0], [4, 0, 0, 0, 0, 0, 0]], "int32")
    lstm, top = traced(model, ["inner/lstm", "top"])[0](padded)
    wanted = keras.Model(tokens, [model.get_layer("inner")._inbound_nodes[-1].outputs[0], model.output])(
        padded
    )
    assert_close(lstm, wanted[0])
    assert_close(top, wanted[1])
    unmasked = inner(tf.constant(model.get_layer("words")(padded).numpy()))
    assert not np.allclose(lstm, unmasked, atol=1e-3)


def test_masking_layer_then_recurrent():
    inputs = keras.Input((6, 2), name="x")
    masked = layers.Masking(name="masked")(inputs)
    model = keras.Model(inputs, layers.Dense(1)(layers.SimpleRNN(3, name="rnn")(masked)))
    assert_every_tensor_equals_keras(model)
    rows = np.ones((2, 6, 2), "float32")
    rows[0, 3:] = 0
    (got,) = cut(model, ("rnn",))([tf.constant(rows)])
    assert_close(got, keras.Model(inputs, model.get_layer("rnn").output)(rows))
    assert not np.allclose(got[0], got[1])


def test_operators_and_operations_between_layers():
    inputs = keras.Input((5, 4), name="x")
    doubled = inputs * 2 + 1
    part = ops.tanh(doubled[:, 1:, :])
    model = keras.Model(inputs, ops.softmax(layers.Dense(3)(ops.mean(part, axis=1))))
    spec = assert_every_tensor_equals_keras(model)
    assert spec.outputs[0].activation == "softmax"
    classes = {layer.class_name for layer in spec.layers}
    assert {"Multiply", "Add", "GetItem", "Tanh", "Mean", "Softmax"} <= classes


def test_attention_called_with_keywords():
    query, value = keras.Input((5, 8), name="query"), keras.Input((5, 8), name="value")
    attended, scores = layers.MultiHeadAttention(2, 4, name="attention")(
        query, value=value, return_attention_scores=True
    )
    normed = layers.LayerNormalization(name="norm")(attended + query)
    model = keras.Model([query, value], [layers.GlobalAveragePooling1D()(normed), scores])
    spec = assert_every_tensor_equals_keras(model)
    assert [layer.path for layer in spec.layers if "attention" in layer.path] == [
        "attention:0:0",
        "attention:0:1",
    ]


def test_inference_mode_wins_over_a_recorded_training_mode():
    inputs = keras.Input((8,), name="x")
    hot = layers.Dropout(0.5, name="hot")(inputs, training=True)
    normed = layers.BatchNormalization(name="normed")(hot, training=True)
    assert_every_tensor_equals_keras(keras.Model(inputs, layers.Dense(2)(normed)))


def test_free_spatial_axes_and_channels_first():
    inputs = keras.Input((None, None, 3), name="picture")
    first = layers.Conv2D(4, 3, name="last")(inputs)
    turned = layers.Permute((3, 1, 2), name="turned")(first)
    conv = layers.Conv2D(5, 3, data_format="channels_first", activation="relu", name="first")(turned)
    normed = layers.BatchNormalization(axis=1, name="normed")(conv)
    active = layers.ReLU(name="active")(normed)
    model = keras.Model(inputs, layers.GlobalMaxPooling2D(data_format="channels_first")(active))
    spec = assert_every_tensor_equals_keras(model)
    axes = {layer.path: layer.channel_axis for layer in spec.layers}
    assert (axes["last"], axes["first"], axes["normed"], axes["active"]) == (-1, 1, 1, 1)
    assert {layer.path: layer.shape for layer in spec.layers}["last"] == (None, None, None, 4)


def test_bfloat16_crosses_as_float32():
    inputs = keras.Input((4,), name="x")
    half = layers.Dense(3, dtype="mixed_bfloat16", name="half")(inputs)
    model = keras.Model(inputs, layers.Activation("softmax", dtype="float32", name="out")(half))
    spec = describe(model)
    assert {layer.path: layer.dtype for layer in spec.layers} == {
        "x": "float32",
        "half": "float32",
        "out": "float32",
    }
    rows = rows_of(model)
    (got,) = traced(model, ["half"])[0](*rows)
    assert_close(got, ops.cast(keras.Model(inputs, half)(rows[0]), "float32"))


def test_the_model_is_left_as_it_was_and_state_is_forgotten():
    inputs = keras.Input(batch_shape=(2, 5, 3), name="x")
    model = keras.Model(inputs, layers.Dense(2)(layers.LSTM(4, stateful=True, name="lstm")(inputs)))
    spec = describe(model)
    assert spec.inputs[0].shape == (2, 5, 3)

    def nodes():
        return [(len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in model.layers]

    before, values = nodes(), [value.numpy() for value in model.variables]
    function, _ = traced(model, ["lstm"])
    rows = rows_of(model, 2)
    first, second = function(*rows), function(*rows)
    assert_close(first[0], second[0])
    assert nodes() == before
    for value, old in zip(model.variables, values, strict=True):
        np.testing.assert_array_equal(value.numpy(), old)


def test_only_what_is_needed_is_computed():
    calls = []

    class Loud(layers.Layer):
        def call(self, inputs):
            calls.append(self.name)
            return inputs + 1

        def compute_output_shape(self, input_shape):
            return input_shape

    inputs = keras.Input((3,), name="x")
    early = Loud(name="early")(inputs)
    model = keras.Model(inputs, [Loud(name="late")(early), Loud(name="aside")(inputs)])
    calls.clear()
    traced(model, ["early"])[0](*rows_of(model))
    assert calls == ["early"]


def test_a_call_of_its_own_is_one_layer():
    class Twice(keras.Model):
        def call(self, inputs):
            return super().call(super().call(inputs))

    inner_in = keras.Input((3,))
    inner = Twice(inner_in, layers.Dense(3, name="inner_dense")(inner_in), name="twice")
    inputs = keras.Input((3,), name="x")
    model = keras.Model(inputs, layers.Dense(1, name="top")(inner(inputs)))
    spec = assert_every_tensor_equals_keras(model)
    assert [layer.path for layer in spec.layers] == ["x", "twice", "top"]


def test_a_fixed_batch_size_is_freed():
    inputs = keras.Input(batch_shape=(1, 4), name="x")
    model = keras.Model(inputs, layers.Dense(2, name="out")(inputs))
    assert describe(model).inputs[0].shape == (None, 4)
    (got,) = traced(model, ["out"])[0](np.ones((5, 4), "float32"))
    assert got.shape == (5, 2)


def test_tensors_without_rows_are_not_listed():
    inputs = keras.Input((4,), name="x")
    total = ops.sum(inputs)
    model = keras.Model(inputs, layers.Dense(2)(inputs / total))
    assert "sum" not in [layer.path for layer in describe(model).layers]
    with pytest.raises(LoadError, match="one row for each input row"):
        describe(keras.Model(inputs, total))


def test_a_model_that_was_never_built_is_refused():
    with pytest.raises(LoadError, match="never built"):
        describe(keras.Sequential([layers.Dense(2)], name="empty"))
    with pytest.raises(LoadError, match="'nowhere'"):
        cut(small_base(), ("nowhere",))


@pytest.mark.parametrize(
    ("ending", "activation"),
    [
        (lambda: [layers.Dense(2, activation="sigmoid")], "sigmoid"),
        (lambda: [layers.Dense(2)], "linear"),
        (lambda: [layers.Dense(2), layers.Softmax()], "softmax"),
        (lambda: [layers.Dense(2), layers.Activation("softmax")], "softmax"),
        (lambda: [layers.Dense(2, activation="softmax"), layers.Activation("linear")], "softmax"),
        (lambda: [layers.Dense(4, activation="softmax"), layers.Reshape((2, 2))], "softmax"),
        (lambda: [layers.Dense(6), small_base()], "linear"),
        (lambda: [layers.Dense(2), ops.sigmoid], "sigmoid"),
        (
            lambda: [layers.Reshape((2, 2)), layers.TimeDistributed(layers.Dense(2, activation="tanh"))],
            "tanh",
        ),
        (lambda: [layers.Reshape((2, 2)), layers.LSTM(3)], None),
        (lambda: [layers.BatchNormalization()], None),
        (lambda: [layers.Reshape((4,))], None),
    ],
)
def test_the_activation_an_output_ends_with(ending, activation):
    inputs = outputs = keras.Input((4,))
    for layer in ending():
        outputs = layer(outputs)
    assert describe(keras.Model(inputs, outputs)).outputs[0].activation == activation


def test_the_share_of_the_compute_grows_to_one():
    model = keras.applications.MobileNetV2((64, 64, 3), weights=None, classes=10, alpha=0.35)
    spec = describe(model)
    shares = [layer.compute_share for layer in spec.layers]
    assert shares[0] == 0
    assert shares[-1] == 1
    share = {layer.path: layer.compute_share for layer in spec.layers}
    for layer in model.layers:
        for node in layer._inbound_nodes:
            for tensor in node.input_tensors:
                assert share[tensor._keras_history.operation.name] <= share[layer.name]


def test_the_cost_of_plain_layers_is_their_multiply_adds():
    inputs = keras.Input((10, 10, 3), name="x")
    conv = layers.Conv2D(8, 3, use_bias=False, name="conv")(inputs)  # 8*8*8*27 = 13824
    flat = layers.Flatten(name="flat")(conv)  # 512
    model = keras.Model(inputs, layers.Dense(4, name="dense")(flat))  # 2048
    share = {layer.path: layer.compute_share for layer in describe(model).layers}
    assert share["conv"] == pytest.approx(13824 / (13824 + 512 + 2048))
    assert share["flat"] == pytest.approx((13824 + 512) / (13824 + 512 + 2048))


def test_bottleneck_skips_dropout_and_is_none_at_an_input():
    inputs = keras.Input((4,), name="x")
    pooled = layers.Dense(3, name="pooled")(inputs)
    dropped = layers.Dropout(0.5)(layers.SpatialDropout1D(0.5)(layers.Reshape((1, 3), name="shaped")(pooled)))
    deep = keras.Model(inputs, layers.Activation("softmax")(layers.Dense(2)(dropped)))
    assert describe(deep).bottleneck == "shaped"
    assert describe(keras.Model(inputs, layers.Dense(2)(layers.Dropout(0.5)(inputs)))).bottleneck is None


def test_output_names_are_unique():
    inputs = keras.Input((3, 4), name="x")
    outputs = layers.LSTM(2, return_state=True, name="lstm")(inputs)
    spec = describe(keras.Model(inputs, [*outputs, outputs[0]]))
    assert [output.name for output in spec.outputs] == ["lstm", "lstm_1", "lstm_2", "lstm_3"]
    assert [output.path for output in spec.outputs] == ["lstm:0:0", "lstm:0:1", "lstm:0:2", "lstm:0:0"]


def test_a_layer_named_like_a_use_keeps_its_own_path():
    inputs = keras.Input((3,), name="x")
    shared = layers.Dense(3, name="dense")
    odd = layers.ReLU(name="dense:0")(shared(shared(inputs)))
    model = keras.Model(inputs, odd)
    paths = [layer.path for layer in describe(model).layers]
    assert len(set(paths)) == len(paths) == 4


def test_seeded_rows_stay_within_every_embedding():
    words = keras.Input((6,), name="words")  # float32, as Keras makes inputs by default
    topic = keras.Input((1,), name="topic", dtype="int64")
    pixels = keras.Input((None, None, 1), name="pixels")
    flag = keras.Input((2,), name="flag", dtype="bool")
    inner_in = keras.Input((6,))
    inner = keras.Model(
        inner_in, layers.GlobalAveragePooling1D()(layers.Embedding(7, 3)(inner_in)), name="inner"
    )
    wide = layers.GlobalAveragePooling1D()(layers.Embedding(40, 3)(words))
    topical = layers.Flatten()(layers.TimeDistributed(layers.Embedding(5, 2))(layers.Reshape((1, 1))(topic)))
    bright = layers.GlobalAveragePooling2D()(pixels)
    joined = layers.Concatenate()([inner(words), wide, topical, bright, ops.cast(flag, "float32")])
    model = keras.Model([words, topic, pixels, flag], layers.Dense(2, name="out")(joined))
    rows = seeded_rows(model, 50)
    assert rows["words"].dtype == "float32"
    assert set(np.unique(rows["words"])) == set(range(7))
    assert rows["topic"].dtype == "int64"
    assert set(np.unique(rows["topic"])) == set(range(5))
    assert rows["flag"].dtype == bool
    assert rows["pixels"].ndim == 4
    np.testing.assert_array_equal(rows["words"], seeded_rows(model, 50)["words"])
    assert not np.array_equal(rows["words"], seeded_rows(model, 50, seed=1)["words"])
    (got,) = traced(model, ["out"])[0](*rows.values())
    assert got.shape == (50, 2)


class Tower(keras.Model):
    """Layers that only Python code joins: one used twice, one with states, one in a nested model."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.words = layers.Embedding(9, 4, mask_zero=True, name="words")
        self.lstm = layers.LSTM(4, return_state=True, name="lstm")
        self.shared = layers.Dense(4, activation="tanh", name="shared")
        self.drop = layers.Dropout(0.5, name="drop")
        self.head = keras.Sequential(
            [layers.Dense(5, name="wide"), layers.Dense(2, name="narrow")], name="head"
        )

    def call(self, tokens):
        output, hidden, _ = self.lstm(self.words(tokens))
        mixed = self.shared(output) + self.shared(hidden)
        return ops.softmax(self.head(self.drop(mixed)))


def test_a_model_that_is_python_code_gives_its_layers():
    model = Tower(name="tower")
    model(np.zeros((1, 6), "float32"))
    tokens = seeded_rows(model, 4)
    assert list(tokens) == ["tokens"]
    assert tokens["tokens"].max() < 9
    wanted = model(tokens["tokens"], training=False)
    spec = describe(model)
    paths = [layer.path for layer in spec.layers]
    assert paths == [
        *("tokens", "words", "lstm:0:0", "lstm:0:1", "lstm:0:2", "shared:0", "shared:1", "drop"),
        *("head/wide", "head/narrow", "head", "tower"),
    ]
    assert spec.aliases == {"lstm": "lstm:0:0", "shared": "shared:0"}
    assert spec.outputs[0].activation == "softmax"
    assert spec.layers[-1].compute_share == 1.0
    function, traces = traced(model, [*paths[1:], "shared"])
    got = dict(zip([*paths[1:], "shared"], function(tokens["tokens"]), strict=True))
    assert_close(got["tower"], wanted)
    embedded = model.words(tokens["tokens"])
    output, hidden, cell = model.lstm(embedded)
    mixed = model.shared(output) + model.shared(hidden)
    wide = model.head.layers[0](mixed)
    references = {
        "words": embedded,
        "lstm:0:0": output,
        "lstm:0:1": hidden,
        "lstm:0:2": cell,
        "shared": model.shared(output),
        "shared:1": model.shared(hidden),
        "drop": mixed,
        "head/wide": wide,
        "head": model.head(mixed),
    }
    for path, reference in references.items():
        assert_close(got[path], reference, path)
    for rows in (1, 3, 32):
        function(seeded_rows(model, rows)["tokens"])
    assert len(traces) == 1
    assert "call" not in vars(model.shared)


class Pair(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3, name="dense")

    def call(self, inputs):
        return {"sum": inputs["left"] + inputs["right"], "deep": self.dense(inputs["left"])}


def test_a_model_that_is_code_may_take_and_give_dicts():
    model = Pair(name="pair")
    left, right = np.ones((2, 4), "float32"), np.full((2, 4), 3, "float32")
    wanted = model({"right": right, "left": left})
    spec = describe(model)
    assert [entry.name for entry in spec.inputs] == ["left", "right"]
    assert spec.inputs[0].shape == (None, 4)
    assert [output.name for output in spec.outputs] == ["deep", "sum"]
    deep, total = traced(model, [output.path for output in spec.outputs])[0](left, right)
    assert_close(deep, wanted["deep"])
    assert_close(total, wanted["sum"])
    paths = [layer.path for layer in spec.layers]
    every = dict(zip(paths, traced(model, paths)[0](left, right), strict=True))
    assert_close(every["left"], left)


def test_a_model_that_is_code_and_was_never_built_is_refused():
    with pytest.raises(LoadError, match="Pair"):
        describe(Pair())
    model = Pair()
    model({"left": np.ones((1, 4)), "right": np.ones((1, 4))})
    with pytest.raises(LoadError, match="nowhere"):
        traced(model, ["nowhere"])[0](*seeded_rows(model, 2).values())
