"""The models that ship, over HTTP, against Keras in this process."""

import json
import socket

import keras
import numpy as np
import pytest
from keras_references import assert_equal_to_keras, predict, tensor
from serving import JSON, MODELS, NPY, NPZ

EXAMPLES = sorted((MODELS / "digits" / "examples").glob("*.png"))


def rows_for(name, count=3):
    random = np.random.default_rng(11)
    if name == "pairs":
        return {side: random.uniform(0, 16, (count, 8, 8)).astype("float32") for side in ("left", "right")}
    shape = {"digits": (count, 28, 28, 1), "iris": (count, 4)}[name]
    return random.uniform(0, 1, shape).astype("float32")


@pytest.mark.parametrize("picture", EXAMPLES, ids=lambda path: path.name)
def test_digits_reads_its_example_pictures(shipped, picture):
    reply = shipped.post("/predict", picture.read_bytes(), "image/png").json
    assert reply["model"] == "digits"
    assert reply["labels"] == [int(picture.stem)]
    assert reply["classes"] == [picture.stem]


def test_digits_is_served_compiled(shipped):
    assert shipped.get("/models/digits").json["compiled"] is True


def test_a_picture_reaches_the_model_as_keras_would_load_it(shipped):
    target = {"color_mode": "grayscale", "target_size": (28, 28), "interpolation": "box"}
    pictures = [keras.utils.img_to_array(keras.utils.load_img(path, **target)) / 255 for path in EXAMPLES]
    for path, picture in zip(EXAMPLES, pictures, strict=True):
        got = shipped.post("/features?layer=image", path.read_bytes(), "image/png", NPY).npy
        np.testing.assert_allclose(got, picture[np.newaxis], rtol=1e-6)


@pytest.mark.parametrize("name", ["digits", "iris", "pairs"])
def test_predictions_equal_keras(shipped_models, shipped, name):
    rows = rows_for(name)
    got = shipped.post_rows(f"/predict?model={name}", rows, NPZ).npz
    wanted = predict(shipped_models[name], rows)
    wanted = wanted if isinstance(wanted, list) else [wanted]
    assert list(got) == [output["name"] for output in shipped.get(f"/models/{name}").json["outputs"]]
    for (output, values), expected in zip(got.items(), wanted, strict=True):
        assert_equal_to_keras(values, expected, f"{name}: {output}")


@pytest.mark.parametrize("name", ["digits", "iris", "pairs"])
def test_every_layer_equals_keras(shipped_models, shipped, name):
    rows = rows_for(name)
    listing = shipped.get(f"/models/{name}/layers").json["layers"]
    assert len(listing) >= len(shipped_models[name].layers)
    for layer in listing:
        path = layer["name"]
        got = shipped.post_rows(f"/features?model={name}&layer={path}", rows, NPY).npy
        assert list(got.shape[1:]) == layer["shape"][1:]
        assert_equal_to_keras(got, tensor(shipped_models[name], path, rows), f"{name}: {path}")


def test_pairs_lists_its_shared_and_nested_layers(shipped):
    listing = shipped.get("/models/pairs/layers").json
    names = [layer["name"] for layer in listing["layers"]]
    assert {"code:0", "code:1", "base", "base/product"} <= set(names)
    assert listing["aliases"]["code"] == "code:0"


def test_pairs_answers_json_rows_keyed_by_input(shipped_models, shipped):
    rows = rows_for("pairs", 2)
    instances = [{"left": rows["left"][i].tolist(), "right": rows["right"][i].tolist()} for i in range(2)]
    reply = shipped.post("/predict?model=pairs", json.dumps({"instances": instances}), JSON).json
    total, same = predict(shipped_models["pairs"], rows)
    np.testing.assert_allclose(reply["predictions"]["sum"], total, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(reply["predictions"]["same"], same, rtol=1e-4, atol=1e-6)
    assert reply["labels"]["sum"] == total.argmax(axis=1).tolist()
    assert reply["labels"]["same"] == (same[:, 0] > 0.5).astype(int).tolist()


def test_several_layers_and_the_predictions_come_from_one_pass(shipped_models, shipped):
    rows = rows_for("pairs", 2)
    path = "/features?model=pairs&layer=base/product&layer=code:1&include=predictions"
    got = shipped.post_rows(path, rows, NPZ).npz
    assert list(got) == ["base/product", "code:1", "sum", "same"]
    for name in ("base/product", "code:1"):
        assert_equal_to_keras(got[name], tensor(shipped_models["pairs"], name, rows), name)


def test_large_bodies_and_replies_pass_whole(shipped):
    rows = np.random.default_rng(31).random((3000, 28, 28, 1), dtype="float32")  # 9.4 MB there and back
    got = shipped.post_rows("/features?model=digits&layer=image", rows, NPY).npy
    np.testing.assert_array_equal(got, rows)


def test_a_body_in_chunks_is_read_like_any_other(shipped):
    picture = EXAMPLES[0].read_bytes()
    chunks = (picture[start : start + 50] for start in range(0, len(picture), 50))
    assert (
        shipped.post("/predict", chunks, "image/png").body
        == shipped.post("/predict", picture, "image/png").body
    )


def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(shipped):
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {NPY}\r\nContent-Length: {2**40}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", shipped.port), timeout=30) as client:
        client.sendall(head.encode())
        reply = client.makefile("rb").read()  # until the service closes the connection
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"body_too_large"' in reply


def test_any_number_of_rows_up_to_a_batch_is_traced_once(shipped_models, shipped):
    traces = shipped.metric("layertap_traces_total", model="iris")
    everything = predict(shipped_models["iris"], rows_for("iris", 32))
    for count in range(1, 33):
        got = shipped.post_rows("/predict?model=iris", rows_for("iris", 32)[:count], NPY).npy
        assert_equal_to_keras(got, everything[:count], f"{count} rows")
    assert shipped.metric("layertap_traces_total", model="iris") == traces
    assert shipped.metric("layertap_padding_rows_total", model="iris") == 0


def test_more_rows_than_a_batch_holds_come_back_in_order(shipped_models, shipped):
    rows = rows_for("iris", 1000)
    batches = shipped.metric("layertap_batch_rows_count", model="iris")
    got = shipped.post_rows("/predict?model=iris", rows, NPY).npy
    assert_equal_to_keras(got, predict(shipped_models["iris"], rows), "1000 rows")
    assert (
        shipped.metric("layertap_batch_rows_count", model="iris") - batches == 32
    )  # 31 full ones and the rest
