"""From tensors of a request to a model's inputs: every datatype, JSON and binary, and what does not fit."""

import io
import json
from base64 import b64encode

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from service.api.intake import Intake
from service.api.openinference.datatypes import encode_elements, widens
from service.api.openinference.inputs import read_inputs
from service.api.openinference.raw import read_raw
from service.api.openinference.requests import InputHead
from service.errors import BodyTooLarge, ImageTooLarge, InvalidInput, UndecodableImage
from service.images import image_input
from service.model_config import PreprocessConfig
from service.tensors import TensorSpec

DATATYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip
PICTURES = (np.arange(64, dtype=np.uint8).reshape(8, 8) * 4, np.eye(8, dtype=np.uint8) * 200)
NO_BYTES = memoryview(b"")


def intake(*specs, max_input_bytes=10_000, config=None):
    images = {
        spec.name: image
        for spec in specs
        if (image := image_input(spec, config or PreprocessConfig())) is not None
    }
    return Intake("m", specs, images, max_input_bytes, 1000)


def x(shape, dtype):
    return TensorSpec("x", (None, *shape), dtype)


def binary(datatype, shape, data, name="x"):
    return InputHead(name, datatype, shape, len(data), None)


def read(spec, datatype, shape, data, **options):
    """One input; bytes are binary, anything else is JSON's value."""
    size, view = (len(data), memoryview(data)) if isinstance(data, bytes) else (None, NO_BYTES)
    head = InputHead("x", datatype, shape, size, None if size is not None else data)
    return read_inputs([head], view, intake(spec, **options))["x"]


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def assert_same(got, expected):
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    assert got.tobytes() == expected.tobytes()
    assert got.flags.c_contiguous


# -- numbers ----------------------------------------------------------------------------------------------


@given(
    st.sampled_from(sorted(DATATYPES)).flatmap(
        lambda name: st.tuples(st.just(name), hnp.arrays(DATATYPES[name], (3, 2), unique=False))
    )
)
def test_binary_numbers_arrive_to_the_bit(case):
    datatype, values = case
    assert_same(read(x((2,), DATATYPES[datatype]), datatype, (3, 2), values.tobytes()), values)


@given(
    st.sampled_from(sorted(DATATYPES.keys() - {"FP16"})).flatmap(
        lambda name: st.tuples(
            st.just(name),
            hnp.arrays(
                DATATYPES[name],
                (3, 2),
                elements={"allow_nan": False, "allow_infinity": False} if name.startswith("FP") else None,
            ),
        )
    ),
    st.booleans(),
)
def test_json_numbers_arrive_to_the_bit_flat_or_nested(case, nested):
    datatype, values = case
    data = json.loads(json.dumps((values if nested else values.ravel()).tolist()))
    assert_same(read(x((2,), DATATYPES[datatype]), datatype, (3, 2), data), values)


@pytest.mark.parametrize("size", [1, 70])  # small ones take a shorter way
def test_json_integers_are_numbers_of_a_float_input(size):
    assert_same(read(x((size,), "float32"), "FP32", (1, size), [7] * size), np.full((1, size), 7, np.float32))


@pytest.mark.parametrize("datatype", [*DATATYPES, "BF16"])
@pytest.mark.parametrize("dtype", DATATYPES.values())
def test_what_widens_is_taken_and_what_might_not_fit_is_refused(datatype, dtype):
    source = np.dtype(ml_dtypes.bfloat16 if datatype == "BF16" else DATATYPES[datatype])
    values = np.array([[1, 0, 1]]).astype(source)
    if widens(datatype, dtype):
        assert_same(read(x((3,), dtype), datatype, (1, 3), values.tobytes()), values.astype(dtype))
        return
    with pytest.raises(InvalidInput, match=f"for input 'x'.*Received: {datatype}"):
        read(x((3,), dtype), datatype, (1, 3), values.tobytes())


def test_binary_nan_and_infinity_reach_the_model():
    values = np.array([[np.nan, -np.inf]], np.float32)
    assert_same(read(x((2,), "float32"), "FP32", (1, 2), values.tobytes()), values)


@pytest.mark.parametrize(
    ("datatype", "dtype", "data"),
    [
        ("FP32", "float32", [1, 3.5e38]),
        ("FP32", "float32", [True, 1]),
        ("FP32", "float32", ["1", 1]),
        ("FP32", "float32", [None, 1]),
        ("FP32", "float32", [[1], 2]),
        ("FP32", "float32", [[1, 2], [3, 4]]),
        ("FP32", "float32", [[[1, 2]]]),
        ("FP32", "float32", [1]),
        ("FP32", "float32", []),
        ("FP32", "float32", [1, 2, 3]),
        ("FP32", "float32", 1),
        ("FP32", "float32", "12"),
        ("FP32", "float32", {}),
        ("FP32", "float32", [{}, {}]),
        ("INT8", "int8", [1, 128]),
        ("INT8", "float32", [1, 128]),
        ("UINT8", "float32", [-1, 1]),
        ("UINT8", "float32", [0.5, 1]),
        ("INT64", "int64", [1.5, 1]),
        ("INT64", "int64", [2**63, 1]),
        ("UINT64", "uint64", [-1, 1]),
        ("INT32", "int32", [True, False]),
        ("BOOL", "bool", [0, 1]),
        ("FP16", "float16", [1, 2]),
        ("BF16", "float32", [1, 2]),
        ("BYTES", "float32", ["a", "b"]),
        ("FP32", "string", [1, 2]),
        ("FP31", "float32", [1, 2]),
    ],
)
def test_json_that_does_not_fit(datatype, dtype, data):
    with pytest.raises(InvalidInput, match="Received"):
        read(x((2,), dtype), datatype, (1, 2), data)


@pytest.mark.parametrize("shape", [(), (2,), (0, 2), (1, 3), (1, 2, 1), (2, 1), (10**18, 2)])
def test_shapes_that_do_not_fit(shape):
    for data in (np.zeros(2, np.float32).tobytes(), [1, 2]):
        with pytest.raises((InvalidInput, BodyTooLarge), match="Received"):
            read(x((2,), "float32"), "FP32", shape, data)


def test_an_axis_of_any_size_takes_any_but_none():
    values = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    assert_same(read(x((None, 2), "float32"), "FP32", (1, 3, 2), values.tobytes()), values)
    with pytest.raises(InvalidInput, match="no axis of it empty"):
        read(x((None, 2), "float32"), "FP32", (1, 0, 2), b"")


# -- several inputs ---------------------------------------------------------------------------------------

LEFT, RIGHT = TensorSpec("left", (None, 3), "float32"), TensorSpec("right", (None, 2), "int64")


def test_binary_inputs_follow_the_order_of_the_request_and_may_mix_with_json():
    right, left = np.array([[1, 2]]), np.array([[1, 2, 3]], np.float32)
    data = right.tobytes() + left.tobytes()
    heads = [
        binary("INT64", (1, 2), right.tobytes(), "right"),
        binary("FP32", (1, 3), left.tobytes(), "left"),
    ]
    got = read_inputs(heads, memoryview(data), intake(LEFT, RIGHT))
    assert_same(got["left"], left)
    assert_same(got["right"], right)
    heads[0] = InputHead("right", "INT64", (1, 2), None, [1, 2])
    got = read_inputs(heads, memoryview(left.tobytes()), intake(LEFT, RIGHT))
    assert_same(got["left"], left)
    assert_same(got["right"], right)


def test_names_rows_and_bytes_must_add_up():
    left, right = (
        InputHead("left", "FP32", (1, 3), None, [1, 2, 3]),
        InputHead("right", "INT64", (1, 2), None, [1, 2]),
    )
    two = InputHead("right", "INT64", (2, 2), None, [1, 2, 3, 4])
    other = InputHead("rigth", "INT64", (1, 2), None, [1, 2])
    cases = [
        ([left], "Missing: \\['right'\\]"),
        ([left, right, left], "'left' twice"),
        ([left, other], "Did you mean 'right'"),
        ([left, two], "same number of rows"),
    ]
    for heads, match in cases:
        with pytest.raises(InvalidInput, match=match):
            read_inputs(heads, NO_BYTES, intake(LEFT, RIGHT))
    with pytest.raises(InvalidInput, match="Expected 0 bytes behind the JSON"):
        read_inputs([left, right], memoryview(b"x"), intake(LEFT, RIGHT))
    short = InputHead("left", "FP32", (1, 3), 12, None)
    with pytest.raises(InvalidInput, match=r"Expected 12 bytes behind the JSON.*Received: 11"):
        read_inputs([short, right], memoryview(bytes(11)), intake(LEFT, RIGHT))
    with pytest.raises(
        InvalidInput, match=r"Expected 12 bytes for input 'left', shape \[1, 3\] of FP32. Received: 8"
    ):
        read_inputs(
            [InputHead("left", "FP32", (1, 3), 8, None), right], memoryview(bytes(8)), intake(LEFT, RIGHT)
        )


def test_inputs_are_counted_as_the_model_takes_them():
    pixels = bytes(100)
    spec = x((100,), "float32")
    assert read(spec, "UINT8", (1, 100), pixels, max_input_bytes=400).nbytes == 400
    with pytest.raises(BodyTooLarge, match="at most 399 bytes"):
        read(spec, "UINT8", (1, 100), pixels, max_input_bytes=399)
    with pytest.raises(BodyTooLarge):
        read(x((2,), "string"), "BYTES", (1, 2), encode_elements([b"a" * 50, b"b" * 50]), max_input_bytes=99)


# -- text and pictures ------------------------------------------------------------------------------------


def test_text_binary_and_json():
    expected = np.array([["hé".encode(), b"\xff"]], dtype=object)
    got = read(x((2,), "string"), "BYTES", (1, 2), encode_elements(["hé".encode(), b"\xff"]))
    np.testing.assert_array_equal(got, expected)
    got = read(x((2,), "string"), "BYTES", (1, 2), ["hé", ""])
    np.testing.assert_array_equal(got, np.array([["hé".encode(), b""]], dtype=object))
    for bad in ([1, 2], ["a"], "ab", [["a"], ["b"]], [None, "a"]):
        with pytest.raises(InvalidInput):
            read(x((2,), "string"), "BYTES", (1, 2), bad)


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
@pytest.mark.parametrize("form", ["binary", "json"])
def test_bytes_are_pictures_for_an_input_that_takes_them(shape, form):
    spec = x((8, 8, 1), "float32")
    files = [png(pixels) for pixels in PICTURES]
    data = encode_elements(files)
    if form == "json":
        texts = [b64encode(file).decode() for file in files]
        data = texts if shape == (2,) else [[text] for text in texts]
    assert_same(read(spec, "BYTES", shape, data), np.stack(PICTURES)[..., np.newaxis].astype(np.float32))


def test_pictures_that_are_none():
    spec = x((8, 8, 1), "float32")
    good = png(PICTURES[0])
    for shape in ((), (0,), (1, 2), (1, 1, 1), (1, 8, 8, 1)):
        with pytest.raises(InvalidInput, match="one image file a row"):
            read(spec, "BYTES", shape, encode_elements([good]))
    with pytest.raises(UndecodableImage, match=r"data of input 'x'\[1\]"):
        read(spec, "BYTES", (2,), encode_elements([good, b"text"]))
    with pytest.raises(InvalidInput, match="base64"):
        read(spec, "BYTES", (1,), ["no base64!"])
    with pytest.raises(ImageTooLarge):
        read(spec, "BYTES", (1,), encode_elements([png(np.zeros((40, 40), np.uint8))]))
    with pytest.raises(BodyTooLarge):
        read(spec, "BYTES", (2,), encode_elements([good, good]), max_input_bytes=2 * 256 - 1)
    free = x((None, None, 1), "float32")
    with pytest.raises(InvalidInput, match="one size"):
        read(free, "BYTES", (2,), encode_elements([good, png(np.zeros((4, 4), np.uint8))]))


def test_numbers_for_an_input_that_takes_pictures_stay_as_they_are():
    pixels = np.stack(PICTURES)[..., np.newaxis]
    config = PreprocessConfig(rescale=0.5)
    got = read(x((8, 8, 1), "float32"), "UINT8", pixels.shape, pixels.tobytes(), config=config)
    assert_same(got, pixels.astype(np.float32))


# -- raw bodies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DATATYPES.values())
def test_a_raw_body_is_one_row(dtype):
    values = np.array([[1, 0, 1]], dtype)
    assert_same(read_raw(values.tobytes(), intake(x((3,), dtype)))["x"], values)
    assert_same(read_raw(values.tobytes(), intake(x((None,), dtype)))["x"], values)
    assert_same(
        read_raw(values.tobytes(), intake(x((1, None, 3), dtype)))["x"], values[:, np.newaxis, np.newaxis]
    )


def test_a_raw_picture_and_raw_text():
    spec = x((8, 8, 1), "float32")
    expected = PICTURES[0][np.newaxis, ..., np.newaxis].astype(np.float32)
    assert_same(read_raw(png(PICTURES[0]), intake(spec))["x"], expected)
    assert_same(read_raw(expected.tobytes(), intake(spec))["x"], expected)
    for shape in ((), (1,), (None,)):
        got = read_raw(b"\xffany", intake(x(shape, "string")))["x"]
        assert got.shape == (1,) * (len(shape) + 1)
        assert got.item() == b"\xffany"


@pytest.mark.parametrize(
    ("specs", "size"),
    [
        ([x((3,), "float32")], 11),
        ([x((3,), "float32")], 24),
        ([x((3,), "float32")], 0),
        ([x((None,), "float32")], 5),
        ([x((None,), "float32")], 0),
        ([x((None, None), "float32")], 16),
        ([x((2,), "string")], 4),
        ([LEFT, RIGHT], 28),
    ],
)
def test_raw_bodies_that_do_not_fit(specs, size):
    with pytest.raises(InvalidInput, match="Received"):
        read_raw(bytes(size), intake(*specs))


def test_a_raw_body_that_is_neither_picture_nor_numbers():
    with pytest.raises(UndecodableImage):
        read_raw(bytes(255), intake(x((8, 8, 1), "float32")))
