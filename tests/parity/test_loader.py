"""Files that Keras really writes, loaded, refused and explained."""

import base64
import hashlib
import json
import textwrap
import zipfile
from dataclasses import replace

import h5py
import keras
import numpy as np
import pytest

from service.errors import LoadError
from service.loading.loader import load
from service.model_config import ModelConfig
from service.surgery.cut import describe

PLAIN = ModelConfig()
COMPILED = ModelConfig(compile=True)

STRETCH_LAYER = """
    import keras

    class Stretch(keras.layers.Layer):
        def __init__(self, factor=2.0, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor

        def build(self, input_shape):
            self.shift = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="shift")

        def call(self, inputs):
            return inputs * self.factor + self.shift

        def compute_output_shape(self, input_shape):
            return input_shape

        def get_config(self):
            return {**super().get_config(), "factor": self.factor}
"""


@pytest.fixture(autouse=True)
def registry_left_as_it_was():
    before = dict(keras.saving.get_custom_objects())
    yield
    after = dict(keras.saving.get_custom_objects())
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(before)
    assert after == before


@pytest.fixture
def write(tmp_path):
    def write_file(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write_file


def stretch_class(prefix=""):
    """The class of STRETCH_LAYER, as the script that trained the model had it."""
    module = {"__name__": "training_script"}
    exec(textwrap.dedent(STRETCH_LAYER).replace("class Stretch", f"{prefix}class Stretch"), module)  # noqa: S102 -- our own text
    return module["Stretch"]


def small(seed=1, units=3):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((4,), name="features"),
            keras.layers.Dense(5, activation="relu", name="hidden"),
            keras.layers.Dense(units, activation="softmax", name="classes"),
        ],
        name="small",
    )


def with_layer(layer, name="whole"):
    inputs = keras.Input((4,), name="features")
    return keras.Model(inputs, keras.layers.Dense(2, name="out")(layer(inputs)), name=name)


ROWS = np.linspace(-1, 1, 12, dtype="float32").reshape(3, 4)


def assert_same(loaded, model):
    np.testing.assert_array_equal(loaded(ROWS, training=False), model(ROWS, training=False))


@pytest.mark.parametrize("ending", ["h5", "hdf5", "keras"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_file_comes_back_as_it_was(tmp_path, ending, compiled):
    model = small()
    if compiled:
        model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
        model.fit(ROWS, np.eye(3), verbose=0)
    path = tmp_path / f"model.{ending}"
    model.save(path)
    loaded = load(path, PLAIN)
    assert_same(loaded.model, model)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.compiled is False
    assert loaded.repairs == ()
    assert loaded.notes == ()
    if compiled:
        again = load(path, COMPILED)
        assert again.compiled
        assert_same(again.model, model)
        assert again.model.evaluate(ROWS, np.eye(3), verbose=0) == pytest.approx(
            model.evaluate(ROWS, np.eye(3), verbose=0)
        )


@pytest.mark.parametrize(("written", "named"), [("h5", "keras"), ("keras", "h5")])
def test_the_content_decides_not_the_name(tmp_path, written, named):
    model = small()
    path = tmp_path / f"model.{written}"
    model.save(path)
    renamed = path.rename(tmp_path / f"other.{named}")
    assert_same(load(renamed, PLAIN).model, model)


@pytest.mark.parametrize("ending", ["h5", "keras"])
@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("defined_registered", [False, True])
def test_a_custom_layer_comes_from_its_file(tmp_path, write, ending, registered, defined_registered):
    stretch = stretch_class()
    if registered:
        keras.saving.register_keras_serializable("shop")(stretch)
    model = with_layer(stretch(3.0, name="stretch"))
    path = tmp_path / f"model.{ending}"
    model.save(path)
    keras.saving.get_custom_objects().pop("shop>Stretch", None)
    with pytest.raises(LoadError) as caught:
        load(path, PLAIN)
    assert "Stretch" in caught.value.message
    assert "Stretch" in caught.value.mend
    text = textwrap.dedent(STRETCH_LAYER)
    if defined_registered:
        text = text.replace(
            "class Stretch", '@keras.saving.register_keras_serializable("shop")\nclass Stretch'
        )
    assert_same(load(path, PLAIN, [write("custom_objects.py", text)]).model, model)


def test_a_later_file_wins_and_custom_objects_wins_over_both(tmp_path, write):
    model = with_layer(stretch_class()(3.0, name="stretch"))
    path = tmp_path / "model.h5"
    model.save(path)
    shared = write("custom_objects.py", STRETCH_LAYER.replace("inputs * self.factor", "inputs * 100"))
    own = write("own/custom_objects.py", STRETCH_LAYER)
    assert_same(load(path, PLAIN, [shared, own]).model, model)
    declared = textwrap.dedent(STRETCH_LAYER) + textwrap.dedent("""
        class Other(Stretch):
            def call(self, inputs):
                return inputs

        CUSTOM_OBJECTS = {"Stretch": Other}
    """)
    loaded = load(path, PLAIN, [shared, write("declared/custom_objects.py", declared)]).model
    assert type(loaded.get_layer("stretch")).__name__ == "Other"


def test_objects_of_one_model_do_not_reach_another(tmp_path, write):
    registering = textwrap.dedent(STRETCH_LAYER).replace(
        "class Stretch", '@keras.saving.register_keras_serializable("shop")\nclass Stretch'
    )
    model = with_layer(stretch_class()(3.0, name="stretch"))
    path = tmp_path / "model.h5"
    model.save(path)
    first = write("first/custom_objects.py", registering)
    second = write("second/custom_objects.py", registering.replace("inputs * self.factor", "inputs * 100"))
    one = load(path, PLAIN, [first]).model
    with pytest.raises(LoadError, match="Stretch"):
        load(path, PLAIN)
    two = load(path, PLAIN, [second]).model
    assert type(one.get_layer("stretch")) is not type(two.get_layer("stretch"))
    assert_same(one, model)
    assert not np.allclose(two(ROWS), model(ROWS))


def test_what_a_file_sets_in_keras_is_undone(tmp_path, write):
    path = tmp_path / "model.h5"
    small().save(path)
    hasty = write("custom_objects.py", "import keras\nkeras.config.set_dtype_policy('mixed_bfloat16')\n")
    load(path, PLAIN, [hasty])
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import nowhere_at_all", "nowhere_at_all"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("CUSTOM_OBJECTS = ['Stretch']", "CUSTOM_OBJECTS"),
    ],
)
def test_a_broken_objects_file_is_explained(tmp_path, write, text, reason):
    path = tmp_path / "model.h5"
    small().save(path)
    with pytest.raises(LoadError, match=reason) as caught:
        load(path, PLAIN, [write("custom_objects.py", text)])
    assert caught.value.mend


LOSS_AND_METRIC = """
    from keras import ops

    def shifted_loss(y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred + 1.0))

    def worst(y_true, y_pred):
        return ops.max(ops.abs(y_true - y_pred))
"""


@pytest.mark.parametrize("ending", ["h5", "keras"])
def test_compiling_needs_the_loss_and_serving_does_not(tmp_path, write, ending):
    module = {}
    exec(textwrap.dedent(LOSS_AND_METRIC), module)  # noqa: S102 -- our own text
    model = small()
    model.compile("sgd", module["shifted_loss"], metrics=[module["worst"]])
    model.evaluate(ROWS, np.eye(3), verbose=0)
    path = tmp_path / f"model.{ending}"
    model.save(path)
    assert_same(load(path, PLAIN).model, model)
    with pytest.raises(LoadError, match="shifted_loss") as caught:
        load(path, COMPILED)
    assert "shifted_loss" in caught.value.mend
    loaded = load(path, COMPILED, [write("custom_objects.py", LOSS_AND_METRIC)])
    assert loaded.compiled
    assert loaded.model.evaluate(ROWS, np.eye(3), verbose=0) == pytest.approx(
        model.evaluate(ROWS, np.eye(3), verbose=0)
    )


def test_compile_needs_something_to_compile(tmp_path):
    path = tmp_path / "model.h5"
    small().save(path)
    with pytest.raises(LoadError, match="compile = true"):
        load(path, COMPILED)


def test_a_nested_model_may_have_been_compiled_with_a_loss_nobody_has(tmp_path):
    inner = small()
    inner.compile("sgd", stretch_class)  # any function will do: it is never called
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inner(inputs)))
    path = tmp_path / "model.keras"
    model.save(path)
    assert_same(load(path, PLAIN).model, model)


def lambda_model():
    return with_layer(keras.layers.Lambda(lambda x: x * 2.0, name="double", output_shape=(4,)))


@pytest.mark.parametrize("ending", ["h5", "keras"])
def test_a_lambda_runs_only_where_the_very_file_is_allowed(tmp_path, ending):
    model = lambda_model()
    path = tmp_path / f"model.{ending}"
    model.save(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    for wrong in (None, "sha256:" + "0" * 64, sha256):
        with pytest.raises(LoadError, match="'double'") as caught:
            load(path, replace(PLAIN, allow_lambda=wrong))
        assert f'"sha256:{sha256}"' in caught.value.mend
    assert_same(load(path, replace(PLAIN, allow_lambda=f"sha256:{sha256}")).model, model)


def test_a_lambda_of_an_old_dialect_never_runs(tmp_path):
    """The payload would write a file; Keras 2 stored code as a list and ran it while loading."""
    path = tmp_path / "model.h5"
    lambda_model().save(path)
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        layer = next(entry for entry in config["config"]["layers"] if entry["class_name"] == "Lambda")
        code = base64.b64encode(b"not even bytecode").decode()
        layer["config"] |= {"function": [code, None, None], "function_type": "lambda"}
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(LoadError, match="Python code"):
        load(path, PLAIN)


def test_a_lambda_of_a_named_function_takes_it_from_the_file(tmp_path, write):
    text = "def triple(x):\n    return x * 3.0\n"
    module = {"__name__": "training_script"}
    exec(text, module)  # noqa: S102 -- our own text
    model = with_layer(keras.layers.Lambda(module["triple"], name="times", output_shape=(4,)))
    path = tmp_path / "model.keras"
    model.save(path)
    with pytest.raises(LoadError, match="triple"):
        load(path, PLAIN)
    assert_same(load(path, PLAIN, [write("custom_objects.py", text)]).model, model)


def with_config(path, change):
    """The file, its config changed by `change`."""
    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            config = json.loads(file.attrs["model_config"])
            change(config)
            file.attrs["model_config"] = json.dumps(config)
        return path
    changed = path.with_name("changed.keras")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(changed, "w") as target:
        for name in archive.namelist():
            data = archive.read(name)
            if name == "config.json":
                config = json.loads(data)
                change(config)
                data = json.dumps(config).encode()
            target.writestr(name, data)
    return changed


@pytest.mark.parametrize("ending", ["h5", "keras"])
@pytest.mark.parametrize(
    "gadget",
    [
        {"module": "os", "class_name": "system", "config": {"command": "touch gadget"}},
        {"module": "builtins", "class_name": "eval", "config": {"source": "1"}},
        {"module": "subprocess", "class_name": "function", "config": "run", "registered_name": "run"},
        {"module": "keras.utils", "class_name": "get_file", "config": {}},
        {"module": "keras", "class_name": "utils.get_file", "config": {}},
        {"module": "keras.saving", "class_name": "load_model", "config": {}},
        {"module": "kerasx.layers", "class_name": "Dense", "config": {}},
        {"module": None, "class_name": "Unheard", "config": {}, "registered_name": "pack>Unheard"},
    ],
)
def test_a_config_that_names_anything_else_is_refused(tmp_path, ending, gadget):
    path = tmp_path / f"model.{ending}"
    small().save(path)

    def change(config):
        config["config"]["layers"][1]["config"]["kernel_regularizer"] = gadget

    with pytest.raises(LoadError, match="Expected classes and functions of Keras") as caught:
        load(with_config(path, change), PLAIN)
    assert (
        str(gadget["config"] if gadget["class_name"] == "function" else gadget["class_name"])
        in caught.value.message
    )


def test_layers_that_load_programs_are_refused(tmp_path):
    path = tmp_path / "model.keras"
    small().save(path)

    def change(config):
        config["config"]["layers"][1] = {
            "module": "keras.layers",
            "class_name": "TFSMLayer",
            "config": {"filepath": "/tmp/program"},  # noqa: S108 -- never opened
        }

    with pytest.raises(LoadError, match="a TFSMLayer"):
        load(with_config(path, change), PLAIN)


def test_a_layer_that_keras_does_not_know_is_named(tmp_path):
    path = tmp_path / "model.h5"
    small().save(path)
    with_config(
        path, lambda config: config["config"]["layers"][1].update(class_name="Convolution9D", module=None)
    )
    with pytest.raises(LoadError, match="Convolution9D"):
        load(path, PLAIN)


def damage(path, places):
    data = bytearray(path.read_bytes())
    for place in places:
        data[place % len(data)] ^= 0x5A
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("ending", ["h5", "keras"])
def test_a_damaged_file_loads_whole_or_is_refused(tmp_path, ending):
    original = tmp_path / f"model.{ending}"
    small().save(original)
    data = original.read_bytes()
    generator = np.random.default_rng(7)
    refused = 0
    for _ in range(40):
        path = tmp_path / f"damaged.{ending}"
        path.write_bytes(data)
        damage(path, generator.integers(0, len(data), 3).tolist())
        try:
            load(path, PLAIN)
        except LoadError as error:
            refused += 1
            assert error.mend  # noqa: PT017 -- damage to values alone cannot be seen and does not raise
    assert refused > 0
    for size in (0, 3, 100, len(data) // 2, len(data) - 1):
        cut = tmp_path / f"cut.{ending}"
        cut.write_bytes(data[:size])
        with pytest.raises(LoadError):
            load(cut, PLAIN)


@pytest.mark.parametrize("link", [h5py.SoftLink("/model_weights/hidden"), h5py.ExternalLink("other.h5", "/")])
def test_links_are_refused(tmp_path, link):
    path = tmp_path / "model.h5"
    small().save(path)
    with h5py.File(path, "a") as file:
        del file["model_weights/classes"]
        file["model_weights/classes"] = link
    with pytest.raises(LoadError, match="Link"):
        load(path, PLAIN)


def test_a_missing_file_is_a_load_error(tmp_path):
    with pytest.raises(LoadError):
        load(tmp_path / "nothing.h5", PLAIN)


def legacy_weights(model, path):
    """As Keras 2's save_weights wrote them; Keras 3 writes the same groups inside its whole .h5 files."""
    whole = path.with_name("whole.h5")
    model.save(whole)
    with h5py.File(whole) as source, h5py.File(path, "w") as target:
        for name, value in source["model_weights"].attrs.items():
            target.attrs[name] = value
        for name in source["model_weights"]:
            source.copy(f"model_weights/{name}", target)
    whole.unlink()
    return path


def keras3_weights(model, path):
    model.save_weights(path.with_name("saved.weights.h5"))
    return path.with_name("saved.weights.h5").rename(path)


WRITERS = [legacy_weights, keras3_weights]

BUILDER = """
    import keras

    def get_model():
        return keras.Sequential([
            keras.Input((4,)), keras.layers.Dense(5, activation="relu"),
            keras.layers.Dense(UNITS, activation="softmax"),
        ])
"""


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", ["weights.h5", "model.weights.h5"])
def test_weights_alone_need_an_architecture(tmp_path, write, writer, name):
    model = small()
    path = writer(model, tmp_path / name)
    with pytest.raises(LoadError, match="without an architecture") as caught:
        load(path, PLAIN)
    assert 'architecture = "model.json"' in caught.value.mend
    with pytest.raises(LoadError, match=r"model\.json"):
        load(path, replace(PLAIN, architecture="model.json"))
    write("model.json", model.to_json())
    assert_same(load(path, replace(PLAIN, architecture="model.json")).model, model)
    builder = replace(PLAIN, architecture="builder:get_model")
    write("builder.py", BUILDER.replace("UNITS", "3"))
    assert_same(load(path, builder).model, model)


@pytest.mark.parametrize("writer", WRITERS)
def test_the_architecture_may_lie_in_the_models_folder(tmp_path, write, writer):
    model = small()
    version = tmp_path / "1"
    version.mkdir()
    path = writer(model, version / "weights.h5")
    write("model.json", model.to_json())
    loaded = load(path, replace(PLAIN, architecture="model.json"), model_dir=tmp_path)
    assert_same(loaded.model, model)


@pytest.mark.parametrize("writer", WRITERS)
def test_wrong_shapes_are_shown_side_by_side(tmp_path, write, writer):
    path = writer(small(), tmp_path / "weights.h5")
    write("builder.py", BUILDER.replace("UNITS", "7"))
    with pytest.raises(LoadError) as caught:
        load(path, replace(PLAIN, architecture="builder:get_model"))
    lines = caught.value.message.splitlines()
    assert lines[1].split() == ["weight", "expected", "found"]
    assert any("(5, 7)" in line and "(5, 3)" in line for line in lines)


@pytest.mark.parametrize("writer", WRITERS)
def test_weights_of_another_depth_are_refused(tmp_path, write, writer):
    path = writer(small(), tmp_path / "weights.h5")
    write("builder.py", BUILDER.replace("keras.Input((4,)),", "keras.Input((4,)), keras.layers.Dense(4),"))
    write("builder.py", (tmp_path / "builder.py").read_text().replace("UNITS", "3"))
    with pytest.raises(LoadError, match="expected"):
        load(path, replace(PLAIN, architecture="builder:get_model"))


def test_frozen_inner_layers_get_their_own_weights(tmp_path, write):
    """The layout lists trainable weights first; a builder without the freeze has another order."""

    def nested(*, frozen):
        inner = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(4, name="first"),
                keras.layers.Dense(4, name="second"),
            ],
            name="inner",
        )
        inner.get_layer("first").trainable = not frozen
        return keras.Sequential([keras.Input((4,)), inner], name="outer")

    keras.utils.set_random_seed(3)
    model = nested(frozen=True)
    path = legacy_weights(model, tmp_path / "weights.h5")
    write("model.json", nested(frozen=False).to_json())
    assert_same(load(path, replace(PLAIN, architecture="model.json")).model, model)


def test_a_builder_may_fail_and_says_how(tmp_path, write):
    path = keras3_weights(small(), tmp_path / "weights.h5")
    config = replace(PLAIN, architecture="builder:get_model")
    for text, reason in [
        ("def other(): pass", "a function get_model"),
        ("def get_model(): return 3", "int"),
        ("def get_model(): raise KeyError('layer')", "KeyError"),
        ("import keras\ndef get_model(): return keras.Sequential([keras.layers.Dense(3)])", "built"),
    ]:
        write("builder.py", text)
        with pytest.raises(LoadError, match=reason):
            load(path, config)


def test_names_from_a_builder_do_not_depend_on_what_was_loaded_before(tmp_path, write):
    path = keras3_weights(small(), tmp_path / "weights.h5")
    write("builder.py", BUILDER.replace("UNITS", "3"))
    config = replace(PLAIN, architecture="builder:get_model")
    first, second = (load(path, config).model for _ in range(2))
    assert (
        [layer.name for layer in first.layers]
        == [layer.name for layer in second.layers]
        == ["dense", "dense_1"]
    )


@pytest.mark.parametrize("ending", ["h5", "keras"])
def test_nested_models_and_batch_norms_come_back(tmp_path, ending):
    keras.utils.set_random_seed(5)
    inner_in = keras.Input((8, 8, 3))
    inner = keras.Model(
        inner_in,
        keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(inner_in)),
        name="inner",
    )
    inputs = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(
        keras.layers.Add()([inner(inputs), inner(keras.layers.Rescaling(2.0)(inputs))])
    )
    model = keras.Model(inputs, keras.layers.Dense(2)(pooled))
    pictures = np.random.default_rng(0).standard_normal((4, 8, 8, 3)).astype("float32")
    model(pictures, training=True)
    path = tmp_path / f"model.{ending}"
    model.save(path)
    np.testing.assert_array_equal(load(path, PLAIN).model(pictures), model(pictures))


CODE_MODEL = """
    import keras

    class Coded(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.hidden = keras.layers.Dense(3, name="hidden")
            self.top = keras.layers.Dense(2, name="top")

        def call(self, inputs):
            return self.top(keras.ops.relu(self.hidden(inputs)))
"""


def test_a_model_that_is_code_comes_back_with_its_layers(tmp_path, write):
    module = {"__name__": "training_script"}
    exec(textwrap.dedent(CODE_MODEL), module)  # noqa: S102 -- our own text
    model = module["Coded"](name="coded")
    model(ROWS)
    path = tmp_path / "model.keras"
    model.save(path)
    with pytest.raises(LoadError, match="Coded"):
        load(path, PLAIN)
    loaded = load(path, PLAIN, [write("custom_objects.py", CODE_MODEL)])
    assert_same(loaded.model, model)
    assert loaded.notes == ()
    assert [layer.path for layer in describe(loaded.model).layers] == ["inputs", "hidden", "top", "coded"]
