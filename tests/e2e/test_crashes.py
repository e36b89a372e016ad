"""Files that end the process which loads or computes them: the service lives, and serves the others."""

import json
import signal

import keras
import numpy as np
import odd_models
import pytest
from serving import serve

IRIS = np.array([[5.1, 3.5, 1.4, 0.2]], "float32")
ROWS = np.array([[1, 2]], "float32")
DEADLY = np.array([[6666, 0]], "float32")

_ENDS = {
    "exit code 3": "os._exit(3)",
    "exit code 4": "os._exit(4)",
    "SIGSEGV": "os.kill(os.getpid(), signal.SIGSEGV)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",  # as the system's killer for want of memory
}

_AT_LOAD = """
import os
import signal
{end}
"""

_AT_CALL = """
import os
import keras
import tensorflow as tf


def end(rows):
    if (rows.numpy() == 6666).any():
        os._exit(3)
    return rows


class Deadly(keras.layers.Layer):
    def call(self, rows):
        seen = tf.py_function(end, [rows], rows.dtype)
        seen.set_shape(rows.shape)
        return seen

    def compute_output_shape(self, input_shape):
        return input_shape
"""


def write(folder, source):
    folder.mkdir()
    inputs = keras.Input((2,), name="rows")
    keras.Model(inputs, keras.layers.Rescaling(2.0)(inputs)).save(folder / "model.h5")
    (folder / "custom_objects.py").write_text(source)


def write_deadly(folder):
    folder.mkdir()
    (folder / "custom_objects.py").write_text(_AT_CALL)
    scope = {"__name__": "deadly_objects"}
    exec(_AT_CALL, scope)  # noqa: S102 the text above
    inputs = keras.Input((2,), name="rows")
    keras.Model(inputs, scope["Deadly"](name="deadly")(inputs)).save(folder / "model.h5")


def states(service):
    return service.get("/readyz").json["models"]


@pytest.mark.parametrize(
    "how",
    [
        "exit code 3",
        "SIGKILL",
        *(pytest.param(how, marks=pytest.mark.slow) for how in ("exit code 4", "SIGSEGV")),
    ],
)
def test_a_file_that_ends_its_process_at_load_is_refused_and_the_others_are_served(tmp_path, how):
    odd_models.copy_shipped("iris", tmp_path)
    write(tmp_path / "a-deadly", _AT_LOAD.format(end=_ENDS[how]))
    with serve(tmp_path, default_model="iris", admin=True) as service:
        service.until_ready()
        assert states(service) == {"a-deadly": "failed", "iris": "ready"}
        assert service.post_rows("/predict", IRIS).json["labels"] == [0]
        told = json.dumps(service.get("/models/a-deadly").json)
        assert "ended the process" in told
        assert how in told
        assert "'a-deadly' version 1" in service.until_logged("ended unasked")
        workers = service.workers()
        again = service.post("/v2/repository/models/a-deadly/load", "{}")
        assert "ended the process" in again.body.decode()
        (tmp_path / "a-deadly" / "custom_objects.py").write_text("")
        mended = service.post("/v2/repository/models/a-deadly/load", "{}")
        assert mended.status == 200, mended.body
        assert service.post_rows("/predict?model=a-deadly", ROWS).status == 200
        assert service.workers() == workers


def test_a_reload_that_ends_its_process_leaves_what_is_served(tmp_path, tmp_path_factory):
    odd_models.copy_shipped("iris", tmp_path)
    with serve(tmp_path, default_model="iris", cache_dir=tmp_path_factory.mktemp("cache")) as service:
        service.until_ready()
        workers = service.workers()
        write(tmp_path / "a-deadly", _AT_LOAD.format(end="os._exit(3)"))
        service.process.send_signal(signal.SIGHUP)
        assert "'a-deadly' version 1" in service.until_logged("the reload is given up")
        service.until(lambda: service.workers() == workers, "the old worker alone")
        assert states(service) == {"iris": "ready"}
        assert service.post_rows("/predict", IRIS).status == 200


@pytest.mark.slow
def test_what_ended_a_process_is_tried_again_by_the_next_service(tmp_path):
    odd_models.copy_shipped("iris", tmp_path)
    write(tmp_path / "a-deadly", _AT_LOAD.format(end="os._exit(3)"))
    for _ in range(2):
        with serve(tmp_path, default_model="iris") as service:
            service.until_ready()
            service.until_logged("ended unasked")


def test_a_layer_that_ends_its_process_while_it_computes_costs_one_worker(tmp_path):
    odd_models.copy_shipped("iris", tmp_path)
    write_deadly(tmp_path / "deadly")
    with serve(tmp_path, default_model="iris") as service:
        service.until_ready()
        assert service.post_rows("/predict?model=deadly", ROWS).status == 200
        [worker] = service.workers()
        with pytest.raises(OSError):
            service.post_rows("/predict?model=deadly", DEADLY)
        service.until(lambda: service.workers() not in ([], [worker]), "another worker")
        service.until_ready()
        assert service.post_rows("/predict", IRIS).status == 200
        assert states(service) == {"deadly": "ready", "iris": "ready"}
        assert "exit code 3" in service.until_logged("ended unasked")
        assert service.metric("layertap_lost_workers") == 1
        with pytest.raises(OSError):
            service.post_rows("/predict?model=deadly", DEADLY)
        service.until_logged("number 2 within a minute")
        service.until_ready()


def test_a_service_that_cannot_start_says_so_and_ends(tmp_path):
    with serve(tmp_path / "nowhere") as service:
        assert service.exit_code() == 3
