import io
import json
import struct
import tracemalloc
import warnings
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.errors import BodyTooLarge, InvalidInput, InvalidJson
from service.payloads.codecs import decode_json, decode_npy, decode_npz, encode_json, encode_npy, encode_npz

MIB = 2**20
PLAIN = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(sizes=(16, 32, 64), endianness="?"),
)
ARRAYS = hnp.arrays(PLAIN, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4))


def npy(shape="(1,)", descr="'<f4'", data=b"\0\0\x80?", *, version=(1, 0), order="False"):
    """An npy file by hand, so that its header can lie."""
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    size = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + size + header + data


def saved(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def npz(members, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the second member of a name
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def equal(got, wanted):
    return got.dtype == wanted.dtype and np.array_equal(got, wanted, equal_nan=got.dtype.kind == "f")


# -- JSON ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"[1", b"NaN", b"[Infinity]", b"[-Infinity]", b"1e999", b"\xff", b'"\\ud800"', b"{1:2}", b"[1,]"],
)
def test_what_is_no_json_is_refused(body):
    with pytest.raises(InvalidJson) as caught:
        decode_json(body)
    assert caught.value.message.startswith("Expected a JSON body. Received: ")


def test_json_errors_tell_the_place():
    with pytest.raises(InvalidJson, match=r"line 2 column 2"):
        decode_json(b"[1,\n x]")


def test_depth_is_an_error_and_no_crash():
    with pytest.raises(InvalidJson):
        decode_json(b"[" * 100_000)


def test_numbers_beyond_64_bits_become_floats():
    assert decode_json(b"[18446744073709551615, 18446744073709551616]") == [2**64 - 1, 2.0**64]


@given(hnp.arrays(st.sampled_from([np.float16, np.float32, np.float64]), 5))
def test_floats_survive_json_in_their_own_width(array):
    back = json.loads(encode_json({"x": array}))["x"]
    finite = np.isfinite(array)
    assert [value is None for value in back] == (~finite).tolist()
    assert np.array_equal(np.array([v for v in back if v is not None], array.dtype), array[finite])


@given(hnp.arrays(hnp.integer_dtypes(endianness="=") | hnp.unsigned_integer_dtypes(endianness="="), (2, 3)))
def test_integers_survive_json(array):
    assert json.loads(encode_json(array)) == array.tolist()


def test_numpy_scalars_inside_lists_and_objects_are_written():
    value = [{"score": np.float32(0.1), "label": np.int64(2), "half": np.float16(0.5), "yes": np.True_}]
    assert encode_json(value) == b'[{"score":0.1,"label":2,"half":0.5,"yes":true}]'
    assert encode_json([np.float32("nan"), np.float16("inf"), float("nan")]) == b"[null,null,null]"
    assert encode_json(np.zeros((2, 0))) == b"[[],[]]"


# -- npy ----------------------------------------------------------------------------------------------------


@given(ARRAYS, st.booleans())
def test_arrays_survive_npy(array, fortran):
    array = np.asfortranarray(array) if fortran else array
    assert equal(decode_npy(encode_npy(array)), array)
    assert equal(decode_npy(saved(array)), array)
    assert equal(np.load(io.BytesIO(encode_npy(array))), array)


def test_slices_and_transposes_are_written_in_order():
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    for view in (array.T, array[:, ::2], array[::-1], array[0, 0, ::3]):
        assert equal(decode_npy(encode_npy(view)), view)


def test_a_decoded_array_is_a_view_of_the_body():
    body = encode_npy(np.arange(3.0))
    array = decode_npy(body)
    assert not array.flags.writeable
    assert np.shares_memory(array, np.frombuffer(body, np.uint8))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(version):
    array = np.arange(6, dtype=">i4").reshape(2, 3)
    assert equal(decode_npy(saved(array, version=version)), array)
    assert decode_npy(npy(version=version)).tolist() == [1.0]


def test_an_npy_file_cut_anywhere_is_refused():
    body = encode_npy(np.arange(4, dtype=np.float32))
    for end in range(len(body)):
        with pytest.raises(InvalidInput):
            decode_npy(body[:end])
    with pytest.raises(InvalidInput, match="Received: 17 bytes"):
        decode_npy(body + b"\0")


class Trap:
    """Tells when it is unpickled."""

    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


def test_nothing_is_unpickled():
    with pytest.raises(InvalidInput, match="unpickling"):
        decode_npy(saved(np.array([Trap()], dtype=object)))
    with pytest.raises(InvalidInput):
        decode_npz(npz([("x.npy", saved(np.array([Trap()], dtype=object)))]), MIB)
    assert Trap.sprung is False


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x93NUMPY",
        b"PK\x03\x04",
        npy(version=(9, 9)),
        npy(version=(0, 0)),
        npy(descr="'|O'", data=b"\0" * 8),
        npy(descr="[('a', '<f4')]"),
        npy(descr="('<f4', (1,))"),
        npy(descr="('|O', (1,))", data=b"\0" * 8),
        npy(descr="'<U0'", data=b""),
        npy(descr="'no dtype'"),
        npy(descr="5"),
        npy(shape="(2,)"),
        npy(shape="(-1,)"),
        npy(shape="(-1, -1)"),
        npy(shape="(True,)"),
        npy(shape="(1.0,)"),
        npy(shape="1"),
        npy(shape=f"({10**30},)"),
        npy(shape=f"(0, {10**30})", data=b""),
        npy(shape=f"({2**62}, 4)"),
        npy(shape=f"({'1,' * 70})"),
        npy(shape="(1,), 'extra': 1"),
        npy(shape="__import__('os')"),
        npy(order="2"),
        npy(shape="(" * 5000 + ")" * 5000),
        npy(shape="-" * 9000 + "1"),
        npy(shape="(1,)" + " " * 20_000, version=(2, 0)),
        npy(shape="'''"),
        npy(descr="'<U1'", data=b"\xff\xff\xff\x7f"),
        npy(descr="'<U1'", data=b"\x00\xd8\x00\x00"),
        npy(descr="'>U1'", data=b"\x00\x00\xd8\x00"),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{",
    ],
    ids=lambda body: repr(body[6:60]),
)
def test_a_lying_npy_file_is_refused(body):
    with pytest.raises(InvalidInput):
        decode_npy(body)


def test_rows_and_sizes_may_be_zero_and_text_may_be_either_endian():
    assert decode_npy(npy(shape="(0, 3)", data=b"")).shape == (0, 3)
    assert decode_npy(npy(shape="()")).shape == ()
    assert decode_npy(npy(descr="'<U1'", data=b"A\0\0\0")).tolist() == ["A"]
    assert decode_npy(npy(descr="'>U1'", data=b"\0\0\0A")).tolist() == ["A"]
    assert decode_npy(npy(descr="'|S4'", data=b"abcd")).tolist() == [b"abcd"]


@pytest.mark.filterwarnings("ignore")  # numpy warns of headers that Python 2 might have written
@given(st.data())
def test_a_damaged_npy_file_is_an_array_or_a_refusal(data):
    body = bytearray(encode_npy(np.arange(4, dtype=np.float32)))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with suppress(InvalidInput):
        assert isinstance(decode_npy(bytes(body)), np.ndarray)


# -- npz ----------------------------------------------------------------------------------------------------


@given(st.dictionaries(st.sampled_from(["a", "base/conv5", "dense:1", "b.npy", "é"]), ARRAYS, max_size=3))
@settings(max_examples=50)
def test_arrays_survive_npz_in_their_order(arrays):
    body = encode_npz(arrays)
    for back in (decode_npz(body, MIB), dict(np.load(io.BytesIO(body)))):
        assert list(back) == list(arrays)
        assert all(equal(back[name], array) for name, array in arrays.items())
    assert body == encode_npz(arrays)


def test_what_numpy_saves_is_read():
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, left=np.zeros((2, 3)), right=np.ones(2))
        assert {name: array.shape for name, array in decode_npz(file.getvalue(), MIB).items()} == {
            "left": (2, 3),
            "right": (2,),
        }


def test_members_can_be_read_once_unzipped():
    with zipfile.ZipFile(io.BytesIO(encode_npz({"x": np.zeros(1)}))) as archive:
        assert archive.infolist()[0].external_attr >> 16 == 0o644


def test_an_npz_file_cut_anywhere_is_refused():
    body = encode_npz({"x": np.arange(4, dtype=np.float32)})
    for end in range(len(body)):
        with pytest.raises(InvalidInput):
            decode_npz(body[:end], MIB)


def test_a_bomb_is_refused_by_what_it_announces():
    body = npz([("x.npy", b"\0" * (8 * MIB))])
    assert len(body) < MIB // 16
    with pytest.raises(BodyTooLarge, match="unpacks to at most 1048576 bytes"):
        decode_npz(body, MIB)


def test_a_bomb_that_lies_about_its_size_takes_no_memory():
    size = 64 * MIB
    body = npz([("x.npy", b"\0" * size)])
    body = body.replace(struct.pack("<I", size), struct.pack("<I", 100))
    tracemalloc.start()
    with pytest.raises(InvalidInput):
        decode_npz(body, MIB)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MIB


def test_many_arrays_are_refused_before_the_directory_is_read():
    entry = b"PK\x01\x02" + b"\0" * 42
    with pytest.raises(BodyTooLarge, match="many more"):
        decode_npz(entry * 20_000, MIB)
    with pytest.raises(BodyTooLarge, match="1025 arrays"):
        decode_npz(npz([(f"{i}.npy", b"") for i in range(1025)]), MIB)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_unpack_without_a_bound_are_refused(method):
    with pytest.raises(InvalidInput, match="compression method"):
        decode_npz(npz([("x.npy", encode_npy(np.zeros(3)))], method), MIB)


def test_an_encrypted_member_is_refused():
    body = bytearray(npz([("x.npy", encode_npy(np.zeros(3)))]))
    body[6] |= 1
    body[body.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(InvalidInput, match="encrypted"):
        decode_npz(bytes(body), MIB)


@pytest.mark.parametrize("second", ["x.npy", "x"])
def test_two_arrays_of_one_name_are_refused(second):
    with pytest.raises(InvalidInput, match="twice"):
        decode_npz(npz([("x.npy", npy()), (second, npy())]), MIB)


def test_names_are_only_names_and_members_only_arrays():
    arrays = decode_npz(npz([("/etc/passwd.npy", npy()), ("../../x.npy", npy())]), MIB)
    assert list(arrays) == ["/etc/passwd", "../../x"]
    for name, data in (("folder/", b""), ("notes.txt", b"hello")):
        with pytest.raises(InvalidInput, match=name):
            decode_npz(npz([(name, data)]), MIB)


@pytest.mark.filterwarnings("ignore")
@given(st.data())
def test_a_damaged_npz_file_is_arrays_or_a_refusal(data):
    body = bytearray(npz([("a.npy", npy()), ("b.npy", npy())], data.draw(st.sampled_from([0, 8]))))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with suppress(InvalidInput, BodyTooLarge):
        assert all(isinstance(array, np.ndarray) for array in decode_npz(bytes(body), MIB).values())
