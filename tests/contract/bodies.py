"""Owns valid requests of every body type, and what the models must make of them."""

import io
import json
from base64 import b64encode
from dataclasses import dataclass

import numpy as np
from numpy_engine import graph_of
from PIL import Image

from service.payloads.codecs import JSON, NPY, NPZ

ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [-6.7, 3.1, 4.7, 1.5], [6.3, -2.9, 5.6, 1.8]], np.float32)
LEFT = np.array([[1, 2, 3], [-4, 5, 6.5]], np.float32)
RIGHT = np.array([[0.25, 7], [8, -9]], np.float32)
IDS = np.array([[0, 9, 4], [1, 1, 2]])
PICTURES = (np.arange(64, dtype=np.uint8).reshape(8, 8) * 4, np.eye(8, dtype=np.uint8) * 200)
BOUNDARY = "edge-of-part"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
UNTYPED = "application/octet-stream"


@dataclass(frozen=True)
class Body:
    """A body for one model.

    Args:
        model: whose.
        content_type: `None` sends none.
        data: the bytes.
        inputs: the arrays that the model must get.
    """

    model: str
    content_type: str | None
    data: bytes
    inputs: dict[str, np.ndarray]

    @property
    def headers(self):
        return {} if self.content_type is None else {"Content-Type": self.content_type}

    def expected(self, paths):
        """Path -> array, computed without the service."""
        return graph_of(self.model).evaluate(self.inputs, tuple(paths))


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(save=np.savez, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def form(*parts):
    """A form of (name, file name or None, bytes)."""
    lines = []
    for name, filename, data in parts:
        file = "" if filename is None else f'; filename="{filename}"'
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        lines += [head.encode(), data, b"\r\n"]
    return b"".join([*lines, f"--{BOUNDARY}--\r\n".encode()])


def text(value):
    return json.dumps(value).encode()


def _iris():
    rows, one = {"x": ROWS}, {"x": ROWS[:1]}
    listed = [[round(float(number), 3) for number in row] for row in ROWS]
    return {
        "rows": (JSON, text({"instances": listed}), rows),
        "rows by name": (JSON, text({"instances": [{"x": row} for row in listed]}), rows),
        "columns": (JSON, text({"inputs": listed}), rows),
        "columns by name": (JSON, text({"inputs": {"x": listed}}), rows),
        "one sample as columns": (JSON, text({"inputs": {"x": listed[0]}}), one),
        "one unnamed sample": (JSON, text({"inputs": listed[0]}), one),
        "json with a charset": ("Application/JSON; charset=utf-8", text({"instances": listed}), rows),
        "json as curl -d sends it": ("application/x-www-form-urlencoded", text({"instances": listed}), rows),
        "json without a type": (None, text({"instances": listed}), rows),
        "npy": (NPY, npy(ROWS), rows),
        "npy of one sample": (NPY, npy(ROWS[0]), one),
        "npy in Fortran order": (NPY, npy(np.asfortranarray(ROWS)), rows),
        "npy of doubles": (NPY, npy(ROWS.astype(np.float64)), rows),
        "npy of big-endian floats": (NPY, npy(ROWS.astype(">f4")), rows),
        "npy of integers": (NPY, npy(np.arange(8).reshape(2, 4)), {"x": np.arange(8.0).reshape(2, 4)}),
        "untyped npy": (UNTYPED, npy(ROWS), rows),
        "npz": (NPZ, npz(x=ROWS), rows),
        "compressed npz": (NPZ, npz(np.savez_compressed, x=ROWS), rows),
        "npz of one sample": (NPZ, npz(x=ROWS[0]), one),
        "untyped npz": (UNTYPED, npz(x=ROWS), rows),
        "form with one npy": (FORM, form(("file", "rows.npy", npy(ROWS))), rows),
        "form with two npy": (FORM, form(("a", "a.npy", npy(ROWS[:2])), ("b", "b", npy(ROWS[2]))), rows),
        "form with json lists": (FORM, form(("x", None, text(listed))), rows),
    }


def _pairs():
    both = {"left": LEFT, "right": RIGHT}
    left, right = LEFT.tolist(), RIGHT.tolist()
    named = [{"left": a, "right": b} for a, b in zip(left, right, strict=True)]
    return {
        "rows of two inputs": (JSON, text({"instances": named}), both),
        "columns of two inputs": (JSON, text({"inputs": {"right": right, "left": left}}), both),
        "one sample of two inputs": (
            JSON,
            text({"inputs": {"left": left[0], "right": right[0]}}),
            {"left": LEFT[:1], "right": RIGHT[:1]},
        ),
        "npz of two inputs": (NPZ, npz(right=RIGHT, left=LEFT), both),
        "form of two inputs": (
            FORM,
            form(("right", "r.npy", npy(RIGHT)), ("left", None, text(left))),
            both,
        ),
    }


def _shapes():
    images = np.stack(PICTURES)[..., np.newaxis] * np.float32(1 / 255)
    files = [png(picture) for picture in PICTURES]
    both, one = {"image": images}, {"image": images[:1]}
    coded = [{"b64": b64encode(file).decode()} for file in files]
    return {
        "picture": ("image/png", files[0], one),
        "picture of another type": ("image/jpeg", files[0], one),
        "untyped picture": (UNTYPED, files[0], one),
        "picture without a type": (None, files[0], one),
        "form of one picture": (FORM, form(("file", "a.png", files[0])), one),
        "form of two pictures": (FORM, form(("f", "a.png", files[0]), ("f", "b.png", files[1])), both),
        "rows of base64": (JSON, text({"instances": coded}), both),
        "rows of base64 by name": (JSON, text({"instances": [{"image": code} for code in coded]}), both),
        "columns of base64": (JSON, text({"inputs": {"image": coded}}), both),
        "one base64": (JSON, text({"inputs": coded[0]}), one),
        "numbers for a picture": (NPY, npy(images), both),
    }


def _words():
    return {
        "rows of ids": (JSON, text({"instances": IDS.tolist()}), {"ids": IDS}),
        "ids as whole floats": (JSON, text({"instances": IDS.astype(float).tolist()}), {"ids": IDS}),
        "npy of small integers": (NPY, npy(IDS.astype(np.uint8)), {"ids": IDS}),
    }


def every_body():
    """Name -> a body that its model takes."""
    models = {"iris": _iris, "pairs": _pairs, "shapes": _shapes, "words": _words}
    return {
        name: Body(model, content_type, data, {key: fitted(model, key, a) for key, a in inputs.items()})
        for model, make in models.items()
        for name, (content_type, data, inputs) in make().items()
    }


def fitted(model, name, array):
    """The array in the input's dtype."""
    spec = next(spec for spec in graph_of(model).inputs if spec.name == name)
    return np.asarray(array, spec.dtype)


BODIES = every_body()
