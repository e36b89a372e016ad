"""What is kept of a tensor tells the right values from wrong ones, whole or by places."""

import numpy as np
import pytest

from service.engines import expectations
from service.engines.expectations import expect

LARGE = (3, 40, 40, 16)


def values(shape, dtype="float32", seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 100).astype(dtype)


@pytest.mark.parametrize("shape", [(2, 5), (3,), (2, 4, 4, 3), LARGE])
@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_bytes_and_back_recognise_the_same_values(shape, dtype):
    array = values(shape, dtype)
    kept = expectations.unpack(expectations.pack({"a/b:0": expect(array)}))
    assert kept["a/b:0"].difference(array) == 0
    assert kept["a/b:0"].difference(array[:1]) == 0
    assert kept["a/b:0"].difference(np.concatenate([array, array])) == 0


def test_large_tensors_are_kept_in_part():
    assert len(b"".join(expectations.pack({"a": expect(values(LARGE))}).values())) < values(LARGE).nbytes


@pytest.mark.parametrize("shape", [(2, 5), LARGE])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda array: array * np.float32(1.001),
        lambda array: array[::-1],
        lambda array: array.astype("float64"),
        lambda array: array[..., :-1],
        lambda array: np.roll(array, 1, axis=-1),
        lambda array: np.full_like(array, np.nan),
        lambda array: array.reshape(len(array), -1, 1),
    ],
)
def test_other_values_shapes_and_types_are_recognised(shape, spoil):
    array = values(shape)
    assert expect(array).difference(spoil(array)) > 1e-4


def test_the_scale_is_that_of_the_whole_row():
    array = np.ones(LARGE, "float32")
    array[0, 17, 23, 5] = 1000
    moved = array + np.float32(0.001)
    assert expect(array).difference(moved[:1]) == pytest.approx(1e-6, rel=0.1)
    assert expect(array[1:]).difference(moved[1:]) == pytest.approx(1e-3, rel=0.1)
