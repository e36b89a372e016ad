"""What one model is asked to do holds up none of the others: code that blocks, and requests of very many rows."""

import shutil
import threading

import keras
import numpy as np
import odd_models
import pytest
from serving import MODELS, NPY, serve

HOLD = np.array([[odd_models.HOLD, 0.0]], "float32")
FREE = np.array([[1.0, 2.0]], "float32")
IRIS = np.array([[5.1, 3.5, 1.4, 0.2]], "float32")
DIGIT = np.zeros((1, 28, 28, 1), "float32")
MANY_ROWS = 400_000
ENOUGH = 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    for name in ("iris", "digits"):
        shutil.copytree(MODELS / name, models / name)
    odd_models.write_gate(models / "gate", "auto")
    x = pixels = keras.Input((None, None, 3), name="pixels")
    for filters in (16, 32, 32):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x)).save(models / "free.h5")
    return models


@pytest.fixture(scope="module")
def gate(folder):
    return odd_models.Gate(folder / "gate")


@pytest.fixture(scope="module")
def service(folder):
    with serve(folder) as running:
        yield running.until_ready()


def ask_aside(service, path, rows):
    """Sends a request on a thread of its own; returns the thread and a list that gets the answer."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(service.post_rows(path, rows, NPY)))
    thread.start()
    return thread, answers


def test_code_that_blocks_holds_up_its_own_model_alone(service, gate):
    with gate.shut():
        thread, answers = ask_aside(service, "/predict?model=gate", HOLD)
        service.until(gate.entered, "code that blocks")
        for _ in range(ENOUGH):
            assert service.post_rows("/predict?model=iris", IRIS).json["classes"] == ["setosa"]
            assert service.post_rows("/predict?model=digits", DIGIT).status == 200
        behind = service.post_rows("/predict?model=gate&timeout_ms=100", FREE)
        assert behind.status in (429, 504)
        assert service.get("/readyz").status == 200
        assert thread.is_alive()
    thread.join()
    assert answers[0].npy.tolist() == (2 * HOLD).tolist()
    assert service.post_rows("/predict?model=gate", FREE, NPY).npy.tolist() == (2 * FREE).tolist()


def test_a_request_of_very_many_rows_holds_up_no_other_model(service):
    rows = np.tile(IRIS, (MANY_ROWS, 1))
    thread, answers = ask_aside(service, "/predict?model=iris", rows)
    service.until(lambda: service.metric("layertap_queue_rows") > 1024 or not thread.is_alive(), "its rows")
    beside = 0
    while thread.is_alive():
        assert service.post_rows("/predict?model=digits", DIGIT).status == 200
        beside += 1
    thread.join()
    assert beside > 0
    assert answers[0].npy.shape == (MANY_ROWS, 3)


def test_a_row_that_takes_long_by_its_size_holds_up_no_other_model(service):
    thread, answers = ask_aside(service, "/predict?model=free", np.zeros((1, 1500, 1500, 3), "float32"))
    service.until(
        lambda: service.metric("layertap_memory_bytes") > 2**28 or not thread.is_alive(), "its work"
    )
    beside = 0
    while thread.is_alive():
        assert service.post_rows("/predict?model=digits", DIGIT).status == 200
        beside += 1
    thread.join()
    assert answers[0].status == 200, answers[0].body
    assert beside >= 5  # one, and then the next, where they wait for it


def test_shared_on_demand(folder, tmp_path):
    """`engine_thread = "shared"` is obeyed: the others wait then, and the gate shows it."""
    models = tmp_path / "models"
    shutil.copytree(folder, models)
    (models / "gate" / "model.toml").write_text('engine_thread = "shared"\n')
    own = odd_models.Gate(models / "gate")
    with serve(models) as service:
        service.until_ready()
        with own.shut():
            thread, answers = ask_aside(service, "/predict?model=gate", HOLD)
            service.until(own.entered, "code that blocks")
            assert service.post_rows("/predict?model=digits&timeout_ms=300", DIGIT).status in (429, 504)
        thread.join()
        assert answers[0].status == 200
        assert service.post_rows("/predict?model=digits", DIGIT).status == 200


def test_the_end_does_not_wait_for_code_that_blocks(folder, gate):
    with serve(folder, request_timeout_ms=1000) as service:
        service.until_ready()
        with gate.shut():
            thread, answers = ask_aside(service, "/predict?model=gate", HOLD)
            service.until(gate.entered, "code that blocks")
            thread.join()
            assert answers[0].status == 504
            service.terminate()
            assert service.exit_code() == 0
