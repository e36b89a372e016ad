"""The same rows through every dialect, every encoding and both drivers: the same numbers, to the last bit.

A float32 survives JSON, because its shortest digits name no other float32; so there is nothing to tolerate. The model
of `numpy_engine` gives a row the same bits in any batch.
"""

import gzip
import itertools
import json
import zlib
from base64 import b64encode
from dataclasses import dataclass, field

import binary_tensors
import numpy as np
import pytest
from bodies import FORM, PICTURES, form, npy, npz, png, text
from numpy_engine import graph_of
from wire import Answer

from service.payloads.codecs import JSON, NPY, NPZ

RNG = np.random.default_rng(5)


def wild(*shape):
    """Numbers of every size, so that JSON needs all of their digits."""
    return (RNG.normal(size=shape) * 10.0 ** RNG.integers(-7, 4, shape)).astype(np.float32)


INPUTS = {
    "iris": {"x": wild(5, 4)},
    "pairs": {"left": wild(4, 3), "right": wild(4, 2)},
    "shapes": {"image": wild(24, 8, 8, 1)},
    "words": {"ids": RNG.integers(0, 10, (6, 3))},
}
# What is asked for: the model's own outputs, and a layer that is none.
OUTPUTS = {"iris": ["probs"], "pairs": ["total", "positive"], "shapes": ["probs"], "words": ["score"]}
LAYERS = {"iris": "hidden", "pairs": "joined", "shapes": "conv", "words": "vectors"}
CODINGS = {"": lambda body: body, "gzip": gzip.compress, "deflate": zlib.compress}


@dataclass(frozen=True)
class Asked:
    """A request.

    Args:
        path: with a place for the model, `{}`.
        body: the bytes.
        headers: of the request.
        query: besides the model.
    """

    path: str
    body: bytes
    headers: dict = field(default_factory=dict)
    query: str = ""


# -- the native API ---------------------------------------------------------------------------------------


def lists(arrays):
    return {name: array.tolist() for name, array in arrays.items()}


def rows_of(arrays):
    columns = lists(arrays)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def plain_rows(arrays):
    return next(iter(arrays.values())).tolist() if len(arrays) == 1 else rows_of(arrays)


def shortest(value):
    """JSON with no more digits than each float32 needs."""
    if isinstance(value, np.ndarray) and value.dtype == np.float32:
        return "[" + ", ".join(map(shortest, value)) + "]"
    return str(value) if isinstance(value, np.float32) else json.dumps(value.tolist())


def fewest_digits(arrays):
    columns = ", ".join(f'"{name}": {shortest(array)}' for name, array in arrays.items())
    return f'{{"inputs": {{{columns}}}}}'.encode()


NATIVE = {
    "rows": lambda arrays: (JSON, text({"instances": plain_rows(arrays)})),
    "rows by name": lambda arrays: (JSON, text({"instances": rows_of(arrays)})),
    "columns": lambda arrays: (JSON, text({"inputs": lists(arrays)})),
    "columns in the fewest digits": lambda arrays: (JSON, fewest_digits(arrays)),
    "npz": lambda arrays: (NPZ, npz(**arrays)),
    "packed npz": lambda arrays: (NPZ, npz(np.savez_compressed, **arrays)),
    "form of npy": lambda arrays: (
        FORM,
        form(*((name, f"{name}.npy", npy(array)) for name, array in arrays.items())),
    ),
    "form of lists": lambda arrays: (
        FORM,
        form(*((name, None, text(a.tolist())) for name, a in arrays.items())),
    ),
    "npy": lambda arrays: (NPY, npy(*arrays.values())),
    "npy in Fortran order": lambda arrays: (NPY, npy(np.asfortranarray(*arrays.values()))),
    "npy of the other endian": lambda arrays: (
        NPY,
        npy(*(a.astype(a.dtype.newbyteorder()) for a in arrays.values())),
    ),
}
ONE_INPUT = {"npy", "npy in Fortran order", "npy of the other endian"}


def read_native(answer: Answer, outputs):
    assert answer.status == 200, answer.body
    if answer.content_type == NPZ:
        return answer.arrays()
    if answer.content_type == NPY:
        return {outputs[0]: answer.arrays()[None]}
    document = answer.json()
    values = document.get("features", document.get("predictions"))
    return values if "features" in document or len(outputs) > 1 else {outputs[0]: values}


NATIVE_CASES = [
    (model, encoding, accept, asked)
    for model in INPUTS
    for encoding in NATIVE
    for accept in (JSON, NPY, NPZ)
    for asked in (OUTPUTS[model], [LAYERS[model]])
    # An npy file holds one array.
    if (len(INPUTS[model]) == 1 or encoding not in ONE_INPUT) and (len(asked) == 1 or accept != NPY)
]


@pytest.mark.parametrize("case", NATIVE_CASES, ids=str)
def test_the_native_api(driver, case):
    model, encoding, accept, outputs = case
    content_type, body = NATIVE[encoding](INPUTS[model])
    layer = outputs != OUTPUTS[model]
    path, query = ("/features", f"&layer={outputs[0]}") if layer else ("/predict", "")
    headers = {"Content-Type": content_type, "Accept": accept}
    answer = driver.send("POST", path, f"model={model}{query}", headers, body)
    check(read_native(answer, outputs), model, outputs)


# -- TensorFlow Serving, KServe V1 ------------------------------------------------------------------------


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("encoding", ["rows", "rows by name", "columns", "columns in the fewest digits"])
@pytest.mark.parametrize("model", INPUTS)
@pytest.mark.parametrize("layer", [False, True], ids=["outputs", "layer"])
def test_v1(driver, model, encoding, coding, layer):
    outputs = [LAYERS[model]] if layer else OUTPUTS[model]
    body = NATIVE[encoding](INPUTS[model])[1]
    if layer:
        body = b'{"signature_name": "layer:%s", ' % outputs[0].encode() + body[1:]
    headers = {"Content-Encoding": coding} if coding else {}
    answer = driver.send("POST", f"/v1/models/{model}:predict", "", headers, CODINGS[coding](body))
    assert answer.status == 200, answer.body
    ((key, values),) = answer.json().items()
    assert key == ("outputs" if encoding.startswith("columns") else "predictions")
    if len(outputs) == 1:
        found = {outputs[0]: values}
    elif key == "outputs":
        found = values
    else:
        found = {name: [row[name] for row in values] for name in values[0]}
    check(found, model, outputs)


# -- Open Inference Protocol V2 ---------------------------------------------------------------------------


def nested(arrays, outputs, **members):
    heads = [
        {
            "name": name,
            "shape": a.shape,
            "datatype": binary_tensors.DATATYPES[str(a.dtype)],
            "data": a.tolist(),
        }
        for name, a in arrays.items()
    ]
    asked = [{"name": name, "parameters": parameters or {}} for name, parameters in outputs.items()]
    return binary_tensors.Sent({}, text({"inputs": heads, "outputs": asked, **members}))


V2 = {
    "flat JSON": lambda arrays, outputs: binary_tensors.encode(arrays, outputs, binary=False),
    "nested JSON": nested,
    "binary": binary_tensors.encode,
    "first input binary": lambda arrays, outputs: binary_tensors.encode(
        arrays, outputs, binary={next(iter(arrays))}
    ),
}


@pytest.mark.parametrize("codings", list(itertools.product(CODINGS, CODINGS)), ids=str)
@pytest.mark.parametrize("binary", [False, True], ids=["to JSON", "to binary"])
@pytest.mark.parametrize("encoding", V2)
@pytest.mark.parametrize("model", INPUTS)
def test_v2(driver, model, encoding, binary, codings):
    coding, back = codings
    outputs = [*OUTPUTS[model], LAYERS[model]]
    sent = V2[encoding](INPUTS[model], {name: {"binary_data": binary} for name in outputs})
    headers = {**sent.headers, **({"Content-Encoding": coding} if coding else {})}
    headers |= {"Accept-Encoding": back} if back else {}
    answer = driver.send("POST", f"/v2/models/{model}/infer", "", headers, CODINGS[coding](sent.body))
    packed = answer.headers.get("content-encoding", "")
    assert packed in ("", back)
    unpacked = {"": lambda body: body, "gzip": gzip.decompress, "deflate": zlib.decompress}[packed](
        answer.body
    )
    document, found = binary_tensors.decode(answer, unpacked)
    assert (document["model_name"], document["model_version"], list(found)) == (model, "1", outputs)
    check(found, model, outputs)


def test_v2_packs_what_is_worth_it(driver):
    sent = binary_tensors.encode(INPUTS["shapes"], {"conv": {}}, binary=False)
    for back in ("gzip", "deflate"):
        answer = driver.send("POST", "/v2/models/shapes/infer", "", {"Accept-Encoding": back}, sent.body)
        assert answer.headers["content-encoding"] == back


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("model", ["iris", "shapes", "words"])
def test_v2_raw(driver, model, coding):
    ((name, array),) = INPUTS[model].items()
    headers = {binary_tensors.LENGTH: "0", **({"Content-Encoding": coding} if coding else {})}
    for place in range(len(array)):
        body = CODINGS[coding](array[place : place + 1].tobytes())
        answer = driver.send("POST", f"/v2/models/{model}/infer", "", headers, body)
        _, found = binary_tensors.decode(answer)
        check(found, model, OUTPUTS[model], {name: array[place : place + 1]})


# -- pictures ---------------------------------------------------------------------------------------------

FILES = [png(picture) for picture in PICTURES]
CODED = [b64encode(file).decode() for file in FILES]
PIXELS = {"image": np.stack(PICTURES)[..., np.newaxis] * np.float32(1 / 255)}
BYTES = binary_tensors.encode({"image": FILES})
BYTES_IN_JSON = binary_tensors.encode({"image": CODED}, binary=False)

ALL_PICTURES = {
    "native form": Asked("/predict", form(*(("f", "a.png", file) for file in FILES)), {"Content-Type": FORM}),
    "native JSON": Asked(
        "/predict", text({"instances": [{"b64": code} for code in CODED]}), {"Content-Type": JSON}
    ),
    "native columns": Asked(
        "/predict", text({"inputs": {"image": [{"b64": c} for c in CODED]}}), {"Content-Type": JSON}
    ),
    "V1 rows": Asked("/v1/models/shapes:predict", text({"instances": [{"b64": code} for code in CODED]})),
    "V1 columns": Asked("/v1/models/shapes:predict", text({"inputs": [{"b64": code} for code in CODED]})),
    "V2 BYTES": Asked("/v2/models/shapes/infer", BYTES.body, BYTES.headers),
    "V2 BYTES in JSON": Asked("/v2/models/shapes/infer", BYTES_IN_JSON.body, BYTES_IN_JSON.headers),
}
ONE_PICTURE = {
    "native": Asked("/predict", FILES[0], {"Content-Type": "image/png"}),
    "native without a type": Asked("/predict", FILES[0]),
    "V2 raw": Asked("/v2/models/shapes/infer", FILES[0], {binary_tensors.LENGTH: "0"}),
}


@pytest.mark.parametrize("name", [*ALL_PICTURES, *ONE_PICTURE])
def test_pictures(driver, name):
    asked = (ALL_PICTURES | ONE_PICTURE)[name]
    query = "model=shapes" if asked.path == "/predict" else ""
    answer = driver.send("POST", asked.path, query, asked.headers, asked.body)
    assert answer.status == 200, answer.body
    if asked.path.startswith("/v2"):
        found = binary_tensors.decode(answer)[1]["probs"]
    else:
        document = answer.json()
        found = document.get("predictions", document.get("outputs"))
    pixels = PIXELS if name in ALL_PICTURES else {"image": PIXELS["image"][:1]}
    check({"probs": found}, "shapes", ["probs"], pixels)


# -- comparison -------------------------------------------------------------------------------------------


def check(found, model, outputs, inputs=None):
    """The arrays or lists are what the model makes of the inputs, computed without the service, to the last bit."""
    expected = graph_of(model).evaluate(inputs or INPUTS[model], tuple(outputs))
    assert list(found) == outputs
    for name, array in expected.items():
        got = np.asarray(found[name], array.dtype)
        assert got.shape == array.shape
        assert got.tobytes() == array.tobytes(), name
