"""Models of integers behind the real server, at its first start and at its second, read by NVIDIA's client and as JSON."""

import json

import keras
import numpy as np
import pytest
import tritonclient.http as triton
from keras import layers
from serving import NPY, PATIENCE_S, serve

LARGEST = 2**64 - 1


def write(folder, inputs, outputs):
    folder.mkdir(parents=True)
    keras.Model(inputs, outputs).save(folder / "model.h5")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("integers")
    left, right = (keras.Input((4,), dtype="int32", name=name) for name in ("left", "right"))
    write(folder / "sum", [left, right], layers.Add(name="total")([left, right]))
    image = keras.Input((2, 2, 1), dtype="uint8", name="image")
    write(folder / "padded", image, layers.ZeroPadding2D(1, name="frame")(image))
    ids = keras.Input((2,), dtype="uint64", name="ids")
    write(folder / "twice", ids, layers.Concatenate(name="both")([ids, ids]))
    return folder


@pytest.fixture(scope="module", params=["file", "cache"])
def service(request, models, tmp_path_factory):
    cache = tmp_path_factory.getbasetemp() / "integers-cache"
    if request.param == "cache" and not cache.exists():
        with serve(models, cache_dir=cache, default_model="sum") as service:
            service.until_ready()
    with serve(models, cache_dir=cache, default_model="sum") as service:
        service.until_ready()
        assert service.get("/models/padded").json["opened_from"] == request.param
        yield service


@pytest.fixture
def client(service):
    with triton.InferenceServerClient(f"127.0.0.1:{service.port}", network_timeout=PATIENCE_S) as client:
        yield client


def tensor(name, values, datatype):
    return triton.InferInput(name, list(values.shape), datatype).set_data_from_numpy(values)


@pytest.mark.parametrize("binary", [True, False])
def test_a_sum_of_integers_is_one(client, binary):
    numbers = np.array([[1, 2, 3, 4]], "int32")
    wanted = [triton.InferRequestedOutput("total", binary_data=binary)]
    sent = [tensor(name, numbers, "INT32") for name in ("left", "right")]
    answer = client.infer("sum", sent, outputs=wanted)
    assert answer.get_output("total")["datatype"] == "INT32"
    got = answer.as_numpy("total")
    assert (got.dtype, got.tolist()) == (np.int32, [[2, 4, 6, 8]])
    assert client.get_model_metadata("sum")["outputs"] == [
        {"name": "total", "datatype": "INT32", "shape": [-1, 4]}
    ]


@pytest.mark.parametrize("binary", [True, False])
def test_a_padded_picture_of_bytes_can_be_read(client, binary):
    image = np.array([[[[255], [1]], [[2], [3]]]], "uint8")
    wanted = [triton.InferRequestedOutput("frame", binary_data=binary)]
    got = client.infer("padded", [tensor("image", image, "UINT8")], outputs=wanted).as_numpy("frame")
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, np.pad(image, [(0, 0), (1, 1), (1, 1), (0, 0)]))


def test_the_native_api_says_and_gives_the_same(service):
    listed = service.get("/models/padded/layers").json["layers"]
    assert {layer["name"]: layer["dtype"] for layer in listed} == {"image": "uint8", "frame": "uint8"}
    got = service.post_rows("/predict?model=padded", np.ones((1, 2, 2, 1), "uint8"), NPY).npy
    assert (got.dtype, got.sum()) == (np.uint8, 4)


def test_whole_numbers_of_64_bits_come_back_with_all_digits(service):
    rows = f"[[{LARGEST}, 1]]"
    v2 = f'{{"inputs": [{{"name": "ids", "datatype": "UINT64", "shape": [1, 2], "data": {rows}}}]}}'
    for path, body in {
        "/predict?model=twice": f'{{"instances": {rows}}}',
        "/v1/models/twice:predict": f'{{"inputs": {rows}}}',
        "/v2/models/twice/infer": v2,
    }.items():
        answer = service.post(path, body.encode())
        assert answer.status == 200, answer.body
        document = json.loads(answer.body)
        found = document.get("predictions", document.get("outputs"))
        assert found == [[LARGEST, 1] * 2] or found[0]["data"] == [LARGEST, 1] * 2
        refused = service.post(path, body.replace(f"{LARGEST}", f"{LARGEST + 1}").encode())
        assert refused.status == 400
        assert f"whole numbers from 0 to {LARGEST}" in refused.body.decode()
