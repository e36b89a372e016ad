import base64
import io
import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import picture

from service.api.bodies import InputReader
from service.api.http import HttpRequest
from service.api.intake import Intake
from service.errors import (
    BodyTooLarge,
    ImageTooLarge,
    InvalidInput,
    InvalidJson,
    InvalidRequest,
    RequestError,
    UndecodableImage,
    UnsupportedMedia,
)
from service.images import image_input, prepare
from service.model_config import PreprocessConfig
from service.payloads.codecs import encode_npy, encode_npz
from service.tensors import TensorSpec

ROW = TensorSpec("x", (None, 2), "float32")
SMALL = TensorSpec("image", (None, 8, 8, 3), "float32")
FREE = TensorSpec("image", (None, None, None, 3), "float32")
TEXT = TensorSpec("text", (None,), "string")
PAIR = (TensorSpec("left", (None, 2), "float32"), TensorSpec("right", (None,), "int32"))
MIXED = (SMALL, TensorSpec("weight", (None, 1), "float32"))
PNG, JPEG = picture("png_rgb"), picture("jpeg_rgb")


def reader(*inputs, max_input_bytes=2**20, max_image_pixels=10**6):
    images = {spec.name: target for spec in inputs if (target := image_input(spec, PreprocessConfig()))}
    return InputReader(Intake("demo", inputs, images, max_input_bytes, max_image_pixels))


def read(inputs, body, content_type="application/json", **limits):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {b"content-type": content_type.encode("latin-1")}
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    return reader(*inputs, **limits).read(HttpRequest("POST", "/predict", b"", headers, body))


def refused(error, *arguments, **options):
    with pytest.raises(error) as caught:
        read(*arguments, **options)
    assert type(caught.value) is error
    assert len(caught.value.message) < 1000
    return caught.value


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def form(*parts):
    pieces = []
    for name, filename, data in parts:
        head = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename is not None else "")
        pieces += [b"--frontier\r\nContent-Disposition: ", head.encode(), b"\r\n\r\n", data, b"\r\n"]
    return b"".join(pieces) + b"--frontier--\r\n"


FORM = "multipart/form-data; boundary=frontier"


def pixels(data, spec=SMALL):
    return prepare(data, image_input(spec, PreprocessConfig()), max_pixels=10**6)


# -- content types ------------------------------------------------------------------------------------------

ROWS = np.array([[1, 2], [3, 4]], np.float32)
JSON_ROWS = b'{"instances": [[1, 2], [3, 4]]}'


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (JSON_ROWS, "application/json"),
        (JSON_ROWS, "Application/JSON; charset=utf-8"),
        (JSON_ROWS, ""),
        (JSON_ROWS, "application/x-www-form-urlencoded"),
        (b"\n " + JSON_ROWS, "application/octet-stream"),
        (b'{"inputs": {"x": [[1, 2], [3, 4]]}}', "application/json"),
        (b'{"inputs": [[1, 2], [3, 4]]}', "application/json"),
        (b'{"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}', "application/json"),
        (encode_npy(ROWS), "application/x-npy"),
        (encode_npy(ROWS), "application/octet-stream"),
        (encode_npy(ROWS.astype(">i2")), ""),
        (encode_npz({"x": ROWS}), "application/x-npz"),
        (encode_npz({"x": ROWS}), "application/octet-stream"),
        (form(("x", None, b"[[1, 2], [3, 4]]")), FORM),
        (form(("any", "a.npy", encode_npy(ROWS[0])), ("name", "b.npy", encode_npy(ROWS[1:]))), FORM),
    ],
)
def test_every_kind_of_body_gives_the_same_rows(body, content_type):
    got = read(ROW, body, content_type)
    assert list(got) == ["x"]
    assert got["x"].dtype == np.float32
    assert np.array_equal(got["x"], ROWS)


@pytest.mark.parametrize(
    "content_type", ["image/png", "image/jpeg", "image/anything", "application/octet-stream", ""]
)
@pytest.mark.parametrize("data", [PNG, JPEG], ids=["png", "jpeg"])
def test_a_picture_is_one_row_whatever_kind_it_claims(data, content_type):
    assert np.array_equal(read(SMALL, data, content_type)["image"], pixels(data)[np.newaxis])


@pytest.mark.parametrize("kind", ["gif", "bmp", "webp", "tiff"])
def test_other_pictures_are_known_by_their_first_bytes(kind):
    data = picture(kind)
    assert read(SMALL, data, "")["image"].shape == (1, 8, 8, 3)


@pytest.mark.parametrize(
    ("inputs", "body", "content_type", "received"),
    [
        (ROW, JSON_ROWS, "text/plain", "text/plain"),
        (ROW, JSON_ROWS, "text/plain" * 1000, "text/plaintext"),
        (ROW, b"hello", "", "no content type"),
        (ROW, b"hello", "application/octet-stream", "application/octet-stream"),
        (ROW, PNG, "image/png", "image/png"),
        (ROW, PNG, "", "image/*"),
        (MIXED, PNG, "image/png", "image/png"),
        (PAIR, b"5", "", "no content type"),
    ],
)
def test_other_content_types_are_refused(inputs, body, content_type, received):
    message = refused(UnsupportedMedia, inputs, body, content_type).message
    assert f"Received: {received}" in message
    assert "application/json, application/x-npy" in message
    assert ("image/*, " in message) == (inputs is SMALL)


def test_what_a_picture_model_takes_is_told():
    assert (
        "Expected one of image/*, application/json"
        in refused(UnsupportedMedia, SMALL, b"x", "text/css").message
    )


def test_a_body_in_an_unknown_coding_or_an_empty_one_is_refused():
    headers = {b"content-type": b"application/json", b"content-encoding": b"br"}
    with pytest.raises(UnsupportedMedia, match="Received: 'br'"):
        reader(ROW).read(HttpRequest("POST", "/predict", b"", headers, JSON_ROWS))
    assert "Received: an empty one." in refused(InvalidRequest, ROW, b"").message


@pytest.mark.parametrize(
    ("body", "content_type", "error"),
    [
        (JSON_ROWS, "application/x-npy", InvalidInput),
        (JSON_ROWS, "application/x-npz", InvalidInput),
        (JSON_ROWS, FORM, InvalidRequest),
        (JSON_ROWS, "image/png", UndecodableImage),
        (encode_npy(ROWS), "application/json", InvalidJson),
        (encode_npz({"x": ROWS}), "application/x-npy", InvalidInput),
        (encode_npy(ROWS), "application/x-npz", InvalidInput),
        (PNG, "application/json", InvalidJson),
        (PNG[:100], "image/png", UndecodableImage),
    ],
)
def test_a_body_that_is_not_what_it_says_is_refused(body, content_type, error):
    refused(error, SMALL, body, content_type)


# -- JSON ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([[1, 2]], "Received: a list of 1."),
        (5, "Received: a int."),
        (None, "Received: null."),
        ({}, "exactly one member"),
        ({"rows": [[1, 2]]}, "Received: ['rows']."),
        ({"instances": [[1, 2]], "inputs": [[1, 2]]}, "exactly one member"),
        ({"instances": [[1, 2]], "signature_name": "x"}, "exactly one member"),
        ({"instances": []}, "at least one row. Received: a list of 0."),
        ({"instances": {}}, "Received: an object with []."),
        ({"instances": "abc"}, "Received: a str."),
        ({"instances": None}, "Received: null."),
        ({"instances": [1, 2]}, "Received: shape [2]."),
        ({"instances": [[1, 2], {"x": [1, 2]}]}, "Received: an object at instances[1]."),
        ({"instances": [[1, 2], None]}, "Received: null at instances[1]."),
        ({"instances": [[1, True]]}, "Received: true at instances[0][1]."),
        ({"instances": [[1, "2"]]}, "Received: '2' at instances[0][1]."),
        ({"instances": [[1, {}]]}, "Received: an object at instances[0][1]."),
        ({"instances": [[1, 2], [3]]}, "instances[1] has 1 entries where instances[0] has 2"),
        ({"instances": [{"x": [1, 2]}, [3, 4]]}, "instances[1] is a list of 2"),
        ({"instances": [{"x": [1, 2]}, {}]}, "Expected instances[1] to be keyed by"),
        ({"instances": [{"y": [1, 2]}]}, "Received: 'y'"),
        ({"instances": [{"x": [1, 2]}, {"x": [1]}]}, "instances['x'][1] has 1 entries"),
        ({"inputs": {}}, "Missing: ['x']"),
        ({"inputs": {"x": None}}, "Received: null at inputs['x']."),
        ({"inputs": {"x": {}}}, "inputs['x'] to be lists of numbers. Received: an object."),
        ({"inputs": "abc"}, "Received: 'abc'"),
        ({"inputs": None}, "Received: null"),
        ({"inputs": []}, "Received: shape [0]."),
        ({"inputs": {"x": [[1, 2]], "z": 1}}, "Received: 'z'"),
        ({"instances": [{"x" * 10**6: 1}]}, "Expected instances[0] to be keyed by"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_json_of_another_form_is_told(body, said):
    assert said in refused(InvalidInput, ROW, body).message


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_tokens_that_are_no_json_are_refused(token):
    refused(InvalidJson, ROW, f'{{"instances": [[1, {token}]]}}'.encode())


def test_text_hidden_from_the_quick_look_is_still_found():
    # The second "inputs" replaces the first: as many quotes as a plain body of another form has.
    body = b'{"inputs": [[1, 2]], "inputs": {"x": [["1", 2]]}}'
    assert "'1' at" in refused(InvalidInput, ROW, body).message


def test_nesting_is_refused_at_any_depth():
    deep = b'{"inputs":' + b"[" * 900 + b"]" * 900 + b"}"
    refused(InvalidInput, ROW, deep)
    refused(InvalidJson, ROW, b'{"inputs":' + b"[" * 10**5)
    objects = b'{"instances":[[' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"]]}"
    refused(InvalidInput, ROW, objects)


def test_a_single_sample_is_taken_as_columns_only():
    assert read(ROW, {"inputs": [1, 2]})["x"].tolist() == [[1, 2]]
    assert read(ROW, {"inputs": {"x": [1, 2]}})["x"].tolist() == [[1, 2]]
    refused(InvalidInput, ROW, {"instances": [1, 2]})


def test_several_inputs_are_read_by_name_in_any_order():
    wanted = {"left": [[1, 2], [3, 4]], "right": [5, 6]}
    for body in (
        {"instances": [{"right": 5, "left": [1, 2]}, {"left": [3, 4], "right": 6}]},
        {"inputs": {"right": [5, 6], "left": [[1, 2], [3, 4]]}},
    ):
        got = read(PAIR, body)
        assert {name: array.tolist() for name, array in got.items()} == wanted
        assert [str(array.dtype) for array in got.values()] == ["float32", "int32"]
    arrays = {"right": np.array([5, 6]), "left": ROWS}
    assert read(PAIR, encode_npz(arrays), "application/x-npz")["right"].tolist() == [5, 6]
    parts = form(
        ("right", "r.npy", encode_npy(np.array([5]))),
        ("left", None, b"[1, 2]"),
        ("right", None, b"[6]"),
        ("left", None, b"[3, 4]"),
    )
    assert {name: array.tolist() for name, array in read(PAIR, parts, FORM).items()} == wanted


@pytest.mark.parametrize(
    ("body", "content_type", "said"),
    [
        ({"instances": [[1, 2]]}, "application/json", "values without names"),
        ({"inputs": [[1, 2]]}, "application/json", "values without names"),
        (encode_npy(ROWS), "application/x-npy", "values without names"),
        ({"inputs": {"left": [[1, 2]]}}, "application/json", "Missing: ['right']"),
        ({"inputs": {"left": [[1, 2]], "right": [1, 2]}}, "application/json", "the same number of rows"),
        ({"inputs": {"left": [[1, 2]], "right": [0.5]}}, "application/json", "whole numbers"),
        (encode_npz({"left": ROWS}), "application/x-npz", "Missing: ['right']"),
        (form(("left", None, b"[1, 2]")), FORM, "Missing: ['right']"),
        (form(("lfet", None, b"[1, 2]")), FORM, "Did you mean 'left'?"),
    ],
)
def test_several_inputs_must_all_be_named(body, content_type, said):
    assert said in refused(InvalidInput, PAIR, body, content_type).message


def test_text_inputs_are_read():
    assert read(TEXT, {"instances": ["é", ""]})["text"].tolist() == ["é".encode(), b""]
    assert read(TEXT, {"inputs": "one"})["text"].tolist() == [b"one"]
    refused(InvalidInput, TEXT, {"instances": ["a", 1]})
    refused(InvalidInput, TEXT, {"instances": ["a", ["b"]]})


def test_text_may_come_as_base64():
    for body in ({"instances": [b64(b"\xff"), "a"]}, {"instances": [{"text": b64(b"\xff")}, {"text": "a"}]}):
        assert read(TEXT, body)["text"].tolist() == [b"\xff", b"a"]
    assert read(TEXT, {"inputs": b64(b"\xff")})["text"].tolist() == [b"\xff"]
    assert "to be base64" in refused(InvalidInput, TEXT, {"inputs": ["a", {"b64": "?"}]}).message
    nested = TensorSpec("text", (None, 2), "string")
    assert read(nested, {"instances": [["a", b64(b"\xff")]]})["text"].tolist() == [[b"a", b"\xff"]]


# -- pictures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [b64(PNG), b64(JPEG)]},
        {"instances": [{"image": b64(PNG)}, {"image": b64(JPEG)}]},
        {"inputs": {"image": [b64(PNG), b64(JPEG)]}},
        {"inputs": [b64(PNG), b64(JPEG)]},
    ],
)
def test_pictures_in_json_are_rows_in_order(body):
    assert np.array_equal(read(SMALL, body)["image"], np.stack([pixels(PNG), pixels(JPEG)]))


def test_a_single_picture_in_json_is_a_row():
    for body in ({"inputs": b64(PNG)}, {"inputs": {"image": b64(PNG)}}):
        assert np.array_equal(read(SMALL, body)["image"], pixels(PNG)[np.newaxis])


def test_base64_may_be_broken_into_lines():
    wrapped = {"b64": base64.encodebytes(PNG).decode()}
    assert "\n" in wrapped["b64"]
    assert np.array_equal(read(SMALL, {"instances": [wrapped]})["image"], pixels(PNG)[np.newaxis])


def test_pictures_and_numbers_go_together_by_name():
    got = read(MIXED, {"instances": [{"image": b64(PNG), "weight": [2]}]})
    assert np.array_equal(got["image"][0], pixels(PNG))
    assert got["weight"].tolist() == [[2]]


def test_a_form_keeps_the_order_of_its_files():
    array = np.full((2, 8, 8, 3), 7, np.uint8)
    body = form(("a", "1.png", PNG), ("a", "2.npy", encode_npy(array)), ("b", "3.jpg", JPEG))
    wanted = np.concatenate([pixels(PNG)[np.newaxis], array.astype(np.float32), pixels(JPEG)[np.newaxis]])
    assert np.array_equal(read(SMALL, body, FORM)["image"], wanted)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([b64(PNG), [1]], "Expected instances[1] to be"),
        ([b64(PNG), None], "Received: null."),
        ([b64(PNG), {"b64": 5}], "Expected instances[1]"),
        ([b64(PNG), {"b64": "not base64!"}], "Expected instances[1] to be base64."),
        ([b64(PNG), {"b64": "é"}], "Expected instances[1] to be base64."),
        ([b64(PNG), {"b64": "AA==", "x": 1}], "Expected instances[1]"),
    ],
)
def test_a_row_that_is_no_picture_is_told_by_its_index(rows, said):
    error = refused(InvalidInput, SMALL, {"instances": rows})
    assert said in error.message
    assert error.details["index"] == 1


def test_a_bad_picture_is_told_by_its_index():
    error = refused(UndecodableImage, SMALL, {"instances": [b64(PNG), b64(PNG[:60])]})
    assert error.message.startswith("instances[1]: Expected")
    assert error.details == {"index": 1}


def test_a_bad_part_is_told_by_its_index_and_name():
    for data, kind in (
        (b"no picture", UndecodableImage),
        (encode_npy(ROWS), InvalidInput),
        (encode_npy(ROWS)[:70], InvalidInput),
    ):
        error = refused(kind, SMALL, form(("f", "good.png", PNG), ("f", "bad.png", data)), FORM)
        assert "part 1 ('bad.png')" in error.message
        assert error.details == {"index": 1, "name": "bad.png"}
    error = refused(InvalidJson, PAIR, form(("left", None, b"[1, 2"), ("right", None, b"[1]")), FORM)
    assert error.message.startswith("part 0 ('left'): Expected a JSON body.")


def test_a_form_without_parts_and_parts_of_many_sizes_are_refused():
    refused(InvalidInput, SMALL, b"--frontier--\r\n", FORM)
    small = picture("png_rgb", 20, 10)
    assert "one shape" in refused(InvalidInput, FREE, form(("f", "a", PNG), ("f", "b", small)), FORM).message
    assert "one size" in refused(InvalidInput, FREE, {"instances": [b64(PNG), b64(small)]}).message


def test_pictures_for_a_model_of_numbers_are_refused():
    for body in ({"instances": [b64(PNG)]}, {"instances": [{"x": b64(PNG)}]}, {"inputs": b64(PNG)}):
        assert "takes no pictures" in refused(UnsupportedMedia, ROW, body).message
    assert "takes no pictures" in refused(UnsupportedMedia, ROW, form(("x", "a.png", PNG)), FORM).message


# -- limits -------------------------------------------------------------------------------------------------

SIZE = 40 * 30 * 3 * 4  # of a test picture as float32


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(*[("f", f"{i}.png", PNG) for i in range(3)]), FORM),
        ({"instances": [b64(PNG)] * 3}, "application/json"),
        (form(("f", "0.png", picture("png_rgb", 1, 1)), *[("f", f"{i}.png", PNG) for i in range(3)]), FORM),
        (encode_npz({"image": np.zeros((1, 61, 60, 3), np.uint8)}), "application/x-npz"),
        (encode_npy(np.zeros((1, 61, 60, 3), np.uint8)), "application/x-npy"),
        ({"instances": np.zeros((1, 61, 60, 3), int).tolist()}, "application/json"),
        (picture("png_rgb", 61, 60), "image/png"),
    ],
    ids=["form", "json pictures", "a small one first", "npz", "npy", "json", "one picture"],
)
def test_decoded_inputs_are_limited_however_they_come(body, content_type):
    error = refused(BodyTooLarge, FREE, body, content_type, max_input_bytes=3 * SIZE - 1)
    assert f"at most {3 * SIZE - 1} bytes once decoded (max_input_bytes)" in error.message


def test_the_limit_itself_is_allowed():
    body = form(*[("f", f"{i}.png", PNG) for i in range(3)])
    assert read(FREE, body, FORM, max_input_bytes=3 * SIZE)["image"].nbytes == 3 * SIZE


def test_the_limit_is_for_all_inputs_together():
    two = (SMALL, TensorSpec("other", (None, 8, 8, 3), "float32"))
    body = form(("image", "a", PNG), ("other", "b", PNG))
    assert "part 1" in refused(BodyTooLarge, two, body, FORM, max_input_bytes=8 * 8 * 3 * 4 + 1).message


def test_a_picture_of_too_many_pixels_is_told_by_its_index():
    error = refused(ImageTooLarge, SMALL, {"instances": [b64(PNG)]}, max_image_pixels=40 * 30 - 1)
    assert error.details == {"index": 0}


# -- anything -----------------------------------------------------------------------------------------------

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "left", "right", "b64"]), inner)
    ),
    max_leaves=8,
)
BODIES = st.dictionaries(st.sampled_from(["instances", "inputs", "x"]), VALUES, max_size=2).map(
    lambda value: json.dumps(value).encode()
)
TYPES = st.sampled_from(
    [
        "",
        "application/json",
        "application/x-npy",
        "application/x-npz",
        "image/png",
        FORM,
        "multipart/form-data",
        "text/plain",
    ]
)


@given(st.sampled_from([(ROW,), PAIR, (SMALL,), (TEXT,), MIXED]), BODIES | st.binary(max_size=60), TYPES)
def test_any_body_gives_fitting_arrays_or_a_refusal(inputs, body, content_type):
    with suppress(RequestError):
        arrays = read(inputs, body, content_type)
        assert list(arrays) == [spec.name for spec in inputs]
        for spec in inputs:
            array = arrays[spec.name]
            assert array.shape[1:] == spec.shape[1:]
            assert array.dtype == np.dtype(object if spec.dtype == "string" else spec.dtype)


def test_a_reader_starts_afresh():
    same = reader(FREE, max_input_bytes=SIZE)
    request = HttpRequest("POST", "/", b"", {b"content-type": FORM.encode()}, form(("f", "a", PNG)))
    assert np.array_equal(same.read(request)["image"], same.read(request)["image"])


def test_what_numpy_savez_writes_is_read():
    file = io.BytesIO()
    np.savez_compressed(file, x=ROWS)
    assert np.array_equal(read(ROW, file.getvalue(), "application/x-npz")["x"], ROWS)
