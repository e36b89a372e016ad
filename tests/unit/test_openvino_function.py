"""Running graphs in OpenVINO, on graphs made by hand: no TensorFlow."""

import numpy as np
import pytest

from service.engines import openvino_library
from service.engines.converted import Converted, IndexCheck
from service.engines.openvino import OpenVINOOptions, first_line, open_function
from service.errors import InputRejected, LoadError
from service.tensors import TensorSpec

ov = openvino_library.library()
from openvino import opset13  # noqa: E402  OpenVINO is imported by its own door, without telemetry

TABLE = np.arange(12, dtype="float32").reshape(4, 3)


class Reserve:
    """Stands in for TensorFlow: says that it was asked."""

    def __init__(self):
        self.batches = []

    def run(self, batch):
        self.batches.append(batch)
        return {"doubled": batch["x"] * 2}


def doubled():
    """x (None, 3) float32 -> doubled, and x itself under the name `same`."""
    x = opset13.parameter([-1, 3], np.float32)
    x.output(0).set_names({"input_0"})
    twice = opset13.multiply(x, opset13.constant(2.0, np.float32))
    twice.output(0).set_names({"output_0000", "output_0001"})
    tensors = {
        path: TensorSpec(f"output_000{place}", (None, 3), "float32")
        for place, path in enumerate(("doubled", "again"))
    }
    return Converted(
        ov.Model([opset13.result(twice)], [x]),
        (TensorSpec("x", (None, 3), "float32"),),
        ("again", "x", "doubled"),
        tensors,
        {"x": "x"},
        (),
    )


def looked_up():
    """ids (None, 2) int32 -> rows of TABLE, and ids + 1 that no look-up is behind."""
    ids = opset13.parameter([-1, 2], np.int32)
    ids.output(0).set_names({"input_0"})
    vectors = opset13.gather(opset13.constant(TABLE), ids, opset13.constant(0))
    vectors.output(0).set_names({"output_0000"})
    indices = opset13.add(ids, opset13.constant(0, np.int32))
    indices.output(0).set_names({"indices_0000"})
    following = opset13.add(ids, opset13.constant(1, np.int32))
    following.output(0).set_names({"output_0001"})
    return Converted(
        ov.Model([opset13.result(node) for node in (vectors, indices, following)], [ids]),
        (TensorSpec("ids", (None, 2), "int32"),),
        ("vectors", "following"),
        {
            "vectors": TensorSpec("output_0000", (None, 2, 3), "float32"),
            "following": TensorSpec("output_0001", (None, 2), "int32"),
        },
        {},
        (IndexCheck(TensorSpec("indices_0000", (None, 2), "int32"), len(TABLE), ("vectors",)),),
    )


def opened(converted, reserve=None):
    return open_function(converted, OpenVINOOptions(threads=1), lambda: reserve)


def test_tensors_come_in_the_order_asked_for_also_those_that_are_one_and_the_same():
    got = opened(doubled()).run({"x": np.ones((2, 3), "float32")})
    assert list(got) == ["again", "x", "doubled"]
    np.testing.assert_array_equal(got["doubled"], np.full((2, 3), 2))
    np.testing.assert_array_equal(got["again"], got["doubled"])
    np.testing.assert_array_equal(got["x"], np.ones((2, 3)))


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 11, 100])
def test_a_batch_of_any_size_is_put_together_from_its_parts(rows):
    function = opened(doubled())
    function.use_sizes([1, 2, 4])
    values = np.arange(rows * 3, dtype="float32").reshape(rows, 3)
    np.testing.assert_array_equal(function.run({"x": values})["doubled"], values * 2)


def test_preparing_shows_what_comes_out_at_every_size_in_use():
    function, seen = opened(doubled()), {}
    function.prepare({"x": TABLE}, 6, lambda size, got: seen.update({size: got["doubled"].copy()}))
    assert set(function.sizes) <= set(seen)
    assert function.sizes[-1] == 6  # calls are short: all sizes pay
    for size, got in seen.items():
        np.testing.assert_array_equal(got, TABLE[np.arange(size) % 4] * 2)


def test_what_is_said_against_a_size_ends_the_preparation():
    def refuse(size, _):
        if size == 2:
            raise LoadError("two rows differ")

    with pytest.raises(LoadError, match="two rows differ"):
        opened(doubled()).prepare({"x": TABLE}, 4, refuse)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2.0**120, -(2.0**120)])
def test_numbers_that_openvino_may_treat_otherwise_go_to_the_reserve(bad):
    reserve = Reserve()
    function = opened(doubled(), reserve)
    values = np.ones((3, 3), "float32")
    values[2, 1] = bad
    function.run({"x": values})
    assert [batch["x"] is values for batch in reserve.batches] == [True]
    function.run({"x": np.ones((3, 3), "float32")})
    assert len(reserve.batches) == 1


@pytest.mark.parametrize("bad", [4, -1, 2**31 - 1, -(2**31)])
def test_an_index_that_the_table_lacks_is_rejected(bad):
    function = opened(looked_up())
    function.use_sizes([1, 2])
    ids = np.array([[0, 1], [3, 2], [1, bad], [0, 0], [bad, 0]], "int32")
    with pytest.raises(InputRejected, match=rf"indices\[2,1\] = {bad} is not in \[0, 4\)"):
        function.run({"ids": ids})
    np.testing.assert_array_equal(function.run({"ids": ids[:2]})["vectors"], TABLE[ids[:2]])


@pytest.mark.parametrize("large", [2**23, -(2**23), 2**31 - 1])
def test_whole_numbers_that_float32_may_not_hold_go_to_the_reserve_once_indices_are_checked(large):
    reserve, ids = Reserve(), np.array([[0, large]], "int32")
    reserve.run = lambda batch: reserve.batches.append(batch) or {}
    opened(looked_up().select(("following",)), reserve).run({"ids": ids})
    assert len(reserve.batches) == 1
    with pytest.raises(InputRejected, match=f"= {large} is not in"):
        opened(looked_up(), reserve).run({"ids": ids})
    assert len(reserve.batches) == 1


def test_a_selection_computes_and_checks_only_what_it_needs():
    ids = np.array([[9, 1]], "int32")
    np.testing.assert_array_equal(
        opened(looked_up().select(("following",))).run({"ids": ids})["following"], ids + 1
    )
    with pytest.raises(InputRejected):
        opened(looked_up().select(("vectors",))).run({"ids": ids})


def test_the_weights_of_a_graph_are_counted():
    assert TABLE.nbytes <= looked_up().weights_bytes <= TABLE.nbytes + 32
    assert looked_up().select(("following",)).weights_bytes < TABLE.nbytes


def test_openvinos_errors_are_told_by_their_first_telling_line():
    error = RuntimeError(
        "Exception from src/inference/src/cpp/core.cpp:112:\nCheck 'ok' failed at src/core.cpp:1:\nNo rule for Foo:\n"
    )
    assert first_line(error) == "No rule for Foo"
    assert first_line(RuntimeError("")) == "RuntimeError"


def test_openvino_is_imported_without_the_library_that_reports_to_its_makers():
    import sys  # noqa: PLC0415 only this test looks

    assert openvino_library.is_installed()
    assert sys.modules["openvino_telemetry"] is None


# -- memory -----------------------------------------------------------------------------------------------


def in_place(*steps):
    """x (None, 64) float32 -> operations that could work in their input's place."""
    x = opset13.parameter([-1, 64], np.float32)
    x.output(0).set_names({"input_0"})
    node = x
    for step in steps:
        node = step(node)
    node.output(0).set_names({"output_0000"})
    return Converted(
        ov.Model([opset13.result(node)], [x]),
        (TensorSpec("x", (None, 64), "float32"),),
        ("y",),
        {"y": TensorSpec("output_0000", (None, 64), "float32")},
        {},
        (),
    )


STEPS = {
    "relu": [opset13.relu],
    "clamp": [lambda node: opset13.clamp(node, -0.5, 0.5)],
    "add": [lambda node: opset13.add(node, opset13.constant(1.0, np.float32))],
    "swish": [opset13.swish],
    "softmax": [lambda node: opset13.softmax(node, 1)],
    "reshape, relu": [
        lambda node: opset13.reshape(node, np.array([-1, 8, 8]), False),
        opset13.relu,
        lambda node: opset13.reshape(node, np.array([-1, 64]), False),
    ],
}


@pytest.mark.parametrize("name", STEPS)
def test_memory_that_nobody_can_write_to_is_taken_without_a_copy(name, tmp_path):
    """The pages are mapped for reading: whoever wrote to them would end the process."""
    values = np.random.default_rng(3).normal(size=(2048, 64)).astype("float32")
    values.tofile(tmp_path / "body")
    mapped = np.memmap(tmp_path / "body", "float32", "r", shape=values.shape)
    function = opened(in_place(*STEPS[name]))
    seen = watched(function)
    for rows in (2048, 700):
        got = function.run({"x": np.asarray(mapped[:rows])})
        assert got["y"].tobytes() == function.run({"x": values[:rows].copy()})["y"].tobytes()
    assert np.shares_memory(seen[0], mapped)
    assert mapped.tobytes() == values.tobytes()


def test_short_read_only_rows_and_rows_in_another_order_are_copied():
    function = opened(in_place(*STEPS["relu"]))
    seen = watched(function)
    short = np.frombuffer(bytes(4 * 64), "float32").reshape(1, 64)
    askew = np.ones((64, 2048), "float32").T
    for rows in (short, askew):
        function.run({"x": rows})
        assert not np.shares_memory(seen[0], rows)
        seen.clear()


def test_what_openvino_was_lent_is_kept_until_the_next_batch():
    function = opened(in_place(*STEPS["relu"]))
    function.run({"x": np.frombuffer(np.ones((2048, 64), "float32").tobytes(), "float32").reshape(2048, 64)})
    again = function._request.get_input_tensor(0).data
    assert again.min() == again.max() == 1


def watched(function):
    """The arrays that the function gives OpenVINO from now on."""
    seen, tensor = [], function._tensor

    def watch(array, **options):
        seen.append(array)
        return tensor(array, **options)

    function._tensor = watch
    return seen
