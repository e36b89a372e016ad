"""The requests of TensorFlow Serving's own documentation, sent by curl as they stand there, to Keras models.

Sources: tensorflow_serving/g3doc/docker.md and api_rest.md. Replies are compared with the bytes that TensorFlow
Serving's code prints; api_rest.md shows the last bracket of `predictions` on the line before.
"""

import json
import subprocess

import keras
import numpy as np
import pytest
from serving import PATIENCE_S, serve

HALF_PLUS_TWO = b"""{
    "predictions": [2.5, 3.0, 4.5
    ]
}"""
HALF_PLUS_THREE = b"""{
    "predictions": [3.5, 4.0, 5.5
    ]
}"""
REGRESSED = b"""{
    "results": [3.5, 4.0]
}"""
STATUS = {
    "model_version_status": [
        {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]
}


def write(path, layer, row_shape):
    """y = layer(x) as a legacy .h5 file, the name of its input as in the documentation."""
    x = keras.Input(row_shape, name="x")
    model = keras.Model(x, layer(x))
    if layer.weights:
        layer.set_weights([np.array([[0.5]]), np.array([3.0])])
    path.parent.mkdir(parents=True)
    model.save(path)


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    models = tmp_path_factory.mktemp("half_plus")
    write(models / "half_plus_two/123/model.h5", keras.layers.Rescaling(0.5, 2.0, name="y"), ())
    write(models / "saved_model_half_plus_three/123/model.h5", keras.layers.Dense(1, name="y"), (1,))
    with serve(models) as service:
        yield service.until_ready().port


def curl(port, path, *options):
    """The status and the body."""
    command = ["curl", "-sS", "-w", "%{stderr}%{http_code}", *options, f"http://localhost:{port}{path}"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_S)
    return int(done.stderr), done.stdout


@pytest.mark.parametrize(
    ("model", "body", "reply"),
    [
        ("half_plus_two", '{"instances": [1.0, 2.0, 5.0]}', HALF_PLUS_TWO),
        ("saved_model_half_plus_three", '{"instances": [1.0,2.0,5.0]}', HALF_PLUS_THREE),
    ],
)
def test_predict(port, model, body, reply):
    assert curl(port, f"/v1/models/{model}:predict", "-d", body, "-X", "POST") == (200, reply)


def test_regress(port):
    body = '{"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}'
    path = "/v1/models/saved_model_half_plus_three:regress"
    assert curl(port, path, "-d", body, "-X", "POST") == (200, REGRESSED)


def test_status(port):
    status, body = curl(port, "/v1/models/saved_model_half_plus_three")
    assert status == 200
    document = json.loads(body)
    assert STATUS.items() <= document.items()
    assert (document["name"], document["ready"]) == ("saved_model_half_plus_three", True)


def test_an_unknown_model(port):
    status, body = curl(port, "/v1/models/half:predict", "-i", "-d", '{"instances": [1.0,5.0]}', "-X", "POST")
    head, _, body = body.partition(b"\r\n\r\n")
    assert status == 404
    assert b"content-type: application/json" in head.lower()
    assert json.loads(body) == {"error": "Servable not found for request: Latest(half)"}


def test_rows_with_their_lists_are_answered_with_lists(port):
    path = "/v1/models/saved_model_half_plus_three:predict"
    status, body = curl(port, path, "-d", '{"instances": [[1.0], [2.0]]}')
    assert (status, json.loads(body)) == (200, {"predictions": [[3.5], [4.0]]})
    status, body = curl(
        port, path, "-d", '{"signature_name": "serving_default", "inputs": {"x": [3.0, 4.0]}}'
    )
    assert (status, json.loads(body)) == (200, {"outputs": [4.5, 5.0]})
