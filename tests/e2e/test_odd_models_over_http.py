"""Models of every odd kind in one folder: good ones answer as Keras does, bad ones say what would mend them."""

import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from keras_references import assert_equal_to_keras, predict, tensor
from odd_models import HOLD, VOCABULARY
from serving import JSON, NPY

MOBILENET_LAYERS = (
    "Conv1",
    "bn_Conv1",
    "expanded_conv_depthwise_BN",
    "block_3_pad",
    "block_5_add",
    "block_12_project_BN",
    "Conv_1",
    "out_relu",
    "predictions",
)
HELD = np.full((1, 2), HOLD, "float32")


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(5).normal(size=(2, 96, 96, 3)).astype("float32")


@pytest.mark.parametrize("layer", MOBILENET_LAYERS)
def test_single_layers_of_mobilenet_equal_keras(zoo, pictures, layer):
    got = zoo.service.post_rows(f"/features?model=mobilenet&layer={layer}", pictures, NPY).npy
    assert_equal_to_keras(got, tensor(zoo.references["mobilenet"], layer, pictures), layer)


def test_mobilenet_answers_its_bottleneck_when_no_layer_is_named(zoo, pictures):
    pooling = zoo.references["mobilenet"].layers[-2].name  # Keras numbers unnamed layers through the process
    assert pooling.startswith("global_average_pooling2d")
    wanted = tensor(zoo.references["mobilenet"], pooling, pictures)
    for query in ("", f"&layer={pooling}"):
        got = zoo.service.post_rows(f"/features?model=mobilenet{query}", pictures, NPY).npy
        assert_equal_to_keras(got, wanted, pooling)


def test_weights_alone_are_served_with_their_builder(zoo):
    rows = np.random.default_rng(1).normal(size=(5, 4)).astype("float32")
    model = zoo.references["weights_only"]
    got = zoo.service.post_rows("/predict?model=weights_only", rows, NPY).npy
    assert_equal_to_keras(got, predict(model, rows), "predictions")
    hidden = zoo.service.post_rows("/features?model=weights_only&layer=hidden", rows, NPY).npy
    assert_equal_to_keras(hidden, tensor(model, "hidden", rows), "hidden")


def test_a_lambda_runs_only_where_its_file_is_allowed(zoo):
    rows = np.array([[1, 2], [3, 4]], "float32")
    allowed = zoo.service.post_rows("/predict?model=lambda_allowed", rows, NPY).npy
    np.testing.assert_array_equal(allowed, rows + 1)
    refused = zoo.service.post_rows("/predict?model=lambda_refused", rows)
    assert (refused.status, refused.json["code"]) == (503, "model_load_failed")
    assert "plus_one" in refused.json["detail"]
    sha256 = zoo.service.get("/models/lambda_allowed").json["sha256"]
    assert sha256 in (zoo.models / "lambda_allowed" / "model.toml").read_text()


def test_a_model_whose_metrics_nobody_defines_is_listed_with_what_would_mend_it(zoo):
    by_name = {model["name"]: model for model in zoo.service.get("/models").json["models"]}
    failed = by_name["digits_unknown_metric"]
    assert failed["state"] == "failed"
    assert "matthews" in failed["error"]
    assert failed["mend"].startswith("Define matthews in custom_objects.py")
    assert by_name["gate"]["state"] == "ready"
    reply = zoo.service.post_rows("/predict?model=digits_unknown_metric", np.zeros((1, 28, 28, 1), "float32"))
    assert (reply.status, reply.json["code"]) == (503, "model_load_failed")
    assert reply.json["mend"] == failed["mend"]


def test_what_mends_it_does_mend_it(zoo):
    mended = zoo.service.get("/models/digits_known_metric").json
    assert (mended["state"], mended["compiled"]) == ("ready", True)
    reply = zoo.service.post_rows(
        "/predict?model=digits_known_metric", np.zeros((2, 28, 28, 1), "float32"), NPY
    )
    assert reply.npy.shape == (2, 10)


def test_the_others_are_ready_all_the_same(zoo):
    reply = zoo.service.get("/readyz")
    assert reply.status == 200
    states = reply.json["models"]
    assert {name for name, state in states.items() if state == "failed"} == {
        "digits_unknown_metric",
        "lambda_refused",
    }
    assert zoo.service.metric("layertap_model_state", model="lambda_refused", state="failed") == 1


def test_one_bad_row_fails_alone(zoo):
    """Forty requests wait together while the engine is held up, so that the bad ones share batches with good ones."""
    service, model = zoo.service, zoo.references["words"]
    random = np.random.default_rng(3)
    sent = [random.integers(0, VOCABULARY, (1 + i % 3, 3)).astype("int32") for i in range(40)]
    culprits = {7, 23}
    for i in culprits:
        sent[i][-1, -1] = VOCABULARY
    failed_before = service.metric("layertap_failed_batches_total", model="words")
    with ThreadPoolExecutor(41) as pool:
        with zoo.gate.shut() as gate:
            held = pool.submit(service.post_rows, "/predict?model=gate", HELD)
            service.until(gate.entered, "the held request")
            replies = [pool.submit(service.post_rows, "/predict?model=words", rows, NPY) for rows in sent]
            total = sum(len(rows) for rows in sent)
            service.until(lambda: service.metric("layertap_queue_rows") == total, "all rows in the queue")
        replies = [reply.result() for reply in replies]
        assert held.result().status == 200
    for i, (rows, reply) in enumerate(zip(sent, replies, strict=True)):
        if i in culprits:
            assert (reply.status, reply.json["code"]) == (400, "input_rejected_by_model")
        else:
            assert_equal_to_keras(reply.npy, predict(model, rows), f"request {i}")
    assert service.metric("layertap_failed_batches_total", model="words") > failed_before


def test_a_client_that_leaves_while_it_waits_costs_no_computation(zoo):
    service = zoo.service
    gone_before = service.metric("layertap_requests_total", code="499")
    rows_before = service.metric("layertap_batch_rows_sum", model="gate")
    body = b'{"instances": [[1, 2], [3, 4], [5, 6]]}'
    head = f"POST /predict?model=gate HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\nContent-Length: {len(body)}\r\n\r\n"
    with ThreadPoolExecutor(1) as pool, zoo.gate.shut() as gate:
        held = pool.submit(service.post_rows, "/predict?model=gate", HELD, NPY)
        service.until(gate.entered, "the held request")
        with socket.create_connection(("127.0.0.1", service.port)) as leaver:
            leaver.sendall(head.encode() + body)
            service.until(lambda: service.metric("layertap_queue_rows") == 3, "the rows in the queue")
        service.until(
            lambda: service.metric("layertap_requests_total", code="499") == gone_before + 1,
            "a 499 in the metrics",
        )
        assert service.metric("layertap_queue_rows") == 0
    np.testing.assert_array_equal(held.result().npy, HELD * 2)
    assert service.metric("layertap_batch_rows_sum", model="gate") == rows_before + 1


def test_a_request_whose_time_is_over_gets_504_while_the_engine_is_held_up(zoo):
    service = zoo.service
    with ThreadPoolExecutor(1) as pool, zoo.gate.shut() as gate:
        held = pool.submit(service.post_rows, "/predict?model=gate", HELD, NPY)
        service.until(gate.entered, "the held request")
        late = service.post_rows("/predict?model=words&timeout_ms=100", np.zeros((1, 3), "int32"))
        assert (late.status, late.json["code"]) == (504, "deadline_exceeded")
        assert not held.done()
    assert held.result().status == 200
