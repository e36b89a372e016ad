"""Old files through tf_keras: the writer's own outputs, every layer, and nothing run that the file holds."""

import hashlib
import json
import textwrap
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from service.engines.parity import relative_difference
from service.errors import LoadError
from service.loading import fallback
from service.loading.hdf5 import look
from service.loading.loader import load
from service.loading.tf_keras_mirror import mirror
from service.loading.tf_keras_model import build_tf_keras
from service.model_config import ModelConfig
from service.repository import scan
from service.serving.opening import open_model
from service.surgery.cut import cut, describe, seeded_rows

tf_keras = pytest.importorskip(
    "tf_keras", reason="needs tf_keras: pip install --no-deps -r requirements-optional.txt"
)

pytestmark = pytest.mark.usefixtures("looked_through_here")

CORPUS = Path(__file__).parents[1] / "corpus"
BY_TF_KERAS = ModelConfig(loader="tf_keras")
FILES = sorted(
    path.relative_to(CORPUS).as_posix()
    for path in [*CORPUS.glob("keras/2*.h5"), *CORPUS.glob("tfkeras/*.h5")]
    if not path.stem.endswith("_w")
    and not {"lam", "crf", "custom"} & set(path.stem.split("_")[1:])
    and not path.stem.startswith("lambda")
)

# A layer as people wrote it for Keras 2.0 to 2.3, and as it never worked in Keras 3.
OLD_SCALE = """
    from keras.engine.topology import Layer
    from keras import backend as K
    import tensorflow as tf

    def my_loss(y_true, y_pred):
        return K.mean(tf.log(K.square(y_pred - y_true)), axis=-1)

    class Scale(Layer):
        def __init__(self, factor=1.5, **kwargs):
            self.factor = factor
            super(Scale, self).__init__(**kwargs)

        def build(self, input_shape):
            self.g = self.add_weight(name='g', shape=(input_shape[-1],), initializer='one')
            super(Scale, self).build(input_shape)

        def call(self, x):
            return K.round(x * 0) + x * self.g * K.cast(self.factor, K.floatx())

        def compute_output_shape(self, input_shape):
            return input_shape

        def get_config(self):
            config = {'factor': self.factor}
            base = super(Scale, self).get_config()
            return dict(list(base.items()) + list(config.items()))
"""


def saved(name):
    with np.load(CORPUS / name.replace(".h5", ".npz")) as file:
        rows = dict(file)
    count = {letter: sum(key[0] == letter for key in rows) for letter in "xy"}
    return [[rows[f"{letter}{place}"] for place in range(count[letter])] for letter in "xy"]


def all_layers(model, rows):
    """Path -> what the service would answer, through a compiled function of every layer at once."""
    spec = describe(model)
    paths = tuple(layer.path for layer in spec.layers)
    forward = cut(model, paths)
    signature = [tf.TensorSpec(item.shape, item.dtype) for item in spec.inputs]
    function = tf.function(lambda *tensors: forward(tensors), input_signature=signature, autograph=False)
    cast = [tf.constant(array.astype(item.dtype)) for array, item in zip(rows, spec.inputs, strict=True)]
    return spec, {path: tensor.numpy() for path, tensor in zip(paths, function(*cast), strict=True)}


@pytest.mark.parametrize("name", FILES)
def test_outputs_are_the_writers_own(name):
    contents = look(CORPUS / name)
    theano = contents.backend == "theano"
    original = build_tf_keras(json.loads(contents.config), CORPUS / name, contents, {}, theano=theano)
    rows, expected = saved(name)
    spec, layers = all_layers(mirror(original), rows)
    for output, wanted in zip(spec.outputs, expected, strict=True):
        assert relative_difference(layers[output.path], wanted) <= 1e-5


@pytest.mark.parametrize(
    "name", ["keras/2.2.4_fun_cnn.h5", "keras/2.2.4_multi_io.h5", "keras/2.2.4_seq_cnn.h5"]
)
def test_every_hidden_layer_is_the_sub_models(name):
    loaded = load(CORPUS / name, BY_TF_KERAS)
    rows, _ = saved(name)
    spec, layers = all_layers(loaded.model, rows)
    original = loaded.original
    top = [layer for layer in original.layers if len(layer.inbound_nodes) == 1 and layer.name in layers]
    sub_model = tf_keras.Model(original.inputs, [layer.output for layer in top])
    wanted = sub_model(rows[0] if len(rows) == 1 else rows, training=False)
    assert len(top) >= 4
    for layer, tensor in zip(top, wanted, strict=True):
        np.testing.assert_allclose(layers[layer.name], tensor, atol=1e-6)
    assert {layer.class_name for layer in spec.layers} >= {type(layer).__name__ for layer in top}


def test_layers_inside_a_nested_model_are_reached_from_outside():
    loaded = load(CORPUS / "keras/2.3.1_nested.h5", BY_TF_KERAS)
    rows, _ = saved("keras/2.3.1_nested.h5")
    _, layers = all_layers(loaded.model, rows)
    nested = loaded.original.get_layer("sub")
    inside = [path for path in layers if path.startswith("sub/")]
    before = nested.inbound_nodes[-1].inbound_layers.name
    outputs = [nested.get_layer(path.removeprefix("sub/")).output for path in inside]
    wanted = tf_keras.Model(nested.inputs, outputs)(layers[before], training=False)
    assert len(inside) >= 2
    for path, tensor in zip(inside, wanted, strict=True):
        np.testing.assert_allclose(layers[path], tensor, atol=1e-6)


def test_listing_and_seeded_rows_are_as_for_a_model_of_keras_3():
    inputs = keras.Input((7,), dtype="int32", name="words")
    x = keras.layers.Embedding(20, 6, name="embedding")(inputs)
    x = keras.layers.Conv1D(4, 3, activation="relu", name="conv")(x)
    x = keras.layers.GlobalMaxPooling1D(name="pool")(x)
    new = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="out")(x))
    old_inputs = tf_keras.Input((7,), dtype="int32", name="words")
    x = tf_keras.layers.Embedding(20, 6, name="embedding")(old_inputs)
    x = tf_keras.layers.Conv1D(4, 3, activation="relu", name="conv")(x)
    x = tf_keras.layers.GlobalMaxPooling1D(name="pool")(x)
    old = tf_keras.Model(old_inputs, tf_keras.layers.Dense(3, activation="softmax", name="out")(x))
    assert describe(mirror(old)) == describe(new)
    np.testing.assert_array_equal(seeded_rows(mirror(old), 50)["words"], seeded_rows(new, 50)["words"])


def test_masks_reach_the_layers_that_use_them():
    inputs = tf_keras.Input((5,))
    x = tf_keras.layers.Embedding(9, 3, mask_zero=True)(inputs)
    x = tf_keras.layers.Dropout(0.5)(tf_keras.layers.Dense(3)(x))
    inner = tf_keras.Sequential([tf_keras.Input((5, 3)), tf_keras.layers.LSTM(4)])
    old = tf_keras.Model(inputs, inner(x))
    rows = np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0]], dtype="float32")
    _, layers = all_layers(mirror(old), [rows])
    wanted = old(rows, training=False).numpy()
    np.testing.assert_allclose(layers[inner.name], wanted, atol=1e-6)
    assert not np.allclose(wanted, inner(tf.constant(old.layers[2](old.layers[1](rows)).numpy())), atol=1e-4)


@pytest.mark.parametrize("name", ["keras/2.0.8_custom.h5", "keras/2.2.4_custom.h5", "keras/2.3.1_custom.h5"])
def test_a_layer_of_old_keras_runs_as_it_stands(write, name):
    loaded = load(CORPUS / name, ModelConfig(), [write(OLD_SCALE)])
    assert loaded.library == "tf_keras"
    assert "line 2: from keras.engine.topology import Layer" in loaded.reason
    rows, (expected,) = saved(name)
    np.testing.assert_allclose(np.asarray(loaded.model(rows[0])), expected, atol=1e-6)
    with pytest.raises(LoadError, match="to run") as caught:
        load(CORPUS / name, ModelConfig(loader="keras3"), [write(OLD_SCALE)])
    assert "write: from keras.layers import Layer" in caught.value.mend
    assert "write: return keras.ops.round(x * 0) + x * self.g * keras.ops.cast(self.factor, K.floatx())" in (
        caught.value.mend
    )


@pytest.mark.parametrize("line", ["import tf_keras as keras", "from tensorflow import keras"])
def test_classes_of_tf_keras_are_served_by_it(write, line):
    text = f"""
        {line}

        class Scale(keras.layers.Layer):
            def __init__(self, factor=1.5, **kwargs):
                super().__init__(**kwargs)
                self.factor = factor

            def build(self, input_shape):
                self.g = self.add_weight("g", shape=(input_shape[-1],), initializer="ones")

            def call(self, x):
                return x * self.g * self.factor
    """
    name = "keras/2.2.4_custom.h5"
    loaded = load(CORPUS / name, BY_TF_KERAS, [write(text)])
    rows, (expected,) = saved(name)
    np.testing.assert_allclose(np.asarray(loaded.model(rows[0])), expected, atol=1e-6)
    if "tf_keras" in line:
        assert load(CORPUS / name, ModelConfig(), [write(text)]).library == "tf_keras"
        with pytest.raises(LoadError, match="Received: Scale, derived from tf_keras"):
            load(CORPUS / name, ModelConfig(loader="keras3"), [write(text)])


def test_a_registered_class_is_found_under_its_package_and_gone_afterwards(write, tmp_path):
    text = """
        from tf_keras import layers, utils

        @utils.register_keras_serializable("shop")
        class Twice(layers.Layer):
            def call(self, x):
                return 2 * x
    """
    module = {"__name__": "training_script"}
    exec(textwrap.dedent(text), module)  # noqa: S102 -- our own text
    model = tf_keras.Sequential([tf_keras.Input((3,)), module["Twice"](name="twice")])
    with pytest.warns(UserWarning, match="legacy"):
        model.save(tmp_path / "model.h5")
    tf_keras.utils.get_custom_objects().clear()
    loaded = load(tmp_path / "model.h5", BY_TF_KERAS, [write(text)])
    np.testing.assert_array_equal(np.asarray(loaded.model(np.ones((1, 3), "float32"))), [[2, 2, 2]])
    assert tf_keras.utils.get_custom_objects() == {}


def test_keras_3_comes_first():
    assert load(CORPUS / "keras/2.2.4_seq_lstm.h5", ModelConfig()).library == "keras3"


@pytest.mark.parametrize("architecture", ["model.json", "other.h5"])
def test_weights_alone_are_served_with_an_architecture_beside_them(write, tmp_path, architecture):
    name = "keras/2.2.4_custom"
    (tmp_path / "model.json").write_bytes((CORPUS / f"{name}.json").read_bytes())
    (tmp_path / "other.h5").write_bytes((CORPUS / f"{name}.h5").read_bytes())
    (tmp_path / "w.h5").write_bytes((CORPUS / f"{name}_w.h5").read_bytes())
    loaded = load(tmp_path / "w.h5", ModelConfig(architecture=architecture), [write(OLD_SCALE)])
    assert loaded.library == "tf_keras"
    rows, (expected,) = saved(f"{name}.h5")
    np.testing.assert_allclose(np.asarray(loaded.model(rows[0])), expected, atol=1e-6)


def test_models_say_which_library_computes_and_why(write, tmp_path):
    (tmp_path / "old").mkdir()
    write(OLD_SCALE, "old/custom_objects.py")
    (tmp_path / "old" / "model.h5").write_bytes((CORPUS / "keras/2.2.4_custom.h5").read_bytes())
    (entry,) = scan(tmp_path)
    opened = open_model(
        entry,
        entry.versions[0],
        buckets_to=None,
        tolerance=1e-4,
        on_trace=lambda: None,
        on_padding=lambda _: None,
    )
    assert opened.facts["loader"] == "tf_keras"
    assert opened.facts["loader_reason"].startswith(
        "Keras 3 does not load it: Expected custom_objects.py to run"
    )
    assert opened.facts["parity"]["largest"] <= 1e-6
    rows, (expected,) = saved("keras/2.2.4_custom.h5")
    output = opened.engine.spec.outputs[0]
    batch = {opened.engine.spec.inputs[0].name: rows[0].astype("float32")}
    result = opened.engine.compile((output.path, "scale")).run(batch)
    np.testing.assert_allclose(result[output.path], expected, atol=1e-6)
    assert result["scale"].shape == (len(expected), 5)


def test_without_the_package_the_message_says_how_to_install_it(write, monkeypatch):
    monkeypatch.setattr(fallback, "is_installed", lambda: False)  # the tests have it installed
    with pytest.raises(LoadError) as caught:
        load(CORPUS / "keras/2.2.4_custom.h5", ModelConfig(), [write(OLD_SCALE)])
    assert "pip install --no-deps tf_keras==2.21.0" in caught.value.mend
    assert "write: from keras.layers import Layer" in caught.value.mend
    with pytest.raises(LoadError) as caught:
        load(CORPUS / "keras/2.2.4_seq_lstm.h5", BY_TF_KERAS)
    assert caught.value.mend == "pip install --no-deps tf_keras==2.21.0."


def test_files_that_are_not_of_keras_2_are_not_tried(tmp_path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "new.h5")
    for path in (tmp_path / "new.h5", CORPUS / "keras/1.2.2_seq_lstm.h5", CORPUS / "keras/2.2.4_lam_w.h5"):
        with pytest.raises(LoadError, match="a model of Keras 2"):
            load(path, BY_TF_KERAS)


def edited(tmp_path, change, source="tfkeras/tfop_arith.h5"):
    path = tmp_path / "edited.h5"
    path.write_bytes((CORPUS / source).read_bytes())
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config["config"]["layers"])
        file.attrs["model_config"] = json.dumps(config)
    return path


def first(layers, class_name):
    return next(layer for layer in layers if layer["class_name"] == class_name)


def gadgets(marker):
    """Config edits that make tf_keras' own loader run code, write files or read them."""

    def writes_a_file(layers):
        operation = first(layers, "TFOpLambda")
        operation["config"]["function"] = "io.write_file"
        operation["inbound_nodes"] = [["_CONSTANT_VALUE", -1, str(marker), {"contents": "x"}]]

    def calls_a_method(layers):
        first(layers, "TFOpLambda").update(
            class_name="ClassMethod",
            config={"name": "m", "cls_symbol": "io.gfile.GFile", "method_name": "write"},
        )

    def names_a_module(layers):
        first(layers, "TFOpLambda").update(module="os", class_name="system", config={"name": "m"})

    def is_a_graph_operation(layers):
        first(layers, "TFOpLambda").update(
            class_name="TensorFlowOpLayer",
            config={"name": "m", "node_def": "op: 'WriteFile'", "constants": {}},
        )

    def reads_a_file(layers):
        first(layers, "TFOpLambda").update(
            class_name="StringLookup", config={"name": "m", "vocabulary": "/etc/passwd"}
        )

    return [writes_a_file, calls_a_method, names_a_module, is_a_graph_operation, reads_a_file]


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("loader", ["auto", "tf_keras"])
def test_gadgets_are_refused_before_anything_is_built(tmp_path, place, loader):
    marker = tmp_path / "written"
    path = edited(tmp_path, gadgets(marker)[place])
    with pytest.raises(LoadError):
        load(path, ModelConfig(loader=loader))
    assert not marker.exists()


@pytest.mark.parametrize("name", ["keras/2.0.8_lam.h5", "keras/2.2.4_lam.h5"])
def test_stored_code_is_refused_even_where_the_operator_allows_it(name):
    permission = "sha256:" + hashlib.sha256((CORPUS / name).read_bytes()).hexdigest()
    with pytest.raises(LoadError, match="no code, as tf_keras may run it"):
        load(CORPUS / name, ModelConfig(loader="tf_keras", allow_lambda=permission))


def test_a_config_cannot_ask_for_more_weights_than_the_file_has(tmp_path):
    def grows(layers):
        first(layers, "Dense")["config"]["units"] = 10**9

    path = edited(tmp_path, grows, "keras/2.2.4_multi_io.h5")
    contents = look(path)
    with pytest.raises(LoadError, match="of the size that the file has weights for"):
        build_tf_keras(json.loads(contents.config), path, contents, {}, theano=False)


def test_models_that_are_no_graph_are_told_so():
    with pytest.raises(LoadError, match="known input shape"):
        mirror(tf_keras.Sequential([tf_keras.layers.Dense(2)]))
