"""Code that a model brings, when it misbehaves: it is that model's failure, told and logged, and nobody else's."""

import json

import keras
import numpy as np
import odd_models
import pytest
from serving import NPY, serve

ROWS = np.array([[1, 2]], "float32")

_QUITS = """
import sys
import keras

class Odd(keras.layers.Layer):
    def call(self, rows):
        sys.exit(3)

    def compute_output_shape(self, input_shape):
        return input_shape
"""

_RAISES = """
import keras
import tensorflow as tf

def judge(rows):
    if (rows.numpy() < -1e6).any():
        raise ValueError("no number may be below a million, says the layer")
    return rows

class Odd(keras.layers.Layer):
    def call(self, rows):
        judged = tf.py_function(judge, [rows], rows.dtype)
        judged.set_shape(rows.shape)
        return judged

    def compute_output_shape(self, input_shape):
        return input_shape
"""


def write(folder, source):
    folder.mkdir()
    (folder / "custom_objects.py").write_text(source)
    scope = {"__name__": f"{folder.name}_objects"}
    exec(source, scope)  # noqa: S102 the text above
    inputs = keras.Input((2,), name="rows")
    keras.Model(inputs, scope["Odd"](name="odd")(inputs)).save(folder / "model.h5")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    write(models / "a-quits", _QUITS)
    write(models / "raises", _RAISES)
    odd_models.copy_shipped("iris", models)
    with serve(models, admin=True, cache_dir="") as running:
        yield running.until_ready()


def test_a_layer_that_exits_fails_its_own_model_and_says_so(service):
    document = service.get("/models/a-quits").json
    assert document["state"] == "failed"
    assert "SystemExit" in json.dumps(document["errors"])
    assert "a-quits" in service.until_logged("SystemExit")
    again = service.post("/v2/repository/models/a-quits/load", "{}")
    assert "SystemExit" in again.body.decode()
    assert again.status in {400, 503}
    assert service.get("/models/iris").json["state"] == "ready"


def test_a_value_error_of_a_layer_is_the_models_failure_and_logged_with_the_requests(service):
    reply = service.post_rows("/predict?model=raises", np.float32(-1e7) * ROWS)
    assert (reply.status, reply.json["code"]) == (500, "inference_failed")
    assert "below a million" not in reply.body.decode()
    assert service.until_logged(reply.headers["x-request-id"])
    told = [record for record in service.records if "no number may be below a million" in json.dumps(record)]
    assert [record["request_ids"] for record in told] == [[reply.headers["x-request-id"]]]
    assert "Traceback" in told[0]["exception"]
    np.testing.assert_array_equal(service.post_rows("/predict?model=raises", ROWS, NPY).npy, ROWS)
