"""Owns the way between bytes and arrays: JSON, npy and npz. It knows no model.

Nothing is ever unpickled. Sizes are checked against what is really there before memory is taken.
Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import codecs
import io
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.lib import format as npy_format

from service.errors import BodyTooLarge, InvalidInput, InvalidJson
from service.memory import pay
from service.syntax import one_at_a_time
from service.tensors import Array

JSON = "application/json"
NPY = "application/x-npy"
NPZ = "application/x-npz"

BOM = codecs.BOM_UTF8
NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGIC = b"PK\x03\x04"

_SMALL_JSON = 32 * 1024  # bytes of text, whose objects are not worth counting
# Bytes of what a parser makes of a value, with its place in the list that it is in, and of what arrays of them take.
_VALUE_BYTES = 64
_LIST_BYTES = 64
_OBJECT_BYTES = 192
_STRING_BYTES = 64

_NPY_VERSIONS = ((1, 0), (2, 0), (3, 0))
_MAX_CODE_POINT = 0x10FFFF
_MAX_NPZ_ARRAYS = 1024
_ZIP_ENTRY_MAGIC = b"PK\x01\x02"
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what numpy writes; others unpack without a bound
_ADDRESS = re.compile(r" object at 0x[0-9a-fA-F]+")  # in messages of numpy's; it differs every time
# What numpy and its like write for arrays of numbers.
_PLAIN_HEADER = re.compile(
    rb"\{\s*'descr':\s*'(?P<descr>[<>|=]?[?a-zA-Z][0-9]{0,9})',\s*'fortran_order':\s*(?P<fortran>True|False),\s*"
    rb"'shape':\s*\((?P<shape>|[0-9]{1,18},(?:\s?[0-9]{1,18},)*(?:\s?[0-9]{1,18})?)\),?\s*\}\s*"
)
_MAX_PLAIN_HEADER = 1024
_BAD_HEADER = (
    ValueError,
    TypeError,
    KeyError,
    SyntaxError,
    OverflowError,
    RecursionError,
    MemoryError,
    struct.error,
    tokenize.TokenError,
)
_BAD_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,  # encrypted, or an unknown compression (NotImplementedError)
    struct.error,
)


def load_json(text: bytes | memoryview) -> Any:
    """The value that a JSON text holds; a byte order mark before it is passed over, as some editors and tools write it.

    Source: RFC 8259, section 8.1.

    Raises:
        orjson.JSONDecodeError: with the place of the mistake; NaN and Infinity are no JSON.
    """
    pay_for_objects(text)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return _load_marked(text, error)


def decode_json(body: bytes | memoryview) -> Any:
    """As `load_json`.

    Raises:
        InvalidJson: with the place of the mistake.
    """
    pay_for_objects(body)
    try:
        return orjson.loads(body)  # small requests need no more than this
    except orjson.JSONDecodeError as unmarked:
        try:
            return _load_marked(body, unmarked)
        except orjson.JSONDecodeError as error:
            raise InvalidJson(f"Expected a JSON body. Received: {error}.") from error


def _load_marked(text: bytes | memoryview, error: orjson.JSONDecodeError) -> Any:
    """The value behind a byte order mark; raises `error` where there is none."""
    if text[:3] != BOM:
        raise error
    return orjson.loads(text[3:])


def pay_for_objects(text: bytes | memoryview, times: int = 1) -> None:
    """Charges what the values of a JSON text become, at most, before they are there.

    Args:
        text: right or wrong.
        times: how often they are there.

    Raises:
        MemoryFull, BodyTooLarge, GrowthTooLarge: as `service.memory.pay`.
    """
    if len(text) <= _SMALL_JSON:
        return
    text = bytes(text)
    lists, objects, strings = text.count(b"["), text.count(b"{"), text.count(b'"') // 2
    values = text.count(b",") + lists + objects
    size = values * _VALUE_BYTES + lists * _LIST_BYTES + objects * _OBJECT_BYTES + strings * _STRING_BYTES
    pay(times * (size + len(text)), f"the {values} values of a JSON text")


def encode_json(value: Any) -> bytes:
    """Compact JSON; arrays become nested lists, float32 in its shortest form, non-finite numbers `null`."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def decode_npy(body: bytes | memoryview, what: str = "the body") -> Array:
    """The array that an npy file holds, a read-only view of the bytes.

    Raises:
        InvalidInput: no npy file, a truncated one, one whose dtype holds objects, or text that is no Unicode.
    """
    file = io.BytesIO(body)
    try:
        shape, fortran_order, dtype = _read_header(file)
    except _BAD_HEADER as error:
        raise InvalidInput(f"Expected {what} to be an npy file. Received: {_first_line(error)}.") from error
    if dtype.hasobject:
        raise InvalidInput(
            f"Expected {what} to hold numbers. Received: dtype {dtype}, which needs unpickling."
        )
    if dtype.itemsize == 0 or dtype.names or dtype.subdtype:
        raise InvalidInput(f"Expected {what} to hold plain numbers. Received: dtype {dtype}.")
    data = memoryview(body)[file.tell() :]
    expected = dtype.itemsize
    for size in shape:
        expected *= size
    if len(data) != expected or any(type(size) is not int or size < 0 for size in shape):
        raise InvalidInput(
            f"Expected {what} to carry {expected} bytes after its header, for shape {list(shape)} of {dtype}. "
            f"Received: {len(data)} bytes."
        )
    if dtype.kind == "U" and not _is_unicode(np.frombuffer(data, f"{dtype.byteorder}u4")):
        raise InvalidInput(f"Expected {what} to hold text. Received: code points that Unicode does not have.")
    try:
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")
    except ValueError as error:  # more axes, or longer ones, than numpy can hold
        raise InvalidInput(f"Expected {what} to be an array. Received: {_first_line(error)}.") from error


def _read_header(file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape, whether it is in Fortran order, and the dtype.

    Version 3.0 differs from 2.0 only in that names of fields are UTF-8, and arrays with fields are refused.
    """
    version = npy_format.read_magic(file)
    if version not in _NPY_VERSIONS:
        raise ValueError(f"version {version[0]}.{version[1]} of the format")
    start = file.tell()
    length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
    text = file.read(min(length, _MAX_PLAIN_HEADER))
    plain = _PLAIN_HEADER.fullmatch(text) if len(text) == length else None
    if plain is not None:
        sizes = plain["shape"].decode("ascii").split(",")
        shape = tuple(int(size) for size in sizes if size)
        return shape, plain["fortran"] == b"True", np.dtype(plain["descr"].decode("ascii"))
    file.seek(start)
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    with one_at_a_time:  # numpy's reader evaluates a literal
        shape, fortran_order, dtype = read(file)
    return shape, fortran_order, dtype


def _is_unicode(code_points: Array) -> bool:
    surrogates = (code_points >= 0xD800) & (code_points <= 0xDFFF)
    return not bool(np.any(surrogates | (code_points > _MAX_CODE_POINT)))


def decode_npz(body: bytes | memoryview, max_bytes: int) -> dict[str, Array]:
    """The named arrays of an npz file, in its order.

    Args:
        body: the file.
        max_bytes: how much it may unpack to.

    Raises:
        InvalidInput: no npz file, a broken one, or two arrays of one name.
        BodyTooLarge: it would unpack to more than `max_bytes`, or holds too many arrays.
    """
    # A directory of millions of entries is large in memory; the factor leaves room for the magic in the data.
    if bytes(body).count(_ZIP_ENTRY_MAGIC) > 16 * _MAX_NPZ_ARRAYS:
        raise BodyTooLarge(f"Expected an npz file of at most {_MAX_NPZ_ARRAYS} arrays. Received: many more.")
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > max_bytes or len(members) > _MAX_NPZ_ARRAYS:
                raise BodyTooLarge(
                    f"Expected an npz file that unpacks to at most {max_bytes} bytes and {_MAX_NPZ_ARRAYS} "
                    f"arrays. Received: {unpacked} bytes in {len(members)} arrays."
                )
            pay(unpacked, "the arrays of an npz file")
            arrays: dict[str, Array] = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in arrays:
                    raise InvalidInput(
                        f"Expected each array of the npz file once. Received: {name[:80]!r} twice."
                    )
                arrays[name] = decode_npy(
                    _unpack(archive, member), f"'{member.filename[:80]}' of the npz file"
                )
            return arrays
    except _BAD_ZIP as error:
        raise InvalidInput(f"Expected an npz file. Received: {_first_line(error)}.") from error


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """A member's bytes, no more than its directory entry announced.

    `ZipFile.read` cuts a longer stream off after unpacking it, so an entry that lies would still take memory.
    """
    if member.compress_type not in _ZIP_METHODS:
        raise zipfile.BadZipFile(f"compression method {member.compress_type}, not stored or deflated")
    with archive.open(member) as stream:
        return stream.read(member.file_size)


def encode_npy(array: Array) -> bytes:
    """An npy file, version 1.0, C order."""
    head = io.BytesIO()
    array = np.ascontiguousarray(array)
    npy_format.write_array_header_1_0(head, npy_format.header_data_from_array_1_0(array))
    return b"".join((head.getvalue(), array.data if array.size else b""))


def encode_npz(arrays: Mapping[str, Array]) -> bytes:
    """An uncompressed npz file whose members keep the mapping's order."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))  # equal arrays are equal bytes
            member.external_attr = 0o644 << 16  # what `unzip` makes of it can be read
            archive.writestr(member, encode_npy(array))
    return file.getvalue()


def _first_line(error: BaseException) -> str:
    text = _ADDRESS.sub("", str(error).strip()) or type(error).__name__
    return text.splitlines()[0][:200].rstrip(".")
