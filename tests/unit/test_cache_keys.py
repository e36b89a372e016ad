"""Whatever an entry was worked out from changes its key; what is only said or warmed does not."""

import dataclasses
import os

import pytest

from service.cache import keys
from service.cache.keys import against_keeping, model_key
from service.model_config import ModelConfig
from service.repository import scan

SETTINGS = {"precision": "float32", "threads": 2}


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    (folder / "digits" / "1").mkdir(parents=True)
    (folder / "digits" / "1" / "model.h5").write_bytes(b"weights")
    (folder / "digits" / "custom_objects.py").write_text("import keras, json\nfrom numpy import linalg\n")
    (folder / "bare.h5").write_bytes(b"weights")
    return folder


def entry_in(models, name="digits"):
    return next(entry for entry in scan(models) if entry.name == name)


def key_of(models, settings=None, name="digits", **config):
    entry = entry_in(models, name)
    entry = dataclasses.replace(entry, config=dataclasses.replace(entry.config, **config))
    return model_key(entry, entry.versions[0], settings or SETTINGS)


def test_the_same_is_the_same_wherever_it_lies(models, tmp_path):
    before = key_of(models)
    assert key_of(models) == before
    os.utime(models / "digits" / "1" / "model.h5")
    assert key_of(models) == before
    assert key_of(models.rename(tmp_path / "moved")) == before


@pytest.mark.parametrize(
    "file", ["1/model.h5", "custom_objects.py", "1/golden.npz", "golden.npz", "model.json", "layers.py"]
)
def test_a_file_that_changes_or_comes_changes_the_key(models, file):
    before = key_of(models)
    (models / "digits" / file).write_bytes(b"other")
    after = key_of(models)
    assert after.name != before.name
    assert (after.sha256 != before.sha256) == (file == "1/model.h5")


def test_bare_files_depend_on_what_lies_beside_them_under_their_name(models):
    before = key_of(models, name="bare")
    (models / "unrelated.h5").write_bytes(b"other")
    assert key_of(models, name="bare") == before
    (models / "custom_objects.py").write_text("import keras\n")
    assert key_of(models, name="bare") != before


OTHERS = {
    "engine": "openvino",
    "precision": "bfloat16",
    "max_batch_size": 7,
    "custom_objects": ("other.py",),
    "loader": "keras3",
    "compile": True,
    "architecture": "model.json",
    "kernels": "theano",
    "allow_lambda": "sha256:00",
}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(ModelConfig)])
def test_every_setting_of_a_model_matters_or_is_known_not_to(models, field):
    """A setting that is added must be listed here or in `_OF_NO_MATTER`."""
    if field in keys._OF_NO_MATTER:
        assert field not in OTHERS
    else:
        assert key_of(models, **{field: OTHERS[field]}).name != key_of(models).name


@pytest.mark.parametrize("settings", [{**SETTINGS, "threads": 3}, {**SETTINGS, "precision": "bfloat16"}])
def test_the_services_settings_matter(models, settings):
    assert key_of(models, settings).name != key_of(models).name


@pytest.fixture
def anew():
    """Has the environment looked at again: by the test when it calls it, and by whoever comes after the test."""
    yield keys._environment.cache_clear
    keys._environment.cache_clear()


@pytest.mark.parametrize("what", ["_processor", "_packages"])
def test_another_processor_or_package_is_another_key(models, monkeypatch, anew, what):
    before = key_of(models)
    monkeypatch.setattr(keys, what, lambda: ["something else"])
    anew()
    assert key_of(models).name != before.name


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS"])
def test_a_processor_that_is_held_back_is_another_key(models, monkeypatch, anew, name):
    before = key_of(models)
    monkeypatch.setenv(name, "0")
    anew()
    assert key_of(models).name != before.name


def test_packages_and_the_service_itself_are_in_the_key():
    told = keys._environment()
    assert any(name.startswith("openvino-") for name in told["packages"])
    assert any(name.startswith("keras-") for name in told["packages"])
    assert "engines/openvino.py" in told["service"]
    assert any("flags" in line or "Features" in line for line in told["processor"])


def test_models_with_code_of_their_own_files_may_be_kept(models):
    assert against_keeping(entry_in(models)) is None
    assert against_keeping(entry_in(models, "bare")) is None


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"allow_lambda": "sha256:00"}, "Lambda layers run code"),
        ({"architecture": "builder:get_model"}, "a function builds it"),
        ({"custom_objects": ("package.module:Layer",)}, "installed packages: package.module:Layer"),
    ],
)
def test_models_with_other_code_are_not_kept(models, config, reason):
    entry = entry_in(models)
    entry = dataclasses.replace(entry, config=dataclasses.replace(entry.config, **config))
    assert reason in against_keeping(entry)


@pytest.mark.parametrize(
    ("code", "module"),
    [
        ("import service.payloads.codecs", "service"),
        ("from . import layers", "."),
        ("def late():\n    from nowhere.at import all\n", "nowhere"),
        ("this is no Python", "something that cannot be told"),
    ],
)
def test_code_that_imports_from_elsewhere_is_not_kept(models, code, module):
    (models / "digits" / "custom_objects.py").write_text(code)
    assert f"custom_objects.py imports {module}" in against_keeping(entry_in(models))
