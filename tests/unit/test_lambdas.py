"""What is told of stored code, and that reading it runs nothing and ends well on anything."""

import base64
import json
import marshal
import struct
from pathlib import Path

import h5py
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.loading.lambdas import MAX_LISTED, summarise

CORPUS = Path(__file__).parents[1] / "corpus"


def worrying(values):
    import os  # noqa: PLC0415 -- what a stored function would do

    def inner(text):
        return eval(text)  # noqa: S307 -- never called

    os.system("touch /tmp/layertap")  # noqa: S605 -- never called
    return inner(values), "os.path", 10**40


CODE = marshal.dumps(worrying.__code__)


def stored(data):
    return [base64.b64encode(data).decode(), None, None]


@pytest.mark.parametrize("version", ["1.0.8", "1.2.2", "2.0.8", "2.2.4"])
def test_the_lambda_of_every_old_keras_is_told_by_its_constants(version):
    with h5py.File(CORPUS / "keras" / f"{version}_lam.h5") as file:
        config = json.loads(file.attrs["model_config"])
    layers = config["config"] if isinstance(config["config"], list) else config["config"]["layers"]
    (layer,) = [layer for layer in layers if layer["class_name"] == "Lambda"]
    summary = summarise(layer["config"]["function"])
    assert summary.functions == ("<lambda>",)
    assert summary.constants == ("2.0", "1.0")
    assert summary.reaching_out == ()
    assert summary.trouble is None


@pytest.mark.parametrize(
    "function",
    [
        stored(CODE),
        base64.b64encode(CODE).decode(),
        base64.encodebytes(CODE).decode(),
        {"class_name": "__lambda__", "config": {"code": base64.b64encode(CODE).decode()}},
    ],
)
def test_names_that_reach_out_are_told_in_every_spelling(function):
    summary = summarise(function)
    assert {"os", "system", "eval"} <= set(summary.reaching_out)
    assert "inner" in summary.functions
    assert "'touch /tmp/layertap'" in summary.constants


def old_code(layout, name=b"lam", names=(b"K", b"relu")):
    """A function as an older Python marshals it, by the layout of its code object."""

    def text(value):
        return b"s" + struct.pack("<i", len(value)) + value

    def items(values):
        return b"(" + struct.pack("<i", len(values)) + b"".join(values)

    values = [text(b"bytecode"), items([b"N", b"i" + struct.pack("<i", 7)]), items([text(n) for n in names])]
    values += [items([]), items([]), items([]), text(b"train.py"), text(name)]
    return b"c" + bytes(4 * layout) + b"".join(values) + struct.pack("<i", 3) + text(b"")


@pytest.mark.parametrize(
    ("numbers", "python"), [(4, "Python 2"), (5, "Python 3.0 to 3.7"), (6, "Python 3.8 to 3.10")]
)
def test_code_of_older_pythons_is_read_by_its_own_layout(numbers, python):
    summary = summarise(stored(old_code(numbers)))
    assert summary.python == python
    assert (summary.functions, summary.names, summary.constants) == (("lam",), ("K", "relu"), ("7",))


def test_references_to_one_tuple_in_another_do_not_multiply():
    layers = b"".join(
        b"\xa9\x02" + b"r" + struct.pack("<I", n) + b"r" + struct.pack("<I", n) for n in range(200)
    )
    nest = b"\xa9\x01i\x05\x00\x00\x00" + layers  # each one holds the one before it twice
    constants = b"(" + struct.pack("<i", 201) + nest
    code = old_code(6).replace(b"(\x02\x00\x00\x00Ni\x07\x00\x00\x00", constants, 1)
    assert summarise(stored(code)).constants == ("5",)


def test_what_is_listed_is_bounded_and_printable():
    names = [b"n%d" % n for n in range(500)] + [b"\x1b[2J" + b"x" * 500]
    summary = summarise(stored(old_code(6, name=b"\x1b]0;", names=names)))
    assert len(summary.names) == MAX_LISTED
    assert all(text.isprintable() for text in (*summary.names, *summary.functions))


@pytest.mark.parametrize(
    "function", [None, {}, [], "", 5, ["x"], [["x"]], {"config": 5}, {"config": {"code": "AAAA"}}]
)
def test_what_is_no_code_says_why(function):
    summary = summarise(function)
    assert summary.python is None
    assert summary.trouble


@given(st.lists(st.tuples(st.integers(0, len(CODE) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes_end_in_a_summary(changes):
    data = bytearray(CODE)
    for place, value in changes:
        data[place] = value
    summary = summarise(stored(bytes(data)))
    assert (summary.python is None) == (summary.trouble is not None)


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_summary(data):
    summarise(stored(b"\xe3" + data))
    summarise(stored(b"(" + data))


def test_nothing_is_read_beyond_a_functions_depth():
    deep = b"(\x01\x00\x00\x00" * 100_000
    assert "more than a function" in summarise(stored(deep)).trouble
