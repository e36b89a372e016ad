"""KServe's own SDK, for its V1 protocol and for V2, against the running service.

Its dependencies need an older protobuf than TensorFlow here has, so it lives in an environment of its own, made on
the first run.
"""

import fcntl
import json
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest
from kserve_client_rows import DIGIT, ROWS
from serving import ROOT

KSERVE = "kserve==0.21.0"
HOME = ROOT / ".cache/venvs" / KSERVE.replace("==", "-")
NPY = "application/x-npy"


@pytest.fixture(scope="module")
def python():
    """The interpreter of an environment that has the SDK."""
    python, complete = HOME / "bin/python", HOME / "complete"
    HOME.parent.mkdir(parents=True, exist_ok=True)
    with HOME.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs of the tests at once must not make it at once
        if not complete.exists():
            venv.create(HOME, with_pip=True, clear=True)
            install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", KSERVE]
            done = subprocess.run(install, capture_output=True, text=True, timeout=600, check=False)
            if done.returncode:
                pytest.skip(f"needs pip install {KSERVE}, which failed: {done.stderr[-300:]}")
            complete.touch()
    return python


@pytest.fixture(scope="module")
def answers(python, administered):
    """What the SDK made of the service's replies."""
    script = Path(__file__).with_name("kserve_client.py")
    command = [python, script, f"http://127.0.0.1:{administered.port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def species(administered):
    """What the native API answers to the same rows, sent alone."""
    return administered.post_rows("/predict?model=iris", ROWS, NPY).npy


@pytest.fixture(scope="module")
def pool(administered):
    return administered.post_rows("/features?model=digits&layer=pool", DIGIT, NPY).npy


def floats(lists):
    return np.array(lists, np.float32)


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_life_and_readiness(answers, protocol):
    told = answers[protocol]
    assert (told["live"], told["ready"], told["broken ready"]) == (True, True, False)
    assert answers["v2"]["server ready"] is True


def test_v1_rows_columns_and_layers(answers, species, pool):
    told = answers["v1"]
    assert np.array_equal(floats(told["rows"]["predictions"]), species)
    assert np.array_equal(floats(told["columns"]["outputs"]), species)
    assert np.array_equal(floats(told["layer"]["predictions"]), pool)


@pytest.mark.parametrize(
    ("question", "status", "words"),
    [
        ("unknown ready", 404, "Could not find any versions of model irs"),
        ("unknown", 404, "Servable not found for request: Latest(irs)"),
        ("bad", 400, "Expected"),
        ("explain", 501, ":explain"),
    ],
)
def test_v1_errors_are_told_in_words(answers, question, status, words):
    found, message = answers["v1"][question]
    assert (found, words in message) == (status, True), message


@pytest.mark.parametrize("question", ["False False", "False True", "True False", "True True", "as a dict"])
def test_v2_in_json_and_binary(answers, species, question):
    told = answers["v2"][question]
    assert (told["model"], told["id"]) == ("iris", "mine")
    assert np.array_equal(floats(told["outputs"]["species"]), species)


def test_v2_layers(answers, administered, pool):
    told = answers["v2"]["layers"]["outputs"]
    predictions = administered.post_rows("/predict?model=digits", DIGIT, NPY).npy
    assert np.array_equal(floats(told["predictions"]), predictions)
    assert np.array_equal(floats(told["pool"]), pool)


def test_v2_errors_are_told_in_words(answers):
    status, message = answers["v2"]["unknown"]
    assert (status, "Did you mean 'iris'?" in message) == (404, True), message
