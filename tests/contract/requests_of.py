"""Owns strategies for requests of every kind: valid ones, and ones with every mistake that we could think of."""

import io
import json
import warnings
import zipfile
from copy import deepcopy
from dataclasses import dataclass, field
from urllib.parse import quote

import numpy as np
from bodies import BODIES, FORM, UNTYPED, form, npy, npz, text
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.api.options import SHARED
from service.payloads.codecs import JSON, NPY, NPZ

TYPES = (
    JSON, NPY, NPZ, FORM, UNTYPED, "image/png", "image/*", "", "text/plain", "multipart/form-data", "APPLICATION/JSON",
    "multipart/form-data; boundary=", 'multipart/form-data; boundary="a b', "multipart/form-data; boundary=\xff\xfe",
    "application/json; charset=utf-16", "application/", ";", "application/x-www-form-urlencoded",
)  # fmt: skip
MODELS = ("iris", "pairs", "shapes", "words", "line", "broken")
NAMES = ("x", "left", "right", "image", "ids", "instances", "inputs", "b64", "", "y", "x.npy", "\u2028")
# json.dumps writes the last three as the tokens NaN, Infinity and -Infinity, which are no JSON.
LEAVES = (0, -1, 1.5, 10, 255, 10**30, -(10**400), 2**63, 1e308, 3.5e38, True, False, None, "", "text", "1",
          {"b64": ""}, {"b64": "AAAA"}, {"b64": 1}, {}, [], [[]], float("nan"), float("inf"), float("-inf"))  # fmt: skip
DTYPES = ("f2", "f4", ">f4", "f8", "i1", "i8", ">i8", "u8", "?", "c8", "S3", "U3", "M8[s]", "m8[ns]", "V4")
SHAPES = (
    (),
    (0,),
    (0, 4),
    (1, 0),
    (4,),
    (1, 4),
    (3, 4),
    (2, 3),
    (3,),
    (2, 2),
    (1, 8, 8, 1),
    (8, 8, 1),
    (2, 8, 8),
    (1,) * 40,
)
ACCEPTS = (JSON, NPY, NPZ, "*/*", "application/*", "text/html", "", ",", ";", "*/*;q=0", "a/b;q=x", "application/json;q=0, */*",
           "application/x-npy;q=nan", "application/x-npz;q=inf", "application/x-npy;q=-1, */*;q=1e-300")  # fmt: skip


@dataclass(frozen=True)
class Request:
    """A request as a driver sends it."""

    method: str
    path: str
    query: str
    body: bytes = field(repr=False, default=b"")
    headers: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return (
            f"Request({self.method!r}, {self.path!r}, {_shown(self.query)}, headers={self.headers!r}, "
            f"body={_shown(self.body)})"
        )


def _shown(text):
    return repr(text) if len(text) < 500 else f"{text[:250]!r} ... {text[-250:]!r}"


# -- bodies -----------------------------------------------------------------------------------------------


@st.composite
def broken_json(draw):
    """A valid JSON body with some of its values changed, moved, dropped or wrapped."""
    document = json.loads(draw(st.sampled_from([b.data for b in BODIES.values() if b.data[:1] == b"{"])))
    for _ in range(draw(st.integers(1, 3))):
        document = _changed(draw, document)
    return json.dumps(document).encode()


def _changed(draw, document):
    """One change at a random place."""
    holder, key = {"": document}, ""
    while isinstance(holder[key], list | dict) and holder[key] and draw(st.integers(0, 3)):
        holder = holder[key]
        key = draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
    how = draw(st.sampled_from(["leaf", "wrap", "unwrap", "drop", "double", "name"]))
    value = holder[key]
    if how == "leaf":
        holder[key] = deepcopy(draw(st.sampled_from(LEAVES)))  # the next change may be inside it
    elif how == "wrap":
        holder[key] = draw(st.sampled_from([[value], {"x": value}, [value, value], {"b64": value}]))
    elif how == "unwrap" and isinstance(value, list) and value:
        holder[key] = value[0]
    elif how == "drop" and holder is not document and len(holder) > 0:
        del holder[key]
    elif how == "double" and isinstance(holder, list):
        holder.insert(key, value)
    elif how == "name" and isinstance(holder, dict):
        holder[draw(st.sampled_from(NAMES))] = value
    return holder.get("", document) if isinstance(holder, dict) and holder.keys() == {""} else document


def deep_json():
    """Lists and objects in one another, a thousand deep and more, closed or not."""
    heads = st.sampled_from(
        [b"", b'{"instances":', b'{"inputs":', b'{"inputs":{"x":', b'{"instances":[{"x":']
    )
    pairs = st.sampled_from([(b"[", b"]"), (b'{"x":', b"}"), (b"[[1],", b"]"), (b'{"b64":', b"}")])
    depths = st.sampled_from([40, 200, 1000, 1023, 1024, 1025, 5000])
    inner = st.sampled_from([b"", b"1", b"null", b'""'])

    def build(head, pair, depth, value, *, closed):
        tail = b"}" * head.count(b"{") if closed else b""
        return head + pair[0] * depth + value + (pair[1] * depth if closed else b"") + tail

    return st.builds(build, heads, pairs, depths, inner, closed=st.booleans())


@st.composite
def arrays(draw):
    """An array of any dtype and shape, its numbers any at all."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(st.sampled_from(SHAPES) | hnp.array_shapes(min_dims=1, max_dims=4, max_side=9))
    size = int(np.prod(shape)) * dtype.itemsize
    array = np.frombuffer(
        draw(st.sampled_from([b"\0", b"\1\0", b"\xff", b"\x7f\xc0", b"?"])) * (size + 4), "u1"
    )[:size]
    array = array.copy().view(dtype) if size else np.zeros(0, dtype)
    array = array.reshape(shape) if size or 0 in shape else np.zeros(shape, dtype)
    return np.asfortranarray(array) if draw(st.booleans()) and array.ndim <= 32 else array


def lying_npy():
    """npy headers whose shape, dtype or order is not what follows, or is no such thing."""
    shapes = st.sampled_from(["(1, 4)", "(4,)", "(-1, 4)", "(2**70,)", "(1e9,)", "(10**12, 4)", "()", "4", "(0, 0)", "(True,)",
                              "(1,) * 99", "[1, 4]", "(1, 4", "__import__('os')"])  # fmt: skip
    dtypes = st.sampled_from(
        [
            "'<f4'",
            "'|O'",
            "'<U1'",
            "[('a', '<f4')]",
            "'<f99'",
            "'V0'",
            "('<f4', (4,))",
            "None",
            "'<M8[y]'",
            "''",
        ]
    )
    orders = st.sampled_from(["True", "False", "1", "None"])
    versions = st.sampled_from([b"\1\0", b"\2\0", b"\3\0", b"\4\0", b"\0\0", b"\xff\xff"])

    def build(version, shape, dtype, order, data):
        head = f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
        length = len(head).to_bytes(2 if version == b"\1\0" else 4, "little")
        return b"\x93NUMPY" + version + length + head + data

    return st.builds(build, versions, shapes, dtypes, orders, st.binary(max_size=40) | st.just(b"\0" * 16))


def pickled_npy():
    def build(values):
        file = io.BytesIO()
        np.save(file, np.array(values, dtype=object), allow_pickle=True)
        return file.getvalue()

    return st.builds(build, st.lists(st.none() | st.text(max_size=3), max_size=3))


@st.composite
def archives(draw):
    """npz files: wrong names, double names, bombs, other methods, lying sizes, other things than arrays."""
    method = draw(
        st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    )
    members = st.one_of(
        st.binary(max_size=20), arrays().map(npy), lying_npy(), pickled_npy(), st.just(_ZEROS)
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about a name that comes twice, as it may
        for name in draw(
            st.lists(st.sampled_from(NAMES) | st.text(_NO_NULL, max_size=5), max_size=4, unique=True)
        ):
            member = zipfile.ZipInfo((name or "-") + draw(st.sampled_from([".npy", "", "/x.npy"])))
            member.compress_type = method  # and no time of now, so that equal draws are equal bytes
            archive.writestr(member, draw(members))
    data = bytearray(file.getvalue())
    entry = data.find(b"PK\x01\x02")
    if entry >= 0 and draw(
        st.booleans()
    ):  # a field of the first directory entry: flags, method, sizes, lengths
        data[entry + draw(st.integers(4, 45))] = draw(st.integers(0, 255))
    return bytes(data)


_NO_NULL = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
_ZEROS = npy(np.zeros((500_000, 4), np.float32))  # as npz a few kilobytes, unpacked more than is allowed


@st.composite
def damaged(draw):
    """A valid body of any kind with bytes cut off, changed, added or doubled."""
    data = draw(st.sampled_from([body.data for body in BODIES.values()]))
    place = draw(st.integers(0, len(data)))
    end = draw(st.integers(place, min(len(data), place + 20)))
    middle = draw(st.one_of(st.just(b""), st.binary(max_size=8), st.just(data[place:end] * 3)))
    return data[:place] + middle + (b"" if draw(st.booleans()) else data[end:])


def forms():
    """Forms of odd parts."""
    names = st.sampled_from((*NAMES[:5], "file"))
    files = st.sampled_from([None, "", "a.png", "../../etc/passwd", "a" * 300, "caf\xe9.npy", "\u2028"])
    data = st.one_of(
        damaged(), arrays().map(npy), st.binary(max_size=30), st.just(b"[" * 2000), broken_json()
    )
    return st.lists(st.tuples(names, files, data), max_size=4).map(lambda parts: form(*parts))


def bodies():
    """Any body."""
    valid = st.sampled_from([body.data for body in BODIES.values()])
    named = st.builds(lambda a, b, names: npz(**dict(zip(names, (a, b), strict=True))), arrays(), arrays(),
                      st.sampled_from([("x", "y"), ("left", "right"), ("image", "ids")]))  # fmt: skip
    tokens = st.sampled_from(LEAVES).map(lambda leaf: text({"instances": [[leaf] * 4]}))
    return st.one_of(valid, broken_json(), deep_json(), arrays().map(npy), lying_npy(), pickled_npy(), archives(), named,
                     damaged(), forms(), tokens, st.binary(max_size=60))  # fmt: skip


# -- queries and headers ----------------------------------------------------------------------------------


_NUMBERS = ("1", "0", "2", "-1", "1e3", "", "9" * 25, "\u0663", "1_0", " 1")
_GOOD = {
    "version": ("1",), "top": ("1", "2", "999999999"), "dtype": ("float16", "float32"), "timeout_ms": ("60000",),
    "layer": ("hidden", "probs", "conv", "joined", "vectors", "y", "-1", "-2", "1", "*", "**", "p*"),
    "pool": ("avg", "max"), "normalize": ("l2",), "include": ("predictions",),
}  # fmt: skip
_BAD = {
    "model": ("irs", "", "x" * 400, "iris", "broken"), "version": _NUMBERS, "top": _NUMBERS, "timeout_ms": ("0", "x", "9" * 12),
    "layer": ("hiden", "99", "-99", "", "a/b", "?", "*" * 60, "\x00", "\u00e9", "pool:0"), "pool": ("sum", ""),
    "normalize": ("l1",), "dtype": ("int8",), "include": ("all",), "tpo": ("1",),
}  # fmt: skip


def queries(model, path):
    """Query strings: mostly sensible ones, some nearly so, and some not at all."""
    good = _pairs({name: values for name, values in _GOOD.items() if name in SHARED or path == "/features"})
    sensible = st.lists(good, max_size=3, unique_by=lambda pair: len(pair) if pair[0] == "layer" else pair[0])
    nearly = st.tuples(st.lists(good, max_size=2), _pairs(_BAD)).map(lambda both: [*both[0], both[1]])
    noise = st.binary(max_size=30).map(lambda data: data.decode("latin-1"))
    escapes = st.binary(max_size=12).map(quote)
    named = _mostly(sensible, nearly).map(
        lambda pairs: "&".join(f"{name}={quote(value)}" for name, value in [("model", model), *pairs])
    )
    odd = st.one_of(noise, escapes, st.just("&".join(["layer=x"] * 300)), st.just(""))
    return _mostly(named, odd)


def _mostly(usual, rare):
    """Seven times of eight the usual; integers would not do, because Hypothesis loves their ends."""
    return st.sampled_from([usual] * 7 + [rare]).flatmap(lambda chosen: chosen)


def _pairs(values):
    return st.sampled_from(sorted(values)).flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from(values[name]))
    )


def _values(*known, size=20):
    """Header values: known ones, and any that HTTP can carry."""
    characters = st.characters(
        min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f", exclude_categories=["Cc"]
    )
    return st.sampled_from(known) | st.text(characters, max_size=size)


def headers():
    """Header lists, some with a name twice."""
    values = {
        "Accept": _values(*ACCEPTS),
        "X-Request-Id": _values("mine", "x" * 200),
        "Content-Encoding": _values("gzip", "identity", "IDENTITY"),
        "If-None-Match": _values("*"),
        "Expect": st.just("100-continue"),
        "Range": st.just("bytes=0-1"),
        "Cookie": _values("a=b"),
    }
    one = st.sampled_from(sorted(values)).flatmap(lambda name: st.tuples(st.just(name), values[name]))
    return st.lists(one, max_size=3).map(tuple)


# -- whole requests ---------------------------------------------------------------------------------------


@st.composite
def inference_requests(draw):
    """A POST to one of the inference routes."""
    path = draw(st.sampled_from(["/predict", "/features"]))
    body = BODIES[draw(st.sampled_from(sorted(BODIES)))]
    query = draw(queries(body.model, path))
    if draw(
        _mostly(st.just(True), st.just(False))
    ):  # the right type for a body that is one mistake away from a good one
        makers = {JSON: broken_json(), NPY: arrays().map(npy) | lying_npy(), NPZ: archives(), FORM: forms()}
        content_type, data = (
            body.content_type,
            draw(st.just(body.data) | makers.get(body.content_type, damaged())),
        )
    else:
        content_type, data = draw(_values(*TYPES) | st.none()), draw(bodies())
    typed = () if content_type is None else (("Content-Type", content_type),)
    return Request("POST", path, query, data, typed + draw(headers()))


def other_requests():
    """Requests to every other route, and to none."""
    names = st.sampled_from((*MODELS, "irs", "%2e%2e", "%00", "%ff", "a%2Fb", "caf%C3%A9", "%F0%9F%A6%84"))
    paths = st.one_of(
        st.sampled_from(
            [
                "/",
                "/docs",
                "/healthz",
                "/readyz",
                "/models",
                "/models/",
                "/openapi.json",
                "/nowhere",
                "//",
                "/predict/",
            ]
        ),
        names.map("/models/{}".format),
        names.map("/models/{}/layers".format),
        st.binary(min_size=1, max_size=12).map(lambda data: "/" + quote(data, safe="")),
    )
    methods = st.sampled_from(
        ["GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"]
    )
    data = st.sampled_from([b"", b"x", text({"instances": []})])
    return st.builds(
        Request, methods, paths, queries("iris", "/features") | st.just("version=1"), data, headers()
    )
