"""Running services that several tests share; starting one takes seconds, most of them TensorFlow's."""

import shutil
from types import SimpleNamespace

import keras_references
import odd_models
import pytest
from serving import MODELS, serve


@pytest.fixture(scope="session")
def shipped():
    """The models that ship, with the settings that ship."""
    with serve() as service:
        yield service.until_ready()


@pytest.fixture(scope="session")
def administered(tmp_path_factory):
    """Copies of the models that ship, and a broken one; clients may load and unload them, and put them back."""
    models = tmp_path_factory.mktemp("administered")
    shutil.copytree(MODELS, models, dirs_exist_ok=True)
    (models / "broken.h5").write_bytes(b"no HDF5")
    with serve(models, admin="true") as service:
        yield service.until_ready()


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    """One service over models of every odd kind, good ones and bad ones.

    Its models by name where a test needs to know what Keras would answer, and the gate of `gate`.
    """
    models = tmp_path_factory.mktemp("zoo")
    gate = odd_models.write_gate(models / "gate")
    references = {
        "words": odd_models.write_words(models / "words"),
        "weights_only": odd_models.write_weights_only(models / "weights_only"),
        "mobilenet": odd_models.write_mobilenet(models / "mobilenet"),
    }
    odd_models.write_lambda(models / "lambda_refused", allowed=False)
    odd_models.write_lambda(models / "lambda_allowed", allowed=True)
    odd_models.write_digits_with_unknown_metric(models / "digits_unknown_metric", defined=False)
    odd_models.write_digits_with_unknown_metric(models / "digits_known_metric", defined=True)
    with serve(models, default_model="gate") as service:
        yield SimpleNamespace(service=service.until_ready(), gate=gate, references=references, models=models)


@pytest.fixture(scope="session")
def shipped_models():
    """The shipped models as Keras loads them, by name."""
    return {name: keras_references.shipped(name) for name in ("digits", "iris", "pairs")}
