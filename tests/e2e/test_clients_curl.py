"""curl, one command for each way into each dialect; what comes back is what the native API says of the same rows."""

import gzip
import json
import subprocess

import numpy as np
import pytest
from PIL import Image
from serving import MODELS, PATIENCE_S

ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], np.float32)
LISTED = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
SEVEN = MODELS / "digits/examples/7.png"
LENGTH = "Inference-Header-Content-Length"
INPUT = {"name": "measurements", "shape": [2, 4], "datatype": "FP32"}


def curl(service, path, *options, body=b""):
    """The body of a 200."""
    command = ["curl", "-sS", "--fail-with-body", *options, f"http://localhost:{service.port}{path}"]
    done = subprocess.run(command, input=body, capture_output=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def species(shipped):
    return shipped.post_rows("/predict?model=iris", ROWS, "application/x-npy").npy


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("/predict?model=iris", {"instances": LISTED}, "predictions"),
        ("/predict?model=iris", {"inputs": {"measurements": LISTED}}, "predictions"),
        ("/v1/models/iris:predict", {"instances": LISTED}, "predictions"),
        ("/v1/models/iris/versions/1:predict", {"inputs": LISTED}, "outputs"),
    ],
)
def test_rows_as_json(shipped, species, path, body, key):
    answer = json.loads(curl(shipped, path, "-d", json.dumps(body)))
    assert np.array_equal(np.array(answer[key], np.float32), species)


@pytest.mark.parametrize("packed", [False, True])
def test_v2_as_json(shipped, species, packed):
    body = json.dumps({"inputs": [{**INPUT, "data": LISTED}]}).encode()
    options = ["--compressed", "-H", "Content-Encoding: gzip"] if packed else []
    sent = gzip.compress(body) if packed else body
    answer = curl(shipped, "/v2/models/iris/infer", "--data-binary", "@-", *options, body=sent)
    (output,) = json.loads(answer)["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("species", "FP32", [2, 3])
    assert np.array_equal(np.array(output["data"], np.float32).reshape(2, 3), species)


def test_v2_as_binary(shipped, species):
    head = {
        "inputs": [{**INPUT, "parameters": {"binary_data_size": ROWS.nbytes}}],
        "outputs": [{"name": "species", "parameters": {"binary_data": True}}],
    }
    text = json.dumps(head).encode()
    options = ["--data-binary", "@-", "-H", f"{LENGTH}: {len(text)}"]
    answer = curl(shipped, "/v2/models/iris/infer", *options, body=text + ROWS.tobytes())
    assert answer.endswith(species.tobytes())
    assert json.loads(answer[: -species.nbytes])["outputs"][0]["parameters"] == {
        "binary_data_size": species.nbytes
    }


@pytest.mark.parametrize("name", ["7.png", "7.jpg"])
def test_a_picture_in_every_dialect(shipped, tmp_path, name):
    picture = tmp_path / name
    Image.open(SEVEN).save(picture)
    expected = curl(
        shipped, "/predict?model=digits", "-F", f"file=@{picture}", "-H", "Accept: application/x-npy"
    )
    numbers = expected[-40:]  # ten float32 behind the npy head
    raw = ["--data-binary", f"@{picture}", "-H", f"{LENGTH}: 0"]
    assert curl(shipped, "/v2/models/digits/infer", *raw).endswith(numbers)
    coded = subprocess.run(["base64", "-w0", picture], capture_output=True, check=True).stdout.decode()
    body = json.dumps({"instances": [{"b64": coded}]})
    answer = json.loads(curl(shipped, "/v1/models/digits:predict", "-d", "@-", body=body.encode()))
    assert np.array(answer["predictions"], np.float32).tobytes() == numbers


def test_a_hidden_layer_in_every_dialect(shipped):
    row = np.eye(28).reshape(1, 28, 28, 1).tolist()
    native = curl(shipped, "/features?model=digits&layer=pool", "-d", "@-", body=_text(instances=row))
    expected = np.array(json.loads(native)["features"]["pool"], np.float32)
    v1_body = _text(instances=row, signature_name="layer:pool")
    v1 = json.loads(curl(shipped, "/v1/models/digits:predict", "-d", "@-", body=v1_body))
    assert np.array_equal(np.array(v1["predictions"], np.float32), expected)
    image = {"name": "image", "shape": [1, 28, 28, 1], "datatype": "FP32", "data": row}
    v2_body = _text(inputs=[image], outputs=[{"name": "pool"}])
    (output,) = json.loads(curl(shipped, "/v2/models/digits/infer", "-d", "@-", body=v2_body))["outputs"]
    assert np.array_equal(np.array(output["data"], np.float32).reshape(output["shape"]), expected)


def _text(**document):
    return json.dumps(document).encode()
