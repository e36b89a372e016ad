"""What operators bring for old files: layers, losses, functions and packages, and what is said where they are missing."""

import json
import sys
import textwrap
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from service.errors import LoadError
from service.loading.loader import load
from service.loading.old_code import find_old_lines
from service.model_config import ModelConfig
from service.repository import scan
from service.serving.opening import open_model

pytestmark = pytest.mark.usefixtures("looked_through_here")

CORPUS = Path(__file__).parents[1] / "corpus"
PLAIN = ModelConfig()
KERAS3 = ModelConfig(loader="keras3")

SCALE = """
    import keras

    class Scale(keras.layers.Layer):
        def __init__(self, factor=1.5, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor

        def build(self, input_shape):
            self.g = self.add_weight(shape=(input_shape[-1],), name="g")

        def call(self, x):
            return x * self.g * self.factor

        def get_config(self):
            return {**super().get_config(), "factor": self.factor}
"""

# A layer, a metric and a loss object with state of its own, as a CRF's is, under the names that files store.
NOTES = """
    import keras
    from keras import ops

    class MyLayer(keras.layers.Layer):
        def __init__(self, output_dim=3, **kwargs):
            super().__init__(**kwargs)
            self.output_dim = output_dim

        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(input_shape[-1], self.output_dim), name="kernel")

        def call(self, x):
            return ops.dot(x, self.kernel)

        def compute_output_shape(self, input_shape):
            return (*input_shape[:-1], self.output_dim)

        def get_config(self):
            return {**super().get_config(), "output_dim": self.output_dim}

    class Chain:
        def __init__(self, weight):
            self.weight = weight

        @property
        def loss_function(self):
            def loss(y_true, y_pred):
                return self.weight * ops.mean(ops.square(y_true - y_pred), axis=-1)
            return loss

    chain = Chain(3.0)
    custom_objects = {"MyLayer": MyLayer, "loss": chain.loss_function}
"""


def saved(name):
    with np.load(CORPUS / f"{name}.npz") as file:
        return file["x0"], file["y0"]


def assert_right(model, name):
    rows, expected = saved(name)
    np.testing.assert_allclose(np.asarray(model(rows.astype("float32"), training=False)), expected, atol=1e-6)


@pytest.mark.parametrize("version", ["1.0.8", "1.1.2", "1.2.2", "2.0.8", "2.2.4", "2.3.1"])
def test_a_layer_from_custom_objects_serves_files_of_any_age(write, version):
    name = f"keras/{version}_custom"
    loaded = load(CORPUS / f"{name}.h5", PLAIN, [write(SCALE)])
    assert loaded.library == "keras3"
    assert_right(loaded.model, name)


def test_missing_classes_are_told_at_once_with_code_that_works_when_filled_in(write, tmp_path):
    """Two layers, an activation and an initialiser that nobody defines; then what the message says is pasted."""
    path = tmp_path / "model.h5"
    path.write_bytes((CORPUS / "keras/2.2.4_custom.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        layers = {layer["name"]: layer for layer in config["config"]["layers"]}
        layers["dense_1"]["config"]["activation"] = "my_activation"
        layers["leaky_re_lu_1"]["class_name"] = "MyLeaky"
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(LoadError) as caught:
        load(path, KERAS3)
    message, (told, _, stub) = caught.value.message, caught.value.mend.partition("\n\n")
    assert "Scale (layer 'scale')" in message
    assert "MyLeaky (layer 'leaky_re_lu_1')" in message
    assert "my_activation (layer 'dense_1')" in message
    assert "custom_objects.py" in told
    filled = (
        stub.replace(
            'raise NotImplementedError("what Scale computes")', "return inputs * self.g * self.factor"
        )
        .replace(
            'raise NotImplementedError("what MyLeaky computes")',
            "return keras.ops.leaky_relu(inputs, negative_slope=self.alpha)",
        )
        .replace('raise NotImplementedError("what my_activation computes")', "return x")
    )
    assert "NotImplementedError" not in filled
    loaded = load(path, KERAS3, [write(filled)])
    rows, expected = saved("keras/2.2.4_custom")
    np.testing.assert_allclose(np.asarray(loaded.model(rows)), expected, atol=1e-6)


def test_a_builtin_layer_that_only_has_the_name_is_no_stand_in():
    with pytest.raises(LoadError, match=r"Received: Scale \(layer 'scale'\)"):
        load(CORPUS / "keras/2.2.4_custom.h5", KERAS3)


@pytest.mark.parametrize("attribute", ["OBJECTS", "objects", "Scale", "Nested.objects"])
def test_objects_come_from_installed_packages(write, tmp_path, monkeypatch, attribute):
    package = f"shop_layers_{attribute.lower().replace('.', '_')}"
    write(
        SCALE
        + """
    OBJECTS = {"Scale": Scale}

    def objects():
        return {"Scale": Scale}

    class Nested:
        objects = OBJECTS
    """,
        f"{package}/layers.py",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = ModelConfig(custom_objects=(f"{package}.layers:{attribute}",))
    name = "keras/2.2.4_custom"
    assert_right(load(CORPUS / f"{name}.h5", config).model, name)
    assert f"{package}.layers" in sys.modules


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("no_such_package_here:objects", "Expected custom objects at"),
        ("json:no_such_attribute", "Expected custom objects at"),
        ("json:__name__", "Expected a class, a function or a dict"),
        ("sys:modules.json", "Expected custom objects at"),
    ],
)
def test_references_that_lead_nowhere_are_told(reference, told):
    with pytest.raises(LoadError, match=told):
        load(CORPUS / "keras/2.2.4_seq_lstm.h5", ModelConfig(custom_objects=(reference,), loader="keras3"))


def test_my_layer_and_a_loss_object_work_end_to_end(write, tmp_path):
    """A model as the notes had it, with losses and metrics that its file knows by name only."""
    module = {"__name__": "training_script"}
    exec(textwrap.dedent(NOTES), module)  # noqa: S102 -- our own text
    keras.utils.set_random_seed(4)
    inputs = keras.Input((4,), name="features")
    model = keras.Model(inputs, keras.layers.Dense(2, name="out")(module["MyLayer"](3, name="mine")(inputs)))
    model.compile("sgd", module["chain"].loss_function)
    rows = np.linspace(-1, 1, 8, dtype="float32").reshape(2, 4)
    expected_loss = model.evaluate(rows, np.ones((2, 2)), verbose=0)
    folder = tmp_path / "models" / "notes"
    folder.mkdir(parents=True)
    model.save(folder / "model.h5")
    with h5py.File(folder / "model.h5") as file:
        assert json.loads(file.attrs["training_config"])["loss"] == "loss"
    write(NOTES, "models/notes/custom_objects.py")
    (entry,) = scan(tmp_path / "models")
    opened = open_model(
        entry,
        entry.versions[0],
        buckets_to=None,
        tolerance=1e-5,
        on_trace=lambda: None,
        on_padding=lambda _: None,
    )
    served = opened.engine.compile(("mine", "out")).run({"features": rows})
    np.testing.assert_allclose(served["out"], np.asarray(model(rows)), atol=1e-6)
    np.testing.assert_allclose(served["mine"], rows @ model.get_layer("mine").get_weights()[0], atol=1e-6)
    assert (opened.facts["loader"], opened.facts["loader_reason"]) == ("keras3", "")
    compiled = load(folder / "model.h5", ModelConfig(compile=True), entry.object_files)
    assert compiled.model.evaluate(rows, np.ones((2, 2)), verbose=0) == pytest.approx(expected_loss)


def test_missing_losses_metrics_and_optimisers_never_stop_serving():
    load(CORPUS / "tfkeras/custom_loss.h5", PLAIN)
    load(CORPUS / "tfkeras/opt_decay.h5", PLAIN)


@pytest.mark.parametrize("name", ["keras/2.2.4_crf_marginal", "keras/2.2.4_crf_viterbi_mask"])
def test_a_crf_needs_nothing_from_its_operator(name):
    loaded = load(CORPUS / f"{name}.h5", PLAIN)
    assert loaded.library == "keras3"
    assert_right(loaded.model, name)


def test_old_functions_that_nothing_calls_are_told_and_stop_nothing(write):
    old = """
        from keras import backend as K

        def mcor(y_true, y_pred):
            return K.sum(K.round(K.clip(y_true, 0, 1)))
    """
    loaded = load(CORPUS / "keras/2.2.4_seq_lstm.h5", PLAIN, [write(old)])
    assert loaded.library == "keras3"
    (note,) = loaded.notes
    assert "write: return keras.ops.sum(keras.ops.round(keras.ops.clip(y_true, 0, 1)))" in note


def test_old_code_that_fails_only_when_called_is_told_by_line(write):
    old = SCALE.replace("import keras\n", "import keras\n    from keras import backend as K\n").replace(
        "return x * self.g", "return K.dot(x, x) * self.g"
    )
    with pytest.raises(LoadError) as caught:
        load(CORPUS / "keras/2.2.4_custom.h5", KERAS3, [write(old)])
    assert "return keras.ops.dot(x, x) * self.g * self.factor" in caught.value.mend


OLD_SCALE = """
    from keras.engine.topology import Layer
    from keras import initializations
    from keras import backend as K

    class Scale(Layer):
        def __init__(self, factor=1.5, init='one', **kwargs):
            self.factor = factor
            self.init = initializations.get(init)
            super(Scale, self).__init__(**kwargs)

        def build(self, input_shape):
            self.g = self.add_weight('g', (input_shape[-1],), initializer=self.init)
            super(Scale, self).build(input_shape)

        def call(self, x, mask=None):
            if K.ndim(x) == 2:
                x = K.squeeze(K.expand_dims(x), -1)
            e = K.sum(K.dot(x, K.zeros((K.int_shape(x)[-1], 2))), axis=-1, keepdims=True)
            return K.cast(x, K.floatx()) * self.g * self.factor + e

        def get_output_shape_for(self, input_shape):
            return input_shape
"""


def rewritten(source):
    """The source with every line replaced as the message says."""
    lines = source.splitlines()
    for change in find_old_lines(source):
        old = lines[change.number - 1]
        indent = old[: len(old) - len(old.lstrip())]
        lines[change.number - 1] = indent + change.new
    return "\n".join(lines)


@pytest.mark.parametrize("version", ["1.2.2", "2.0.8", "2.3.1"])
def test_the_lines_that_the_message_says_make_an_old_layer_work(write, version):
    name = f"keras/{version}_custom"
    with pytest.raises(LoadError, match="to run") as caught:
        load(CORPUS / f"{name}.h5", KERAS3, [write(OLD_SCALE)])
    assert caught.value.mend.count("write:") == len(find_old_lines(textwrap.dedent(OLD_SCALE)))
    new = rewritten(textwrap.dedent(OLD_SCALE))
    assert_right(load(CORPUS / f"{name}.h5", KERAS3, [write(new)]).model, name)
