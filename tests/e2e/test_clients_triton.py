"""NVIDIA's own client, tritonclient[http], synchronous and asyncio, against the running service.

What it must get is what the native API answers to the same rows, sent alone: the same bits.
"""

import asyncio
import gc
import inspect
import io

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from PIL import Image
from serving import MODELS, PATIENCE_S
from tritonclient.utils import InferenceServerException

# After an error the asyncio client never lets go of its connection; it is closed when it is collected, with a warning.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")

ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], np.float32)
INK = np.random.default_rng(0).integers(0, 17, (2, 3, 8, 8)).astype(np.float32)
SEVEN = (MODELS / "digits/examples/7.png").read_bytes()
CLASSES = ["setosa", "versicolor", "virginica"]
EXTENSIONS = {
    "binary_tensor_data", "classification", "model_configuration", "model_repository",
    "model_repository(unload_dependents)", "parameters", "schedule_policy", "statistics",
}  # fmt: skip


class Asyncio:
    """The asyncio client, each call run to its end."""

    def __init__(self, url):
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._open(url))

    async def _open(self, url):
        return triton_aio.InferenceServerClient(url, conn_timeout=PATIENCE_S)

    def __getattr__(self, name):
        method = getattr(self._client, name)
        if not inspect.iscoroutinefunction(method):
            return method
        return lambda *given, **named: self._runner.run(method(*given, **named))

    def close(self):
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture(scope="module", params=["sync", "asyncio"])
def client(request, administered):
    url = f"127.0.0.1:{administered.port}"
    client = (
        Asyncio(url)
        if request.param == "asyncio"
        else triton.InferenceServerClient(url, network_timeout=PATIENCE_S, concurrency=4)
    )
    yield client
    client.close()
    del client
    gc.collect()  # here, where the warning is passed over


def tensor(name, values, datatype="FP32", **how):
    sent = triton.InferInput(name, list(values.shape), datatype)
    return sent.set_data_from_numpy(values, **how)


def iris(**how):
    return [tensor("measurements", ROWS, **how)]


def pairs(**how):
    return [tensor("left", INK[0], **how), tensor("right", INK[1], **how)]


def pictures(*files):
    return [tensor("image", np.array(files, dtype=object), "BYTES")]


def as_jpeg(picture):
    file = io.BytesIO()
    Image.open(io.BytesIO(picture)).save(file, "JPEG")
    return file.getvalue()


def wanted(*names, **how):
    return [triton.InferRequestedOutput(name, **how) for name in names]


# -- inference --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent_binary", [True, False])
@pytest.mark.parametrize("asked_binary", [True, False, None])
def test_rows_in_json_and_binary(client, administered, sent_binary, asked_binary):
    outputs = None if asked_binary is None else wanted("species", binary_data=asked_binary)
    result = client.infer("iris", iris(binary_data=sent_binary), outputs=outputs)
    expected = administered.post_rows("/predict?model=iris", ROWS, "application/x-npy").npy
    assert np.array_equal(result.as_numpy("species"), expected)
    assert result.as_numpy("species").dtype == np.float32
    assert ("data" in result.get_output("species")) == (asked_binary is False)
    assert (result.get_response()["model_name"], result.get_response()["model_version"]) == ("iris", "1")


def test_several_inputs_and_outputs_some_of_each_kind(client, administered):
    inputs = [tensor("right", INK[1], binary_data=False), tensor("left", INK[0])]
    outputs = [*wanted("same", binary_data=False), *wanted("sum")]
    result = client.infer("pairs", inputs, model_version="1", outputs=outputs)
    expected = administered.post_rows(
        "/predict?model=pairs", {"left": INK[0], "right": INK[1]}, "application/x-npz"
    )
    assert [output["name"] for output in result.get_response()["outputs"]] == ["same", "sum"]
    for name, array in expected.npz.items():
        assert np.array_equal(result.as_numpy(name), array)


def test_hidden_layers_are_outputs(client, administered):
    result = client.infer("pairs", pairs(), outputs=wanted("base/product", "code:1", "same"))
    rows = {"left": INK[0], "right": INK[1]}
    path = "/features?model=pairs&layer=base/product&layer=code:1&include=predictions"
    expected = administered.post_rows(path, rows, "application/x-npz").npz
    for name in ("base/product", "code:1", "same"):
        assert np.array_equal(result.as_numpy(name), expected[name])


@pytest.mark.parametrize("picture", [SEVEN, as_jpeg(SEVEN)], ids=["PNG", "JPEG"])
def test_pictures_as_bytes(client, administered, picture):
    result = client.infer("digits", pictures(picture, SEVEN), outputs=wanted("predictions", "pool"))
    alone = client.infer("digits", pictures(picture), outputs=wanted("predictions", "pool"))
    expected = administered.post("/predict?model=digits", picture, "image/*", "application/x-npy").npy
    assert np.array_equal(alone.as_numpy("predictions"), expected)
    assert result.as_numpy("predictions").shape == (2, 10)
    assert result.as_numpy("pool").shape[1:] == alone.as_numpy("pool").shape[1:]


def test_the_best_classes(client):
    outputs = [*wanted("species", class_count=2)]
    result = client.infer("iris", iris(), outputs=outputs)
    plain = client.infer("iris", iris()).as_numpy("species")
    told = result.as_numpy("species")
    assert told.shape == (2, 2)
    for row, scores in zip(told, plain, strict=True):
        best = np.argsort(-scores)[:2]
        found = [text.decode().split(":") for text in row]
        assert [int(index) for _, index, _ in found] == list(best)
        assert [label for _, _, label in found] == [CLASSES[index] for index in best]
        assert [np.float32(score) for score, _, _ in found] == list(scores[best])


@pytest.mark.parametrize("up", [None, "gzip", "deflate"])
@pytest.mark.parametrize("down", [None, "gzip", "deflate"])
def test_compression_both_ways(client, up, down):
    rows = np.tile(ROWS, (200, 1))
    packed = {"request_compression_algorithm": up, "response_compression_algorithm": down}
    result = client.infer("iris", [tensor("measurements", rows)], **packed)
    assert result.as_numpy("species").shape == (400, 3)
    json_result = client.infer(
        "iris",
        [tensor("measurements", rows, binary_data=False)],
        outputs=wanted("species", binary_data=False),
        **packed,
    )
    assert np.array_equal(json_result.as_numpy("species"), result.as_numpy("species"))


def test_ids_priorities_timeouts_and_parameters(client):
    result = client.infer(
        "iris", iris(), request_id="mine-1", priority=1, timeout=30_000_000, parameters={"note": "anything"}
    )
    assert result.get_response()["id"] == "mine-1"
    assert result.as_numpy("species").shape == (2, 3)


def test_requests_that_the_client_makes_and_reads_by_itself(client, administered):
    body, size = client.generate_request_body(iris(), outputs=wanted("species"))
    headers = {"Inference-Header-Content-Length": str(size), "Content-Type": "application/octet-stream"}
    with administered.connect() as connection:
        answer = connection.ask("POST", "/v2/models/iris/infer", body, headers)
    length = int(answer.headers["inference-header-content-length"])
    result = client.parse_response_body(answer.body, header_length=length)
    assert np.array_equal(result.as_numpy("species"), client.infer("iris", iris()).as_numpy("species"))


def test_many_at_once(administered):
    with triton.InferenceServerClient(f"127.0.0.1:{administered.port}", concurrency=8) as client:
        expected = client.infer("iris", iris()).as_numpy("species")
        waiting = [client.async_infer("iris", iris(binary_data=place % 2 == 0)) for place in range(64)]
        for one in waiting:
            np.testing.assert_allclose(one.get_result().as_numpy("species"), expected, rtol=1e-6)


# -- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",  # model, inputs, output, status, words of the message
    [
        ("irs", iris, None, "404", "Did you mean 'iris'?"),
        ("broken", iris, None, "503", "HDF5"),
        ("iris", pairs, None, "400", "['measurements']"),
        ("iris", iris, "specis", "400", "Did you mean 'species'?"),
        ("digits", lambda: pictures(b"no picture"), None, "400", "picture"),
        ("iris", lambda: [tensor("measurements", ROWS.astype(np.float64), "FP64")], None, "400", "FP32"),
        ("iris", lambda: [tensor("measurements", ROWS[:, :3])], None, "400", "[rows, 4]"),
    ],
)
def test_errors_reach_the_client_in_words(client, case):
    model, inputs, output, status, told = case
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, inputs(), outputs=wanted(output) if output else None)
    assert caught.value.status() == status
    assert told in caught.value.message()


def test_a_timeout_in_microseconds(client):
    with pytest.raises(InferenceServerException) as caught:
        client.infer("iris", iris(), timeout=1)
    assert caught.value.status() == "504"


@pytest.mark.parametrize(
    "call", ["get_log_settings", "get_trace_settings", "get_system_shared_memory_status"]
)
def test_what_is_not_here_is_said(client, call):
    with pytest.raises(InferenceServerException) as caught:
        getattr(client, call)()
    assert caught.value.status() == "501"


# -- documents --------------------------------------------------------------------------------------------


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")
    assert client.is_model_ready("iris", "1")
    assert not client.is_model_ready("iris", "2")
    assert not client.is_model_ready("broken")
    server = client.get_server_metadata()
    assert (server["name"], set(server["extensions"])) == ("layertap", EXTENSIONS)
    metadata = client.get_model_metadata("pairs", "1")
    assert [(t["name"], t["datatype"], t["shape"]) for t in metadata["inputs"]] == [
        ("left", "FP32", [-1, 8, 8]),
        ("right", "FP32", [-1, 8, 8]),
    ]
    assert [t["name"] for t in metadata["outputs"]] == ["sum", "same"]


def test_the_configuration(client):
    config = client.get_model_config("digits")
    assert (config["name"], config["max_batch_size"]) == ("digits", 32)
    assert [(t["name"], t["data_type"], t["dims"], t["format"]) for t in config["input"]] == [
        ("image", "TYPE_FP32", [28, 28, 1], "FORMAT_NHWC")
    ]
    assert [(t["name"], t["dims"]) for t in config["output"]] == [("predictions", [10])]


def test_statistics_count_rows_and_failures(client):
    def stats():
        (one,) = client.get_inference_statistics("iris", "1")["model_stats"]
        return one

    before = stats()
    client.infer("iris", iris())
    with pytest.raises(InferenceServerException):
        client.infer("iris", iris(), timeout=1)
    after = stats()
    assert after["inference_count"] == before["inference_count"] + 2
    assert after["execution_count"] == before["execution_count"] + 1
    for kind in ("success", "fail"):
        assert after["inference_stats"][kind]["count"] == before["inference_stats"][kind]["count"] + 1
    assert after["inference_stats"]["compute_infer"]["ns"] > before["inference_stats"]["compute_infer"]["ns"]
    assert after["last_inference"] > before["last_inference"]
    assert {one["name"] for one in client.get_inference_statistics()["model_stats"]} == {
        "digits", "iris", "pairs",
    }  # fmt: skip


# -- the repository ---------------------------------------------------------------------------------------


def test_a_model_is_unloaded_and_loaded(client):
    def states():
        return {line["name"]: line["state"] for line in client.get_model_repository_index()}

    assert states() == {"broken": "UNAVAILABLE", "digits": "READY", "iris": "READY", "pairs": "READY"}
    client.unload_model("pairs")
    assert not client.is_model_ready("pairs")
    assert states()["pairs"] == "UNAVAILABLE"
    with pytest.raises(InferenceServerException) as caught:
        client.infer("pairs", pairs())
    assert caught.value.status() == "503"
    client.load_model("pairs")
    assert client.is_model_ready("pairs")
    assert client.infer("pairs", pairs()).as_numpy("sum").shape == (3, 19)


def test_nothing_is_uploaded(client):
    for upload in ({"config": "{}"}, {"config": "{}", "files": {"file:1/model.h5": b"bytes"}}):
        with pytest.raises(InferenceServerException) as caught:
            client.load_model("iris", **upload)
        assert caught.value.status() == "400"
        assert "nothing is uploaded" in caught.value.message()
    with pytest.raises(InferenceServerException) as caught:
        client.load_model("broken")
    assert "HDF5" in caught.value.message()
    assert client.is_model_ready("iris")


def test_without_the_setting_the_repository_is_closed(shipped):
    with triton.InferenceServerClient(f"127.0.0.1:{shipped.port}") as client:
        assert set(client.get_server_metadata()["extensions"]) == {e for e in EXTENSIONS if "repos" not in e}
        for call in (client.get_model_repository_index, lambda: client.unload_model("iris")):
            with pytest.raises(InferenceServerException) as caught:
                call()
            assert caught.value.status() == "403"
        assert client.is_model_ready("iris")
