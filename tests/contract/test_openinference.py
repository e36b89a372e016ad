"""The Open Inference Protocol V2 on both drivers: what it answers; the bytes are in golden/openinference.json."""

import gzip
import json
import zlib
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
from binary_tensors import LENGTH, decode, encode
from bodies import IDS, LEFT, PICTURES, RIGHT, ROWS, png
from drivers import LIMITS, open_site
from numpy_engine import graph_of

from service.api.http import HttpRequest
from service.api.openinference.dialect import OpenInference
from service.model_config import ModelConfig
from service.repository import ModelEntry, ModelVersion

IMAGES = np.stack(PICTURES)[..., np.newaxis] * np.float32(1 / 255)
INPUTS = {
    "iris": {"x": ROWS},
    "pairs": {"left": LEFT, "right": RIGHT},
    "shapes": {"image": IMAGES},
    "words": {"ids": IDS},
}
OUTPUTS = {
    "iris": ["probs", "hidden", "x"],
    "pairs": ["total", "positive", "joined"],
    "shapes": ["probs", "conv", "pool"],
    "words": ["score", "vectors"],
}
BINARY = {"binary_data": True}


def post(driver, sent, path="/v2/models/iris/infer", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return driver.send("POST", path, "", sent.headers | named, sent.body)


def assert_same(got, expected):
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    assert got.tobytes() == expected.tobytes()


# -- tensors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", INPUTS)
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_every_output_and_layer_in_json_and_binary_is_what_the_model_computes(
    driver, model, binary_in, binary_out
):
    outputs = {name: {"binary_data": binary_out} for name in OUTPUTS[model]}
    sent = encode(INPUTS[model], outputs, binary=binary_in)
    document, arrays = decode(post(driver, sent, f"/v2/models/{model}/infer"))
    assert (document["model_name"], document["model_version"]) == (model, "1")
    assert list(arrays) == OUTPUTS[model]
    expected = graph_of(model).evaluate(INPUTS[model], tuple(OUTPUTS[model]))
    for name, array in arrays.items():
        assert_same(array, expected[name])


def test_tensors_of_both_kinds_go_together(driver):
    outputs = {"total": BINARY, "positive": {}, "joined": BINARY}
    sent = encode(INPUTS["pairs"], outputs, binary={"right"})
    document, arrays = decode(post(driver, sent, "/v2/models/pairs/infer"))
    assert ["data" in output for output in document["outputs"]] == [False, True, False]
    expected = graph_of("pairs").evaluate(INPUTS["pairs"], tuple(outputs))
    for name, array in arrays.items():
        assert_same(array, expected[name])


def test_without_outputs_the_declared_ones_are_meant(driver):
    for members, binary in (({}, False), ({"parameters": {"binary_data_output": True}}, True)):
        for outputs in (None, {}):
            answer = post(driver, encode(INPUTS["pairs"], outputs, **members), "/v2/models/pairs/infer")
            document, arrays = decode(answer)
            assert list(arrays) == ["total", "positive"]
            assert ["data" in output for output in document["outputs"]] == [not binary] * 2


def test_an_outputs_own_wish_wins_over_the_requests(driver):
    outputs = {"probs": {"binary_data": False}, "hidden": {}}
    document, _ = decode(
        post(driver, encode(INPUTS["iris"], outputs, parameters={"binary_data_output": True}))
    )
    assert ["data" in output for output in document["outputs"]] == [True, False]


def test_nested_data_mean_the_same_as_flat_ones(driver):
    head = {"name": "x", "shape": [3, 4], "datatype": "FP32"}
    bodies = [{"inputs": [{**head, "data": data.tolist()}]} for data in (ROWS, ROWS.ravel())]
    nested, flat = (
        driver.send("POST", "/v2/models/iris/infer", "", {}, json.dumps(body).encode()) for body in bodies
    )
    assert nested.status == 200
    assert nested.body == flat.body


@pytest.mark.parametrize("spelling", ["hidden", "1", "-2"])
def test_a_layer_in_any_spelling_keeps_the_name_that_the_client_used(driver, spelling):
    _, arrays = decode(post(driver, encode(INPUTS["iris"], {spelling: BINARY})))
    assert_same(arrays[spelling], graph_of("iris").evaluate(INPUTS["iris"], ("hidden",))["hidden"])


def test_a_pattern_gives_every_layer_by_its_own_name(driver):
    _, arrays = decode(post(driver, encode(INPUTS["shapes"], {"p*": {}}), "/v2/models/shapes/infer"))
    assert list(arrays) == ["pool", "probs"]


@pytest.mark.parametrize("request_id", ["", "1", "é\u2028", "x" * 500])
def test_the_id_is_echoed(driver, request_id):
    document, _ = decode(post(driver, encode(INPUTS["iris"], id=request_id)))
    assert document["id"] == request_id


def test_no_id_is_no_id(driver):
    assert "id" not in decode(post(driver, encode(INPUTS["iris"])))[0]


def test_the_version_may_stand_in_the_path(driver):
    sent = encode(INPUTS["iris"])
    bare, named = post(driver, sent), post(driver, sent, "/v2/models/iris/versions/1/infer")
    assert named.body == bare.body


def test_narrower_datatypes_are_widened(driver):
    whole = {"x": np.array([[1, 2, 3, 4]], np.uint8)}
    wide = {"x": whole["x"].astype(np.float32)}
    half = {"x": whole["x"].astype(np.float16)}
    upper = {
        "x": np.frombuffer((wide["x"].view(np.uint32) >> 16).astype("<u2").tobytes(), np.uint16).reshape(1, 4)
    }
    expected = post(driver, encode(wide)).body
    for inputs, datatypes in ((whole, {}), (half, {}), (upper, {"x": "BF16"})):
        answer = post(driver, encode(inputs, datatypes=datatypes))
        assert (answer.status, answer.body) == (200, expected)
    assert post(driver, encode({"x": wide["x"].astype(np.float64)})).status == 400


def test_not_a_number_goes_both_ways_in_binary_and_is_null_in_json(driver):
    rows = {"x": np.array([[np.nan, 1, 1, 1]], np.float32)}
    _, arrays = decode(post(driver, encode(rows, {"x": BINARY})))
    assert_same(arrays["x"], rows["x"])
    answer = post(driver, encode(rows, {"x": {}}))
    assert answer.json()["outputs"][0]["data"] == [None, 1, 1, 1]


def test_tokens_stand_for_numbers_as_they_do_for_triton(driver):
    rows = {"x": np.array([[np.nan, np.inf, -np.inf, 1]], np.float32)}
    sent = encode(rows, {"x": BINARY}, binary=False)
    assert b"NaN, Infinity, -Infinity" in sent.body
    _, arrays = decode(post(driver, sent))
    assert_same(arrays["x"], rows["x"])
    for bad in (b"nan", b"+Infinity", b"NaN1", b"1e999"):
        body = sent.body.replace(b"NaN", bad)
        assert driver.send("POST", "/v2/models/iris/infer", "", {}, body).status == 400


def test_the_same_head_again_reads_the_other_bytes(driver):
    for scale in (1, 2, 3):
        rows = {"x": ROWS * np.float32(scale)}
        _, arrays = decode(post(driver, encode(rows, {"hidden": BINARY})))
        assert_same(arrays["hidden"], graph_of("iris").evaluate(rows, ("hidden",))["hidden"])
    sent = encode(rows, {"hidden": BINARY})
    for body in (sent.body[:-1], sent.body + b"x"):
        assert driver.send("POST", "/v2/models/iris/infer", "", sent.headers, body).status == 400


@pytest.mark.parametrize("written", ['{"id":"%s",', '{ "id" : "%s" , '])
def test_another_id_before_the_same_head_is_echoed(driver, written):
    sent = encode(INPUTS["iris"], {"hidden": BINARY})
    size = int(sent.headers[LENGTH])
    for request_id in ("1", "2", "", "a b~[]", "3"):
        head = (written % request_id).encode() + sent.body[1:size]
        answer = driver.send(
            "POST", "/v2/models/iris/infer", "", {LENGTH: str(len(head))}, head + sent.body[size:]
        )
        document, arrays = decode(answer)
        assert document["id"] == request_id
        assert_same(arrays["hidden"], graph_of("iris").evaluate(INPUTS["iris"], ("hidden",))["hidden"])
    assert "id" not in decode(post(driver, sent))[0]


def test_ids_that_are_not_plain_or_not_first_are_read_as_json_has_them(driver):
    sent = encode(INPUTS["iris"], {"hidden": BINARY})
    size = int(sent.headers[LENGTH])
    rest, tail = sent.body[1:size], sent.body[size:]
    for head, request_id in (
        (b'{"id":"\\u00e9",' + rest, "é"),
        ('{"id":"é",'.encode() + rest, "é"),
        (b'{"id":"first",' + rest[:-1] + b',"id":"last"}', "last"),
        (b'{"id":"other",' + rest[:-1] + b',"id":"last"}', "last"),
        (b"{" + rest[:-1] + b',"id":"last"}', "last"),
        (b'{"id":"first",' + rest, "first"),
    ):
        answer = driver.send("POST", "/v2/models/iris/infer", "", {LENGTH: str(len(head))}, head + tail)
        assert decode(answer)[0]["id"] == request_id


# -- classification ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("k", [1, 2, 100])
def test_the_best_classes_are_those_of_the_native_api(driver, binary, k):
    outputs = {"probs": {"classification": k, "binary_data": binary}}
    document, arrays = decode(post(driver, encode(INPUTS["iris"], outputs)))
    native = driver.send(
        "POST", "/predict", f"model=iris&top={k}", {}, json.dumps({"instances": ROWS.tolist()}).encode()
    ).json()["top"]
    told = [
        {"score": float(score), "label": int(label), "class": name}
        for score, label, name in (text.decode().split(":") for text in arrays["probs"])
    ]
    assert told == [entry for row in native for entry in row]
    assert document["outputs"][0]["datatype"] == "BYTES"
    assert document["outputs"][0]["shape"] == [3, min(k, 3)]


def test_classes_without_names_of_one_unit_and_of_any_layer(driver):
    outputs = {
        "total": {"classification": 1},
        "positive": {"classification": 5},
        "joined": {"classification": 2},
    }
    document, arrays = decode(post(driver, encode(INPUTS["pairs"], outputs), "/v2/models/pairs/infer"))
    assert [output["shape"] for output in document["outputs"]] == [[2, 1], [2, 2], [2, 2]]
    values = graph_of("pairs").evaluate(INPUTS["pairs"], ("positive", "joined"))
    for row, texts in zip(values["positive"], np.reshape(arrays["positive"], (2, 2)).tolist(), strict=True):
        scores = {int(label): np.float32(score) for score, label in (text.split(b":") for text in texts)}
        assert scores == {1: row[0], 0: 1 - row[0]}
    best = [int(text.split(b":")[1]) for text in np.reshape(arrays["joined"], (2, 2))[:, 0]]
    assert best == values["joined"].argmax(axis=1).tolist()


def test_a_layer_of_several_axes_is_one_list_of_classes_a_row(driver):
    outputs = {"conv": {"classification": 1}}
    document, arrays = decode(post(driver, encode(INPUTS["shapes"], outputs), "/v2/models/shapes/infer"))
    conv = graph_of("shapes").evaluate(INPUTS["shapes"], ("conv",))["conv"].reshape(2, -1)
    assert document["outputs"][0]["shape"] == [2, 1]
    assert [int(text.split(b":")[1]) for text in arrays["conv"]] == conv.argmax(axis=1).tolist()


def test_a_linear_unit_has_one_class(driver):
    _, arrays = decode(
        post(driver, encode(INPUTS["words"], {"score": {"classification": 3}}), "/v2/models/words/infer")
    )
    scores = graph_of("words").evaluate(INPUTS["words"], ("score",))["score"].ravel()
    assert [np.float32(text.split(b":")[0]) for text in arrays["score"]] == scores.tolist()


# -- pictures and raw bodies ------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [True, False])
def test_pictures_come_as_bytes(driver, binary):
    files = [png(pixels) for pixels in PICTURES]
    sent = encode(
        {"image": files if binary else [b64encode(file).decode() for file in files]},
        {"pool": BINARY},
        binary=binary,
    )
    _, arrays = decode(post(driver, sent, "/v2/models/shapes/infer"))
    assert_same(arrays["pool"], graph_of("shapes").evaluate({"image": IMAGES}, ("pool",))["pool"])


@pytest.mark.parametrize(
    ("model", "body", "inputs"),
    [
        ("iris", ROWS[:1].tobytes(), {"x": ROWS[:1]}),
        ("words", IDS[:1].tobytes(), {"ids": IDS[:1]}),
        ("shapes", png(PICTURES[0]), {"image": IMAGES[:1]}),
        ("shapes", IMAGES[:1].tobytes(), {"image": IMAGES[:1]}),
    ],
)
def test_a_raw_body_is_one_row_and_all_outputs_come_back_binary(driver, model, body, inputs):
    answer = driver.send("POST", f"/v2/models/{model}/infer", "", {LENGTH: "0"}, body)
    document, arrays = decode(answer)
    assert all("binary_data_size" in output["parameters"] for output in document["outputs"])
    expected = graph_of(model).evaluate(inputs, tuple(arrays))
    for name, array in arrays.items():
        assert_same(array, expected[name])


# -- content codings --------------------------------------------------------------------------------------

PACK = {"gzip": gzip.compress, "deflate": zlib.compress}
UNPACK = {"gzip": gzip.decompress, "deflate": zlib.decompress}


@pytest.mark.parametrize("coding", PACK)
@pytest.mark.parametrize("binary", [True, False])
def test_bodies_may_be_packed_both_ways(driver, coding, binary):
    rows = {"x": np.tile(ROWS, (50, 1))}
    sent = encode(rows, {"hidden": {"binary_data": binary}}, binary=binary)
    plain = post(driver, sent)
    packed = driver.send(
        "POST",
        "/v2/models/iris/infer",
        "",
        sent.headers | {"Content-Encoding": coding, "Accept-Encoding": coding},
        PACK[coding](sent.body),
    )
    assert packed.headers["content-encoding"] == coding
    assert len(packed.body) < len(plain.body)
    assert UNPACK[coding](packed.body) == plain.body
    # The length is that of the JSON before it was packed.
    assert packed.headers.get(LENGTH.lower()) == plain.headers.get(LENGTH.lower())
    _, arrays = decode(packed, UNPACK[coding](packed.body))
    assert_same(arrays["hidden"], graph_of("iris").evaluate(rows, ("hidden",))["hidden"])


def test_small_replies_are_not_packed(driver):
    answer = post(driver, encode(INPUTS["iris"]), Accept_Encoding="gzip, deflate")
    assert "content-encoding" not in answer.headers
    decode(answer)


# -- what stands in the parameters ------------------------------------------------------------------------


def parse(site, **parameters):
    sent = encode(INPUTS["iris"], parameters=parameters)
    headers = {name.lower().encode(): value.encode() for name, value in sent.headers.items()}
    endpoint = OpenInference(LIMITS, admin=False).endpoint("/v2/models/iris/infer")
    return endpoint.parse(
        HttpRequest("POST", "/v2/models/iris/infer", b"", headers, sent.body), site.runtime
    ).request


def test_timeout_is_in_microseconds_and_priority_as_it_is(site):
    asked = parse(site, timeout=1500, priority=2)
    assert (asked.timeout_s, asked.priority) == (pytest.approx(0.0015), 2)
    assert asked.served is site.runtime.resolve("iris")
    asked = parse(site)
    assert (asked.timeout_s, asked.priority) == (None, 0)


@pytest.mark.parametrize("name", ["flask", "express"])
def test_a_request_whose_time_is_over_is_told_so(site, name):
    answer = post(getattr(site, name), encode(INPUTS["iris"], parameters={"timeout": 1}))
    assert answer.status == 504
    assert "ran out" in answer.json()["error"]


def test_parameters_that_nobody_knows_are_passed_over(driver):
    plain = post(driver, encode(INPUTS["iris"]))
    more = {"sequence_id": 5, "sequence_start": True, "sequence_end": False, "mine": "x", "number": 1.5}
    assert post(driver, encode(INPUTS["iris"], parameters=more)).body == plain.body


# -- metrics and statistics -------------------------------------------------------------------------------


def test_requests_and_layers_are_counted_under_known_names(site, driver):
    def count(name, **labels):
        return site.telemetry.metrics.registry.get_sample_value(f"layertap_{name}", labels) or 0

    route = {"route": "v2_infer", "model": "iris", "code": "200"}
    layer = {"model": "iris", "layer": "hidden"}
    before = count("requests_total", **route), count("layer_requests_total", **layer)
    post(driver, encode(INPUTS["iris"], {"probs": {}, "-2": {}}))
    after = count("requests_total", **route), count("layer_requests_total", **layer)
    assert (after[0] - before[0], after[1] - before[1]) == (2, 2)  # one for each driver


@pytest.mark.parametrize("name", ["flask", "express"])
def test_statistics_count_rows_batches_and_time(name):
    with open_site("iris", "line") as site:
        driver = getattr(site, name)
        path = "/v2/models/iris/versions/1/stats"
        assert driver.send("GET", path).json()["model_stats"][0]["last_inference"] == 0
        for _ in range(4):
            decode(post(driver, encode(INPUTS["iris"])))
        assert post(driver, encode(INPUTS["iris"], parameters={"timeout": 1})).status == 504
        (stats,) = driver.send("GET", path).json()["model_stats"]
        assert driver.send("GET", "/v2/models/iris/stats").json() == {"model_stats": [stats]}
        every = driver.send("GET", "/v2/models/stats").json()["model_stats"]
    assert [(one["name"], one["version"]) for one in every] == [("iris", "1"), ("line", "1")]
    assert every[0] == stats
    assert (stats["inference_count"], stats["execution_count"]) == (12, 4)
    assert stats["last_inference"] > 1.7e12
    times = stats["inference_stats"]
    assert {name: times[name]["count"] for name in times} == {
        **dict.fromkeys(("success", "queue", "compute_input", "compute_infer", "compute_output"), 4),
        "fail": 1,
        "cache_hit": 0,
        "cache_miss": 0,
    }
    parts = [times[part]["ns"] for part in ("queue", "compute_input", "compute_infer", "compute_output")]
    assert min(parts) > 0
    assert abs(sum(parts) - times["success"]["ns"]) <= 4  # each is rounded by itself
    (batch,) = stats["batch_stats"]
    assert (batch["batch_size"], batch["compute_infer"]["count"]) == (3, 4)


# -- versions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "served", "policy"),
    [
        (ModelConfig(), ["3"], {"latest": {"num_versions": 1}}),
        (ModelConfig(versions="all"), ["1", "2", "3"], {"all": {}}),
        (ModelConfig(labels={"old": 1}), ["1", "3"], {"specific": {"versions": [1, 3]}}),
    ],
)
@pytest.mark.parametrize("name", ["flask", "express"])
def test_versions_are_told_and_answer_by_number(name, config, served, policy):
    folder = Path("models") / "iris"
    versions = tuple(ModelVersion(number, folder / str(number) / "model.h5") for number in (3, 2, 1))
    with open_site(scan=lambda: [ModelEntry("iris", folder, versions=versions, config=config)]) as site:
        driver = getattr(site, name)
        assert driver.send("GET", "/v2/models/iris").json()["versions"] == served
        assert driver.send("GET", "/v2/models/iris/config").json()["version_policy"] == policy
        stats = driver.send("GET", "/v2/models/iris/stats").json()["model_stats"]
        assert [one["version"] for one in stats] == served
        for number in ("1", "2", "3"):
            path = f"/v2/models/iris/versions/{number}"
            answer = post(driver, encode(INPUTS["iris"]), f"{path}/infer")
            if number in served:
                assert decode(answer)[0]["model_version"] == number
                assert driver.send("GET", f"{path}/ready").status == 200
            else:
                assert (answer.status, list(answer.json())) == (404, ["error"])
                assert driver.send("GET", f"{path}/ready").status == 404
        assert decode(post(driver, encode(INPUTS["iris"])))[0]["model_version"] == "3"
