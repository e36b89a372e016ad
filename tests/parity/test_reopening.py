"""A kept model against the one it was kept of: the same spec, facts and numbers; TensorFlow only where it must be."""

import gc
import shutil
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from service.cache.vault import Vault
from service.engines.choice import EngineOptions
from service.engines.openvino_library import capabilities
from service.errors import InputRejected, LoadError
from service.repository import scan
from service.scheduling.jobs import Deferred
from service.serving.opening import open_model, open_tensorflow
from service.serving.reopening import ModelCache

SHIPPED = Path(__file__).parents[2] / "models"
OPTIONS = EngineOptions(threads=1, max_batch_size=4)
CALLS = {"buckets_to": None, "on_trace": lambda: None, "on_padding": lambda _: None}


class Kept:
    """A model opened from its file and kept, to be found again."""

    def __init__(self, models, name, vault, options=OPTIONS):
        self.options = options
        [self.entry] = [entry for entry in scan(models) if entry.name == name]
        self.cache = ModelCache(Vault(vault, 2**30))
        self.late_loads = 0
        [version] = self.entry.versions
        self.key = partial(self.cache.key, self.entry, version, options)
        before = self.key()
        self.opened = open_model(self.entry, version, tolerance=1e-4, engine_options=options, **CALLS)
        self.cache.keep(before, self.opened, self.key)

    def find(self):
        return self.cache.find(self.key(), self.options, self._open_late)

    def _open_late(self, sha256):
        self.late_loads += 1
        return open_tensorflow(self.entry, self.entry.versions[0], sha256, **CALLS)


@pytest.fixture
def kept(tmp_path):
    def make(model_or_name, options=OPTIONS):
        models = tmp_path / "models"
        if isinstance(model_or_name, str):
            shutil.copytree(SHIPPED / model_or_name, models / model_or_name)
            return Kept(models, model_or_name, tmp_path / "vault", options)
        (models / "model").mkdir(parents=True)
        model_or_name.save(models / "model" / "model.h5")
        return Kept(models, "model", tmp_path / "vault", options)

    return make


def words():
    keras.utils.set_random_seed(3)
    ids = layers.Input((3,), dtype="int32", name="ids")
    code = layers.Embedding(10, 4, name="code")(ids)
    return keras.Model(ids, layers.Dense(2, activation="softmax", name="end")(layers.Flatten()(code)))


@pytest.mark.parametrize("model", ["digits", "iris", "pairs", "words"])
def test_a_kept_model_is_the_same_model(kept, model):
    made = kept(words() if model == "words" else model)
    found = made.find()
    assert found.engine.spec == made.opened.engine.spec
    own = {"opened_from", "functions", "weight_copies"}
    assert {k: v for k, v in found.facts.items() if k not in own} == {
        k: v for k, v in made.opened.facts.items() if k not in own
    }
    rows = {name: array[:2] for name, array in made.opened.engine.rows.items()}
    for layer in found.engine.spec.layers:
        got = found.engine.compile((layer.path,)).run(rows)[layer.path]
        expected = made.opened.engine.compile((layer.path,)).run(rows)[layer.path]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert made.late_loads == 0


PROCESSORS = {"this one": capabilities(), "one without bfloat16": {"FP32"}}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_second_start_gives_the_same_precision_and_says_the_same(kept, processor):
    found = PROCESSORS[processor]
    made = kept("iris", replace(OPTIONS, precision="bfloat16", capabilities=lambda: found))
    again = made.find()
    for opened in (made.opened, again):
        has = "BF16" in found
        assert opened.facts["precision"] == ("bfloat16" if has else "float32")
        assert (opened.facts["precision_reason"] is None) == has
    assert again.facts["precision_reason"] == made.opened.facts["precision_reason"]
    [path] = [item.path for item in again.engine.spec.outputs]
    got, wanted = (each.engine.compile((path,)).run(again.engine.rows)[path] for each in (again, made.opened))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_what_was_kept_on_another_processor_is_not_found(kept):
    made = kept("iris", replace(OPTIONS, precision="bfloat16", capabilities=lambda: {"FP32"}))
    made.options = replace(made.options, capabilities=lambda: {"FP32", "BF16"})
    [version] = made.entry.versions
    assert made.cache.key(made.entry, version, made.options).name != made.key().name


def test_inputs_that_tensorflow_rejects_are_rejected(kept):
    function = kept(words()).find().engine.compile(("end",))
    with pytest.raises(InputRejected, match=r"is not in \[0, 10\)"):
        function.run({"ids": np.array([[0, 1, 10]], "int32")})


def test_rows_beyond_openvino_wait_for_tensorflow_and_get_its_numbers(kept):
    made = kept("iris")
    [name] = [item.name for item in made.opened.engine.spec.inputs]
    [path] = [item.path for item in made.opened.engine.spec.outputs]
    function = made.find().engine.compile((path,))
    odd = {name: np.array([[np.nan, 1, 2, 3], [1e30, 0, 0, 0]], "float32")}
    with pytest.raises(Deferred) as deferred:
        function.run(odd)
    assert made.late_loads == 0
    deferred.value.make()
    expected = made.opened.engine.tensorflow.compile((path,)).run(odd)[path]
    np.testing.assert_array_equal(function.run(odd)[path], expected)
    assert made.late_loads == 1


def test_another_file_in_its_place_serves_nothing(kept):
    made = kept("iris")
    engine = made.find().engine
    path = made.entry.versions[0].path
    shutil.copy(SHIPPED / "digits" / "1" / "model.h5", path)
    with pytest.raises(LoadError):
        engine.tensorflow.compile((engine.spec.outputs[0].path,))


def test_a_file_that_changed_while_it_was_loaded_is_not_kept(tmp_path):
    models = tmp_path / "models"
    shutil.copytree(SHIPPED / "iris", models / "iris")
    made = Kept(models, "iris", tmp_path / "vault")
    made.cache._vault.discard(made.key().name, "the test makes it again")
    before = made.key()
    with made.entry.versions[0].path.open("ab") as file:
        file.write(b"more")
    made.cache.keep(before, made.opened, made.key)
    assert list((tmp_path / "vault").iterdir()) == []


def test_a_model_that_tensorflow_serves_in_part_is_not_kept(tmp_path):
    keras.utils.set_random_seed(3)
    image = layers.Input((None, None, 3), name="image")  # OpenVINO would prepare itself for every size
    model = keras.Model(image, layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(image)))
    (tmp_path / "models" / "free").mkdir(parents=True)
    model.save(tmp_path / "models" / "free" / "model.h5")
    made = Kept(tmp_path / "models", "free", tmp_path / "vault")
    assert made.opened.engine.name == "tensorflow"
    assert made.find() is None


def test_a_found_model_is_let_go_of(kept):
    found = kept("pairs").find()
    function = found.engine.compile((found.engine.spec.layers[-1].path,))
    left = [weakref.ref(found.engine), weakref.ref(found.engine.tensorflow), weakref.ref(function)]
    del found, function
    gc.collect()
    assert [reference() for reference in left] == [None, None, None]
