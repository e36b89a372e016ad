"""The native API's answers: every body, every reply type and every option, on both drivers."""

import re

import numpy as np
import pytest
from bodies import BODIES, IDS, LEFT, RIGHT, ROWS, npy, npz, text
from drivers import open_site
from numpy_engine import graph_of

from service.payloads.codecs import JSON, NPY, NPZ

OUTPUTS = {
    "iris": {"probs": "probs"},
    "pairs": {"total": "total", "positive": "positive"},
    "shapes": {"probs": "probs"},
    "words": {"score": "score"},
}
BOTTLENECK = {"iris": "hidden", "pairs": "joined", "shapes": "pool", "words": "vectors"}
CLASSES = {"iris": ("setosa", "versicolor", "virginica"), "shapes": ("dot", "line", "box")}


def assert_same(got, expected):
    """Equal to the last bit, as float32 after JSON."""
    got = np.asarray(got, expected.dtype)
    assert got.shape == expected.shape
    assert got.tobytes() == expected.tobytes()


def named(document_value, outputs):
    """A column of a reply, by output; a model with one output has it bare."""
    return document_value if len(outputs) > 1 else {next(iter(outputs)): document_value}


@pytest.mark.parametrize("accept", [JSON, NPY, NPZ])
@pytest.mark.parametrize("name", BODIES)
def test_predict_takes_every_body_and_gives_every_reply(driver, name, accept):
    body = BODIES[name]
    outputs = OUTPUTS[body.model]
    answer = driver.send(
        "POST", "/predict", f"model={body.model}", {**body.headers, "Accept": accept}, body.data
    )
    if accept == NPY and len(outputs) > 1:
        assert (answer.status, answer.json()["code"]) == (406, "not_acceptable")
        return
    assert (answer.status, answer.content_type) == (200, accept), answer.body
    expected = body.expected(outputs.values())
    if accept == JSON:
        document = answer.json()
        assert (document["model"], document["version"]) == (body.model, 1)
        got = named(document["predictions"], outputs)
    else:
        got = answer.arrays()
        if accept == NPY:
            got = {next(iter(outputs)): got[None]}
    assert list(got) == list(outputs)
    for output, path in outputs.items():
        assert_same(got[output], expected[path])


@pytest.mark.parametrize("accept", [JSON, NPY, NPZ])
@pytest.mark.parametrize("name", BODIES)
def test_features_takes_every_body_and_gives_every_reply(driver, name, accept):
    body = BODIES[name]
    path = BOTTLENECK[body.model]
    answer = driver.send(
        "POST", "/features", f"model={body.model}", {**body.headers, "Accept": accept}, body.data
    )
    assert (answer.status, answer.content_type) == (200, accept), answer.body
    if accept == JSON:
        document = answer.json()
        assert document.keys() == {"model", "version", "features"}
        assert document["features"].keys() == {path}
        got = document["features"][path]
    else:
        got = answer.arrays()[None if accept == NPY else path]
    assert_same(got, body.expected([path])[path])


def predict(driver, model, inputs, query="", accept=JSON):
    body = npz(**inputs)
    headers = {"Content-Type": NPZ, "Accept": accept}
    answer = driver.send("POST", "/predict", f"model={model}{query}", headers, body)
    assert answer.status == 200, answer.body
    return answer


def features(driver, model, inputs, query="", accept=JSON):
    headers = {"Content-Type": NPZ, "Accept": accept}
    answer = driver.send("POST", "/features", f"model={model}{query}", headers, npz(**inputs))
    assert answer.status == 200, answer.body
    return answer


def test_labels_classes_and_scores_are_of_the_largest_value(driver):
    document = predict(driver, "iris", {"x": ROWS}).json()
    probs = graph_of("iris").evaluate({"x": ROWS}, ("probs",))["probs"]
    labels = probs.argmax(axis=-1).tolist()
    assert document["labels"] == labels
    assert document["classes"] == [CLASSES["iris"][label] for label in labels]
    assert_same(document["scores"], probs.max(axis=-1))
    assert "top" not in document


def test_top_lists_the_best_in_falling_order(driver):
    document = predict(driver, "iris", {"x": ROWS}, "&top=2").json()
    probs = graph_of("iris").evaluate({"x": ROWS}, ("probs",))["probs"]
    for row, entries in zip(probs, document["top"], strict=True):
        best = np.argsort(-row, kind="stable")[:2]
        assert [entry["label"] for entry in entries] == best.tolist()
        assert [entry["class"] for entry in entries] == [CLASSES["iris"][label] for label in best]
        assert_same([entry["score"] for entry in entries], row[best])


def test_top_over_the_number_of_classes_gives_all(driver):
    document = predict(driver, "iris", {"x": ROWS[:1]}, "&top=1000000000").json()
    assert len(document["top"][0]) == 3


def test_several_outputs_are_keyed_by_output(driver):
    document = predict(driver, "pairs", {"left": LEFT, "right": RIGHT}, "&top=1").json()
    values = graph_of("pairs").evaluate({"left": LEFT, "right": RIGHT}, ("total", "positive"))
    assert document["labels"]["total"] == values["total"].argmax(axis=-1).tolist()
    positive = values["positive"][:, 0] > 0.5
    assert document["labels"]["positive"] == positive.astype(int).tolist()  # a sigmoid is two classes
    assert "classes" not in document
    for column in ("predictions", "labels", "scores", "top"):
        assert document[column].keys() == {"total", "positive"}


def test_a_single_linear_unit_has_no_labels(driver):
    document = predict(driver, "words", {"ids": IDS}, "&top=1").json()
    assert document.keys() == {"model", "version", "predictions"}


def test_float16_halves_what_is_exact_in_it(driver):
    whole = graph_of("iris").evaluate({"x": ROWS}, ("probs",))["probs"].astype(np.float16)
    assert_same(predict(driver, "iris", {"x": ROWS}, "&dtype=float16", NPY).arrays()[None], whole)
    document = predict(driver, "iris", {"x": ROWS}, "&dtype=float16").json()
    assert_same(document["predictions"], whole)


@pytest.mark.parametrize(("how", "reduced"), [("avg", np.mean), ("max", np.max)])
def test_pool_reduces_the_spatial_axes(driver, how, reduced):
    body = BODIES["form of two pictures"]
    conv = body.expected(["conv"])["conv"]
    document = features(driver, "shapes", body.inputs, f"&layer=conv&pool={how}").json()
    assert_same(document["features"]["conv"], reduced(conv.astype(np.float64), axis=(1, 2)).astype("f4"))


def test_normalize_gives_rows_of_length_one(driver):
    hidden = graph_of("iris").evaluate({"x": ROWS}, ("hidden",))["hidden"].astype(np.float64)
    document = features(driver, "iris", {"x": ROWS}, "&normalize=l2").json()
    expected = hidden / np.linalg.norm(hidden, axis=-1, keepdims=True)
    np.testing.assert_allclose(document["features"]["hidden"], expected, rtol=1e-6)


def test_features_and_predictions_come_from_one_pass(driver):
    document = features(driver, "iris", {"x": ROWS}, "&include=predictions&top=1&layer=hidden").json()
    alone = predict(driver, "iris", {"x": ROWS}, "&top=1").json()
    hidden = features(driver, "iris", {"x": ROWS}).json()["features"]
    assert document == {**alone, "features": hidden}


def test_several_arrays_keep_the_order_that_was_asked_for(driver):
    answer = features(driver, "iris", {"x": ROWS}, "&layer=probs&layer=hidden", NPZ)
    assert list(answer.arrays()) == ["probs", "hidden"]
    answer = features(driver, "pairs", {"left": LEFT, "right": RIGHT}, "&include=predictions", NPZ)
    assert list(answer.arrays()) == ["joined", "total", "positive"]
    answer = predict(driver, "pairs", {"left": LEFT, "right": RIGHT}, "", NPZ)
    assert list(answer.arrays()) == ["total", "positive"]


@pytest.mark.parametrize(
    ("asked", "paths"),
    [
        (["conv"], ["conv"]),
        (["-1"], ["probs"]),
        (["-2"], ["pool"]),
        (["1"], ["conv"]),
        (["p*"], ["pool", "probs"]),
        (["**"], ["image", "conv", "pool", "probs"]),
        (["probs", "conv"], ["probs", "conv"]),
        (["pool", "pool", "-2"], ["pool"]),
        ([], ["pool"]),
    ],
)
def test_layers_are_named_by_path_place_and_wild_card(driver, asked, paths):
    body = BODIES["form of two pictures"]
    query = "".join(f"&layer={name}" for name in asked)
    found = features(driver, "shapes", body.inputs, query).json()["features"]
    assert list(found) == paths
    for path, expected in body.expected(paths).items():
        assert_same(found[path], expected)


@pytest.mark.parametrize(
    "query", ["model=iris", "model=iris&version=1", "version=1&model=%69ris", "model=iris&version=%31"]
)
def test_a_version_may_be_named(driver, query):
    answer = driver.send("POST", "/predict", query, {"Content-Type": NPY}, npy(ROWS))
    assert (answer.status, answer.json()["version"]) == (200, 1)


@pytest.mark.parametrize("name", ["flask", "express"])
def test_without_a_name_the_default_or_the_only_model_answers(name):
    request = ("POST", "/predict", "", {"Content-Type": NPY}, npy(ROWS))
    with open_site("pairs", "iris", default_model="iris") as site:
        assert getattr(site, name).send(*request).json()["model"] == "iris"
    with open_site("iris") as site:
        assert getattr(site, name).send(*request).json()["model"] == "iris"


def test_not_finite_numbers_leave_as_null_and_exactly_as_npy(driver):
    inputs = {"x": np.array([[-3.4e38, 3.4e38]], np.float32)}
    expected = graph_of("line").evaluate(inputs, ("y",))["y"]
    assert np.isinf(expected).all()
    assert predict(driver, "line", inputs).json()["predictions"] == [[None]]
    assert_same(predict(driver, "line", inputs, "", NPY).arrays()[None], expected)


def test_an_answer_tells_its_times_and_its_id(driver):
    headers = {"Content-Type": JSON, "X-Request-Id": "mine-42"}
    answer = driver.send("POST", "/predict", "model=iris", headers, BODIES["rows"].data)
    stages = re.fullmatch(
        r"decode;dur=([0-9.]+), queue;dur=([0-9.]+), compute;dur=([0-9.]+), encode;dur=([0-9.]+)",
        answer.headers["server-timing"],
    )
    assert all(float(milliseconds) >= 0 for milliseconds in stages.groups())
    assert float(stages[1]) > 0
    assert answer.headers["x-request-id"] == "mine-42"


@pytest.mark.parametrize("given", [None, "", "two words", "x" * 129, "caf\xe9"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/predict"), ("GET", "/healthz"), ("GET", "/models")])
def test_an_id_is_made_where_none_or_a_bad_one_came(driver, method, path, given):
    headers = {} if given is None else {"X-Request-Id": given}
    made = [driver.send(method, path, "", headers).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    assert given not in made


@pytest.mark.parametrize(
    "path",
    ["/healthz", "/readyz", "/models", "/models/iris", "/models/broken", "/models/shapes/layers", "/openapi.json",
     "/docs"],
)  # fmt: skip
def test_documents_are_the_same_from_both_drivers(driver, path):
    answer = driver.send("GET", path)
    assert answer.status == 200
    assert driver.send("GET", path, "", {"X-Request-Id": "mine"}).headers["x-request-id"] == "mine"


def test_the_listing_names_what_a_request_may_ask_for(driver):
    document = driver.send("GET", "/models/shapes/layers").json()
    body = BODIES["picture"]
    for layer in document["layers"]:
        values = features(driver, "shapes", body.inputs, f"&layer={layer['name']}", NPY)
        array = values.arrays()[None]
        assert list(array.shape[1:]) == layer["shape"][1:]
        assert (str(array.dtype), array.nbytes) == (layer["dtype"], layer["row_bytes"])


@pytest.mark.parametrize("pieces", [1, 2, 7, 60])
def test_a_body_may_come_in_any_number_of_pieces(site, pieces):
    body = BODIES["rows"]
    request = ("POST", "/predict", "model=iris", body.headers, body.data)
    whole = site.flask.send(*request)
    for declared in (True, False):
        assert site.express.send(*request, pieces=pieces, declared=declared).body == whole.body


def test_headers_that_come_twice_are_one_list(driver):
    headers = [("Content-Type", JSON), ("Accept", f"{NPY};q=0.9"), ("Accept", f"{JSON};q=0.5")]
    answer = driver.send("POST", "/predict", "model=iris", headers, text({"instances": ROWS.tolist()}))
    assert answer.content_type == NPY


@pytest.mark.parametrize("query", ["model=caf\xc3\xa9", "model=caf%C3%A9"])
def test_a_query_of_raw_utf8_is_read_as_if_it_were_encoded(site, query):
    for driver in (site.flask, site.express):  # httptools refuses it before it comes to the worker's protocol
        answer = driver.send("POST", "/predict", query, {"Content-Type": NPY}, npy(ROWS))
        assert (answer.status, answer.json()["code"]) == (404, "model_not_found")
        assert "'caf\xe9'" in answer.json()["detail"]


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4), }",
        b"{'descr':'<f4','fortran_order':False,'shape':(1,4)}",
        b"{'shape': (1, 4), 'fortran_order': False, 'descr': '<f4'}",
        b'{"descr": "<f4", "fortran_order": True, "shape": (1, 4)}',
    ],
)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_npy_headers_may_be_written_in_any_way_that_the_format_allows(driver, header, version):
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    body = b"\x93NUMPY" + bytes([version, 0]) + length + header + ROWS[:1].tobytes()
    answer = driver.send("POST", "/predict", "model=iris", {"Content-Type": NPY}, body)
    assert answer.status == 200, answer.body
    assert answer.json() == driver.send("POST", "/predict", "model=iris", {}, npy(ROWS[:1])).json()
