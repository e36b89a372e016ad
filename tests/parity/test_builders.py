"""Weights-only files with a builder: the defaults of the file's day, or a question where nobody can know them."""

import textwrap
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from service.errors import LoadError
from service.loading.legacy import Origin
from service.loading.loader import load
from service.loading.old_defaults import run_as_of
from service.model_config import ModelConfig

pytestmark = pytest.mark.usefixtures("looked_through_here")

CORPUS = Path(__file__).parents[1] / "corpus" / "keras"
CONFIG = ModelConfig(architecture="builder:get_model")

# Each leaves to the default what was the default in the file's day.
BUILDERS = {
    "seq_lstm": """
        from keras.layers import LSTM, Dense, Embedding
        from keras.models import Sequential
        from keras import Input

        def get_model():
            return Sequential([
                Input((10,)), Embedding(20, 8, mask_zero=True), LSTM(7, return_sequences=True), LSTM(6),
                Dense(3, activation="softmax"),
            ])
    """,
    "seq_gru": """
        import keras

        def get_model():
            inputs = keras.Input((9, 5))
            x = keras.layers.GRU(7, return_sequences=True)(inputs)
            return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.SimpleRNN(6)(x)))
    """,
    "convlstm": """
        import keras

        def get_model():
            inputs = keras.Input((4, 8, 8, 2))
            return keras.Model(inputs, keras.layers.ConvLSTM2D(3, (3, 3), padding="same")(inputs))
    """,
}
FILES = sorted(
    path.stem for path in CORPUS.glob("*_w.h5") if path.stem.partition("_")[2].removesuffix("_w") in BUILDERS
)


def kind_of(name):
    return name.partition("_")[2].removesuffix("_w")


@pytest.fixture
def place(tmp_path):
    """A weights file with a builder.py beside it."""

    def placed(name, builder):
        path = tmp_path / "model.h5"
        path.write_bytes((CORPUS / f"{name}.h5").read_bytes())
        (tmp_path / "builder.py").write_text(textwrap.dedent(builder))
        return path

    return placed


def outputs(model, name):
    with np.load(CORPUS / f"{name.removesuffix('_w')}.npz") as file:
        return np.asarray(model(file["x0"].astype("float32"), training=False)), file["y0"]


@pytest.mark.parametrize("name", FILES)
def test_a_builder_that_says_nothing_gets_the_defaults_of_the_files_day(place, name):
    loaded = load(place(name, BUILDERS[kind_of(name)]), CONFIG)
    got, expected = outputs(loaded.model, name)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    changed = name.startswith(("1.", "2.0", "2.1", "2.2")) or "convlstm" in name
    assert any("hard_sigmoid" in repair for repair in loaded.repairs) == changed
    assert any("reset_after=False" in repair for repair in loaded.repairs) == ("gru" in name)


def test_a_builder_of_old_keras_is_told_its_lines(place):
    old = """
        from keras.layers import Dense, GRU, Input
        from keras.models import Model

        def get_model():
            inputs = Input((9, 5))
            return Model(input=inputs, output=Dense(output_dim=3)(GRU(output_dim=7)(inputs)))
    """
    with pytest.raises(LoadError, match=r"Expected builder\.py to run") as caught:
        load(place("2.2.4_seq_gru_w", old), CONFIG)
    assert "Model(inputs=inputs, outputs=Dense(units=3)(GRU(units=7)(inputs)))" in caught.value.mend


def test_the_defaults_of_today_are_back_afterwards(place):
    load(place("2.2.4_seq_gru_w", BUILDERS["seq_gru"]), CONFIG)
    layer = keras.layers.GRU(2)
    assert layer.reset_after is True
    assert layer.recurrent_activation is keras.activations.sigmoid
    assert keras.activations.get("hard_sigmoid") is keras.activations.hard_sigmoid
    with pytest.raises(LoadError, match="ZeroDivisionError"):
        load(place("2.2.4_seq_gru_w", "def get_model():\n    1 / 0"), CONFIG)
    assert keras.layers.GRU(2).reset_after is True


def test_what_a_builder_says_stays(place):
    said = BUILDERS["seq_lstm"].replace("LSTM(6)", 'LSTM(6, recurrent_activation="sigmoid")')
    said = said.replace("return_sequences=True", 'return_sequences=True, recurrent_activation="hard_sigmoid"')
    loaded = load(place("2.3.1_seq_lstm_w", said), CONFIG)
    first, second = (layer for layer in loaded.model.layers if isinstance(layer, keras.layers.LSTM))
    assert float(first.recurrent_activation(np.float32(1.0))) == pytest.approx(0.7)  # Keras 3 has 2/3
    assert second.recurrent_activation is keras.activations.sigmoid


BIDIRECTIONAL = """
    import keras

    def get_model():
        inputs = keras.Input((5, 4))
        x = keras.layers.Bidirectional(keras.layers.GRU(4, return_sequences=True))(inputs)
        return keras.Model(inputs, keras.layers.TimeDistributed(keras.layers.Dense(2))(x))
"""


@pytest.mark.parametrize("version", ["2.2.4", "2.2.4-tf"])
def test_defaults_reach_into_wrappers(version):
    module = {"__name__": "training_script"}
    exec(textwrap.dedent(BIDIRECTIONAL), module)  # noqa: S102 -- our own text
    if version == "2.2.4-tf":
        with pytest.raises(LoadError, match="Expected recurrent_activation to be said"):
            run_as_of(Origin(version), [], module["get_model"])
        return
    model, (gates, _) = run_as_of(Origin(version), [], module["get_model"])
    wrapper = model.layers[1]
    assert "hard_sigmoid" in gates
    for layer in (wrapper.forward_layer, wrapper.backward_layer):
        assert float(layer.recurrent_activation(np.float32(1.0))) == pytest.approx(0.7)
        assert layer.reset_after is False


def test_the_hard_sigmoid_of_keras_3_is_not_that_of_the_file(place):
    said = BUILDERS["seq_gru"].replace(
        "GRU(7,", "GRU(7, recurrent_activation=keras.activations.hard_sigmoid,"
    )
    with pytest.raises(LoadError, match="Expected the hard_sigmoid that the weights were trained with"):
        load(place("2.2.4_seq_gru_w", said), CONFIG)


def test_a_builder_may_ask_what_wrote_the_weights(place):
    asking = """
        import keras

        def get_model(backend, keras_version="?"):
            inputs = keras.Input((9, 5), name=f"{backend}_{keras_version.replace('.', '_')}")
            x = keras.layers.GRU(7, return_sequences=True)(inputs)
            return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.SimpleRNN(6)(x)))
    """
    model = load(place("2.2.4_seq_gru_w", asking), CONFIG).model
    assert model.inputs[0].name == "tensorflow_2_2_4"
    everything = asking.replace('backend, keras_version="?"', "**told").replace(
        "{backend}", "{told['backend']}"
    )
    everything = everything.replace("{keras_version", "{told['keras_version']")
    assert load(place("2.2.4_seq_gru_w", everything), CONFIG).model.inputs[0].name == "tensorflow_2_2_4"


def test_a_version_that_does_not_tell_is_asked_about(place):
    path = place("2.2.4_seq_lstm_w", BUILDERS["seq_lstm"])
    with h5py.File(path, "r+") as file:
        file.attrs["keras_version"] = "2.2.4-tf"
    with pytest.raises(LoadError, match="Expected recurrent_activation to be said") as caught:
        load(path, CONFIG)
    assert 'recurrent_activation="hard_sigmoid"' in caught.value.mend
    said = BUILDERS["seq_lstm"].replace("LSTM(6)", 'LSTM(6, recurrent_activation="hard_sigmoid")')
    said = said.replace("return_sequences=True", 'return_sequences=True, recurrent_activation="hard_sigmoid"')
    (path.parent / "builder.py").write_text(textwrap.dedent(said))
    got, expected = outputs(load(path, CONFIG).model, "2.2.4_seq_lstm")
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_weights_of_cudnn_layers_had_sigmoid_gates(tmp_path):
    """cuDNN's LSTM keeps two biases; with the second one zero it is Keras' own."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((4, 3))
    trained = keras.Model(inputs, keras.layers.LSTM(5, name="lstm_1")(inputs))
    kernel, recurrent, bias = trained.get_weights()
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["layer_names"] = [b"input_1", b"lstm_1"]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.1.5"
        file.create_group("input_1").attrs["weight_names"] = []
        group = file.create_group("lstm_1")
        gates = [np.split(array, 4, axis=1) for array in (kernel, recurrent)]
        arrays = {
            # cuDNN keeps each gate's kernel transposed, read back in the shape that Keras gives it
            "lstm_1/kernel:0": np.concatenate([gate.T.reshape(gate.shape) for gate in gates[0]], axis=1),
            "lstm_1/recurrent_kernel:0": np.concatenate([gate.T for gate in gates[1]], axis=1),
            "lstm_1/bias:0": np.concatenate([bias, np.zeros_like(bias)]),
        }
        group.attrs["weight_names"] = [name.encode() for name in arrays]
        for name, array in arrays.items():
            group.create_dataset(name, data=array)
    (tmp_path / "builder.py").write_text(
        "import keras\ndef get_model():\n    i = keras.Input((4, 3))\n"
        "    return keras.Model(i, keras.layers.LSTM(5)(i))\n"
    )
    loaded = load(tmp_path / "model.h5", CONFIG)
    rows = np.random.default_rng(1).normal(size=(2, 4, 3)).astype("float32")
    np.testing.assert_allclose(np.asarray(loaded.model(rows)), np.asarray(trained(rows)), atol=1e-6)


@pytest.mark.parametrize("name", ["1.2.2_seq_lstm", "2.2.4_fun_cnn", "2.3.1_nested"])
def test_another_models_file_gives_the_architecture(tmp_path, name):
    (tmp_path / "other.h5").write_bytes((CORPUS / f"{name}.h5").read_bytes())
    (tmp_path / "model.h5").write_bytes((CORPUS / f"{name}_w.h5").read_bytes())
    loaded = load(tmp_path / "model.h5", ModelConfig(architecture="other.h5"))
    got, expected = outputs(loaded.model, name)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_an_archive_gives_the_architecture_too(tmp_path):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")])
    model.save(tmp_path / "other.keras")
    model.set_weights([2 * weight for weight in model.get_weights()])
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = load(tmp_path / "model.weights.h5", ModelConfig(architecture="other.keras"))
    rows = np.ones((1, 3), "float32")
    np.testing.assert_array_equal(np.asarray(loaded.model(rows)), np.asarray(model(rows)))


def test_weights_give_no_architecture(tmp_path):
    for name in ("other.h5", "model.h5"):
        (tmp_path / name).write_bytes((CORPUS / "2.2.4_seq_gru_w.h5").read_bytes())
    with pytest.raises(LoadError, match=r"Expected a whole model in other\.h5.*Received: weights only"):
        load(tmp_path / "model.h5", ModelConfig(architecture="other.h5"))
    with pytest.raises(LoadError, match=r"Expected the architecture absent\.h5"):
        load(tmp_path / "model.h5", ModelConfig(architecture="absent.h5"))
