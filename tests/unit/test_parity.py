import math
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.engines.parity import golden_rows, prove, relative_difference
from service.errors import LoadError
from service.payloads.codecs import encode_npy, encode_npz
from service.tensors import ModelSpec, OutputSpec, TensorSpec

SPEC = ModelSpec(
    inputs=(TensorSpec("left", (None, 2), "float32"), TensorSpec("right", (None,), "int64")),
    outputs=(
        OutputSpec("sum", (None, 2), "float32", path="add"),
        OutputSpec("same", (None, 2), "float32", path="add"),
    ),
    layers=(),
)
ROWS = {"left": np.array([[1, 2], [3, 4]], np.float32), "right": np.array([10, 20])}


class AddingEngine:
    """Adds `right` to each column of `left`; `error` is what it gets wrong."""

    name = "adding"

    def __init__(self, error=0.0, spec=SPEC):
        self.spec = spec
        self.error = error
        self.compiled = []

    def compile(self, outputs):
        self.compiled.append(outputs)
        return self

    def run(self, batch):
        assert all(array.flags.c_contiguous for array in batch.values())
        return {
            "add": batch["left"] + batch["right"][:, np.newaxis].astype(np.float32) + np.float32(self.error)
        }


def keras_itself(arrays):
    left, right = arrays
    total = left + right[:, np.newaxis].astype(np.float32)
    return [total, total]


def proved(engine, rows=ROWS, tolerance=1e-5):
    return prove(engine, keras_itself, rows, source="seeded", tolerance=tolerance)


def test_an_engine_that_computes_the_same_is_proved():
    engine = AddingEngine()
    parity = proved(engine)
    assert (parity.largest, parity.tolerance, parity.rows, parity.source) == (0.0, 1e-5, 2, "seeded")
    assert engine.compiled == [("add",)]


def test_the_difference_is_relative_to_the_outputs_scale():
    assert proved(AddingEngine(error=0.24), tolerance=0.0101).largest == pytest.approx(0.01, rel=1e-5)
    with pytest.raises(LoadError, match=r"output 'sum' of the adding engine .* a difference of 0\.00999"):
        proved(AddingEngine(error=0.24), tolerance=0.0099)


@pytest.mark.parametrize("error", [math.nan, math.inf])
def test_a_result_that_is_not_finite_is_never_the_same(error):
    with pytest.raises(LoadError):
        proved(AddingEngine(error=error), tolerance=1e9)


def test_expected_outputs_in_the_golden_file_must_be_reproduced_too():
    right = {"same": np.array([[11, 12], [23, 24]])}
    assert proved(AddingEngine(), ROWS | right).largest == 0.0
    with pytest.raises(LoadError, match="'same'"):
        proved(AddingEngine(), ROWS | {"same": right["same"] + 1})
    with pytest.raises(LoadError, match="'same'"):
        proved(AddingEngine(), ROWS | {"same": right["same"][:1]})


def test_golden_rows_may_be_of_another_dtype_and_order():
    rows = {"left": np.asfortranarray(ROWS["left"].astype(">f8")), "right": ROWS["right"].astype(np.int8)}
    assert proved(AddingEngine(), rows).largest == 0.0


@pytest.mark.parametrize(
    "change",
    [
        {"left": np.zeros((2, 3))},
        {"left": np.zeros((3, 2))},
        {"left": np.zeros((0, 2)), "right": np.zeros(0, int)},
        {"right": np.array([0.5, 1])},
        {"left": np.array([["a", "b"]] * 2)},
        {"left": np.full((2, 2), np.nan)},
    ],
)
def test_rows_that_do_not_fit_the_model_are_told_before_it_runs(change):
    with pytest.raises(LoadError, match="Expected") as caught:
        proved(AddingEngine(), ROWS | change)
    assert "golden.npz" in caught.value.mend


def test_text_reaches_the_engine_as_bytes():
    spec = ModelSpec(
        (TensorSpec("text", (None,), "string"),), (OutputSpec("echo", (None,), "string", path="echo"),), ()
    )

    class Echo(AddingEngine):
        def run(self, batch):
            return {"echo": batch["text"]}

    for rows in (np.array([b"one", b"two"], dtype=object), np.array(["one", "two"])):
        expected = [np.array([b"one", b"two"], dtype=object)]
        parity = prove(Echo(spec=spec), lambda _, e=expected: e, {"text": rows}, source="seeded", tolerance=0)
        assert parity.largest == 0.0


# -- golden.npz ---------------------------------------------------------------------------------------------


def test_golden_rows_lie_beside_the_models_file(tmp_path):
    assert golden_rows(tmp_path / "model.h5", ("left",)) is None
    (tmp_path / "golden.npz").write_bytes(encode_npz(ROWS | {"sum": np.zeros(2)}))
    rows = golden_rows(tmp_path / "model.h5", ("left", "right"))
    assert sorted(rows) == ["left", "right", "sum"]
    assert np.array_equal(rows["left"], ROWS["left"])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 but no archive",
        encode_npz(ROWS)[:-30],
        encode_npy(ROWS["left"]),
        b"\x80\x04\x95",
    ],
    ids=["empty", "magic only", "cut off", "npy", "pickle"],
)
def test_a_broken_golden_file_is_told(tmp_path, content):
    (tmp_path / "golden.npz").write_bytes(content)
    with pytest.raises(LoadError, match=r"golden\.npz") as caught:
        golden_rows(tmp_path / "model.h5", ("left",))
    assert "numpy.savez" in caught.value.mend


def test_objects_in_a_golden_file_are_refused(tmp_path):
    np.savez(tmp_path / "golden.npz", left=np.array([{}], dtype=object))
    with pytest.raises(LoadError, match="unpickling"):
        golden_rows(tmp_path / "model.h5", ("left",))


def test_a_golden_file_without_an_input_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "golden.npz", "w") as archive:
        archive.writestr("left.npy", encode_npy(ROWS["left"]))
    with pytest.raises(LoadError, match=r"Missing: \['right'\]"):
        golden_rows(tmp_path / "model.h5", ("left", "right"))


# -- the measure --------------------------------------------------------------------------------------------

NUMBERS = hnp.arrays(np.float32, (2, 3), elements=st.floats(-1000, 1000, width=32))


@given(NUMBERS, NUMBERS)
def test_the_measure_is_the_largest_difference_over_the_largest_magnitude(got, wanted):
    scale = max(np.abs(wanted.astype(float)).max(), np.finfo(np.float32).tiny)
    assert relative_difference(got, wanted) == np.abs(got.astype(float) - wanted.astype(float)).max() / scale
    assert relative_difference(wanted, wanted) == 0.0


@pytest.mark.parametrize(
    ("got", "wanted", "same"),
    [
        ([1, math.nan], [1, math.nan], True),
        ([1, math.inf], [1, math.inf], True),
        ([1, math.inf], [1, -math.inf], False),
        ([1, math.nan], [1, 2], False),
        ([1, 2], [1, math.nan], False),
        ([1, math.inf], [1, 2], False),
        ([0, 0], [0, 0], True),
        ([[1, 2]], [1, 2], False),
        ([math.nan] * 2, [math.nan] * 2, True),
    ],
)
def test_what_is_not_finite_must_be_equal(got, wanted, same):
    expected = 0.0 if same else math.inf
    assert relative_difference(np.array(got, np.float32), np.array(wanted, np.float32)) == expected


def test_other_kinds_must_be_equal():
    for one, other in (
        (np.array([True]), np.array([False])),
        (np.array([b"a"], object), np.array([b"b"], object)),
    ):
        assert relative_difference(one, one) == 0.0
        assert relative_difference(one, other) == math.inf
    assert relative_difference(np.array([-128], np.int8), np.array([-128], np.int8)) == 0.0
    assert relative_difference(np.array([-127], np.int8), np.array([-128], np.int8)) == 1 / 128
