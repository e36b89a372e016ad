"""The models that ship: they load, they are as good as models/README.md says, and they hold what they promise."""

import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from service.loading.builtin_objects import builtin_objects
from service.repository import scan

MODELS = Path(__file__).parents[2] / "models"
NAMES = ("digits", "iris", "pairs")
NOTES_METRICS = {"mcor", "precision", "recall", "f1"}


@pytest.fixture(autouse=True)
def _nothing_registered():
    registered = keras.saving.get_custom_objects()
    kept = dict(registered)
    registered.clear()
    yield
    registered.clear()
    registered.update(kept)


def module_at(path):
    spec = importlib.util.spec_from_file_location(f"shipped_{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def own_objects(name):
    path = MODELS / name / "custom_objects.py"
    return {"LowRankProduct": module_at(path).LowRankProduct} if path.is_file() else {}


def load(name, *, compiled=False):
    objects = {**builtin_objects(), **own_objects(name)}
    return keras.models.load_model(MODELS / name / "1" / "model.h5", custom_objects=objects, compile=compiled)


def readme_line(name):
    lines = (MODELS / "README.md").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith(f"| `{name}` |"))


def test_the_repository_lists_exactly_these_models_and_none_is_broken():
    entries = scan(MODELS)
    assert {entry.name: entry.error for entry in entries} == dict.fromkeys(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_loads_and_predicts_probabilities_for_each_class(name):
    model = load(name)
    random = np.random.default_rng(1)
    rows = [random.random((3, *tensor.shape[1:]), dtype="float32") for tensor in model.inputs]
    outputs = model.predict(rows if len(rows) > 1 else rows[0], verbose=0)
    first = outputs[0] if isinstance(outputs, list) else outputs
    entry = next(entry for entry in scan(MODELS) if entry.name == name)
    assert first.shape == (3, len(entry.classes))
    np.testing.assert_allclose(first.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_files_stay_small(name):
    assert (MODELS / name / "1" / "model.h5").stat().st_size < 1_500_000


def test_iris_is_one_dense_layer_as_accurate_as_its_line_says():
    model = load("iris")
    assert [type(layer) for layer in model.layers] == [keras.layers.Dense]
    _, held_out, _, labels = module_at(MODELS / "iris" / "train.py").split()
    accuracy = np.mean(model.predict(held_out, verbose=0).argmax(axis=1) == labels)
    assert accuracy >= 0.89
    assert f"{accuracy:.4f}" in readme_line("iris")


def test_digits_cannot_be_loaded_compiled_without_its_metrics():
    path = MODELS / "digits" / "1" / "model.h5"
    with pytest.raises(TypeError) as failure:
        keras.models.load_model(path, compile=True)
    assert any(f"'{name}'" in str(failure.value) for name in NOTES_METRICS)


@pytest.mark.parametrize("missing", sorted(NOTES_METRICS))
def test_digits_needs_each_of_its_metrics(missing):
    objects = builtin_objects()
    del objects[missing]
    path = MODELS / "digits" / "1" / "model.h5"
    with pytest.raises(TypeError, match=f"Could not locate function '{missing}'"):
        keras.models.load_model(path, custom_objects=objects, compile=True)


def test_digits_loads_compiled_with_its_metrics_and_evaluates():
    model = load("digits", compiled=True)
    pictures, labels = example_digits()
    scores = model.evaluate(pictures, keras.utils.to_categorical(labels, 10), verbose=0, return_dict=True)
    assert set(scores) == {"loss", *(f"{name}_by_batch" for name in NOTES_METRICS)}
    assert scores["precision_by_batch"] == pytest.approx(1.0, abs=1e-6)
    assert int(model.optimizer.iterations) > 0  # the state of training came along


def example_digits():
    entry = next(entry for entry in scan(MODELS) if entry.name == "digits")
    preprocess = entry.config.preprocess
    files = sorted((MODELS / "digits" / "examples").glob("*.png"))
    pictures = [keras.utils.load_img(file, color_mode=preprocess.color_mode) for file in files]
    rows = np.stack([keras.utils.img_to_array(picture) for picture in pictures]) * preprocess.rescale
    return rows, [int(file.stem) for file in files]


def test_digits_reads_its_examples():
    rows, labels = example_digits()
    assert len(labels) >= 2
    assert load("digits").predict(rows, verbose=0).argmax(axis=1).tolist() == labels


def test_digits_pool_is_a_pooling_layer_that_tells_digits_apart():
    model = load("digits")
    pool = model.get_layer("pool")
    assert isinstance(pool, keras.layers.AveragePooling2D)
    entry = next(entry for entry in scan(MODELS) if entry.name == "digits")
    assert entry.config.default_layer == "pool"
    assert entry.config.warm_layers == ("pool",)
    rows, _ = example_digits()
    features = np.asarray(keras.Model(model.input, pool.output)(rows, training=False))
    assert features.shape[1:] == (3, 3, 64)
    assert len(np.unique(features.reshape(len(rows), -1), axis=0)) == len(rows)


@pytest.mark.slow  # npm fetches the pictures
def test_digits_is_as_accurate_as_its_line_says():
    _, held_out, _, labels = module_at(MODELS / "digits" / "train.py").split()
    predictions = load("digits").predict(held_out / np.float32(255), verbose=0)
    accuracy = np.mean(predictions.argmax(axis=1) == labels)
    assert accuracy >= 0.9555
    assert f"{accuracy:.4f}" in readme_line("digits")


def test_pairs_has_the_shapes_that_it_ships_for():
    model = load("pairs")
    assert [tensor.name for tensor in model.inputs] == ["left", "right"]
    assert model.output_names == ["sum", "same"]
    assert len(model.get_layer("code")._inbound_nodes) == 2
    base = model.get_layer("base")
    assert isinstance(base, keras.Model)
    product = base.get_layer("product")
    assert type(product).__name__ == "LowRankProduct"
    assert [tuple(weight.shape) for weight in product.weights] == [(32, 96), (32, 96), (96,)]
    assert product.compute_output_shape([(None, 32), (None, 32)]) == (None, 96)


def test_pairs_cannot_be_loaded_without_its_own_layer():
    with pytest.raises(ValueError, match="LowRankProduct"):
        keras.models.load_model(
            MODELS / "pairs" / "1" / "model.h5", custom_objects=builtin_objects(), compile=False
        )


def test_pairs_layer_computes_its_formula():
    layer = own_objects("pairs")["LowRankProduct"](5)
    random = np.random.default_rng(2)
    left, right = random.normal(size=(4, 3)).astype("float32"), random.normal(size=(4, 2)).astype("float32")
    result = np.asarray(layer([left, right]))
    left_kernel, right_kernel, bias = layer.get_weights()
    np.testing.assert_allclose(
        result, (left @ left_kernel) * (right @ right_kernel) + bias, rtol=1e-5, atol=1e-6
    )


def test_pairs_is_as_accurate_as_its_line_says(monkeypatch):
    # train.py imports the file beside it, as Python lets a script do
    monkeypatch.setitem(sys.modules, "custom_objects", module_at(MODELS / "pairs" / "custom_objects.py"))
    _, (held_out, targets) = module_at(MODELS / "pairs" / "train.py").split()
    total, same = load("pairs").predict(held_out, verbose=0)
    for accuracy in (
        np.mean(total.argmax(axis=1) == targets["sum"]),
        np.mean((same > 0.5) == targets["same"]),
    ):
        assert accuracy >= 0.95
        assert f"{accuracy:.4f}" in readme_line("pairs")
