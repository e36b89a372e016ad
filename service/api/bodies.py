"""Owns the request bodies of the native API: from bytes of any content type to a model's named inputs."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from service.api.http import HttpRequest
from service.api.multipart import Part, read_parts
from service.codecs import JSON, NPY, NPY_MAGIC, NPZ, ZIP_MAGIC, decode_json, decode_npy, decode_npz
from service.errors import (
    BodyTooLarge,
    InvalidInput,
    InvalidJson,
    InvalidRequest,
    UndecodableImage,
    UnsupportedMedia,
)
from service.fitting import array_from_lists, check_names, fit, fit_named, quick_rows
from service.images import ImageInput, prepare
from service.tensors import Array, TensorSpec

MULTIPART = "multipart/form-data"
_UNTYPED = ("", "application/octet-stream", "application/x-www-form-urlencoded")
_IMAGE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")
_LITERALS = (b"true", b"false", b"null")


@dataclass(frozen=True, slots=True)
class InputReader:
    """Reads bodies for one model.

    Args:
        model: its name, for messages.
        inputs: what it takes.
        images: input name -> how a picture becomes that input.
        max_input_bytes: how much the decoded arrays of one request may hold.
        max_image_pixels: the largest picture.
    """

    model: str
    inputs: tuple[TensorSpec, ...]
    images: Mapping[str, ImageInput]
    max_input_bytes: int
    max_image_pixels: int

    def read(self, request: HttpRequest) -> dict[str, Array]:
        """The inputs of a request: name -> (rows, *row shape) in the input's dtype.

        Raises:
            UnsupportedMedia: the content type is none that this model takes.
            InvalidJson, InvalidInput, UndecodableImage, BodyTooLarge: the body is not what it says, or does not
                fit the model.
        """
        encoding = request.header(b"content-encoding")
        if encoding.lower() not in ("", "identity"):
            raise UnsupportedMedia(f"Expected a body without Content-Encoding. Received: {encoding[:80]!r}.")
        body = request.body
        if not body:
            raise InvalidRequest(f"Expected a body: {self._taken()}. Received: an empty one.")
        arrays = self._read(body, request.header(b"content-type"))
        _Budget(self.max_input_bytes).spend(sum([array.nbytes for array in arrays.values()]), "the body")
        return arrays

    def _read(self, body: bytes, content_type: str) -> dict[str, Array]:
        named = media = _media(content_type)
        if media in _UNTYPED:
            media = _sniff(body)
        if media == JSON:
            return self._json(body)
        if media == NPY:
            return self._one(decode_npy(body), "the array")
        if media == NPZ:
            return fit_named(decode_npz(body, self.max_input_bytes), self.inputs, "the npz file", single=True)
        if media == MULTIPART:
            return self._multipart(read_parts(body, content_type), _Budget(self.max_input_bytes))
        if media.startswith("image/") and len(self.images) == len(self.inputs) == 1:
            return {self.inputs[0].name: self._picture(body, self.inputs[0].name)[np.newaxis]}
        received = (media or named)[:80] or "no content type"
        raise UnsupportedMedia(f"Expected {self._taken()}. Received: {received}.")

    # -- JSON ---------------------------------------------------------------------------------------------

    def _json(self, body: bytes) -> dict[str, Array]:
        value = decode_json(body)
        if not isinstance(value, dict):
            raise InvalidInput(
                f"Expected a JSON object with 'instances' or 'inputs'. Received: {_kind(value)}."
            )
        if len(value) != 1 or not ("instances" in value or "inputs" in value):
            raise InvalidInput(
                "Expected a JSON object with exactly one member, 'instances' (rows) or 'inputs' (columns). "
                f"Received: {[key[:80] for key in value][:8]}."
            )
        if "inputs" in value:
            return self._columns(value["inputs"], body)
        return self._rows(value["instances"], body)

    def _rows(self, rows: Any, body: bytes) -> dict[str, Array]:
        if not isinstance(rows, list) or not rows:
            raise InvalidInput(
                f"Expected 'instances' to be a list of at least one row. Received: {_kind(rows)}."
            )
        if not isinstance(rows[0], dict):
            spec = self._only()
            quick = quick_rows(rows, spec)
            if quick is not None:
                return {spec.name: quick}
            return self._one(self._lists(rows, spec, "instances", plain=_is_plain(body, 1)), "instances")
        if _is_b64(rows[0]):
            budget = _Budget(self.max_input_bytes)
            return {self._only().name: self._pictures(rows, self._only().name, "instances", budget)}
        for place, row in enumerate(rows):
            if not isinstance(row, dict):
                raise InvalidInput(
                    f"Expected every row to be an object. Received: instances[{place}] is {_kind(row)}."
                )
            check_names(row, self.inputs, f"instances[{place}]")
        columns = {spec.name: [row[spec.name] for row in rows] for spec in self.inputs}
        return self._named(columns, "instances", plain=_is_plain(body, 1 + len(rows) * len(self.inputs)))

    def _columns(self, columns: Any, body: bytes) -> dict[str, Array]:
        if isinstance(columns, dict) and not _is_b64(columns):
            check_names(columns, self.inputs, "inputs")
            return self._named(columns, "inputs", plain=_is_plain(body, 1 + len(columns)))
        return self._named({self._only().name: columns}, "inputs", plain=_is_plain(body, 1))

    def _named(self, columns: Mapping[str, Any], where: str, *, plain: bool) -> dict[str, Array]:
        arrays = {}
        budget = _Budget(self.max_input_bytes)
        for spec in self.inputs:
            value, place = columns[spec.name], f"{where}[{spec.name!r}]"
            if _is_b64(value):
                value = [value]
            if isinstance(value, list) and value and _is_b64(value[0]):
                arrays[spec.name] = self._pictures(value, spec.name, place, budget)
            else:
                arrays[spec.name] = self._lists(value, spec, place, plain=plain)
        return fit_named(arrays, self.inputs, where, single=where == "inputs")

    def _lists(self, values: Any, spec: TensorSpec, where: str, *, plain: bool) -> Array:
        if isinstance(values, dict):
            raise InvalidInput(f"Expected {where} to be lists of numbers. Received: an object.")
        return array_from_lists(values, spec, where, plain=plain)

    # -- pictures -----------------------------------------------------------------------------------------

    def _pictures(self, values: list[Any], name: str, where: str, budget: _Budget) -> Array:
        rows: list[Array] = []
        for place, value in enumerate(values):
            what = f"{where}[{place}]"
            with _located(what, index=place):
                rows.append(self._picture(_b64_bytes(value, what), name))
            budget.spend(rows[-1].nbytes, what)
        return _stack(rows, where)

    def _picture(self, data: bytes, name: str) -> Array:
        target = self.images.get(name)
        if target is None:
            raise UnsupportedMedia(
                f"Expected numbers for input '{name}' of model '{self.model}', which takes no pictures. "
                "Received: an image."
            )
        return prepare(data, target, max_pixels=self.max_image_pixels)

    # -- multipart ----------------------------------------------------------------------------------------

    def _multipart(self, parts: list[Part], budget: _Budget) -> dict[str, Array]:
        by_input: dict[str, list[tuple[int, Part]]] = {}
        names = [spec.name for spec in self.inputs]
        for place, part in enumerate(parts):
            name = names[0] if len(names) == 1 else part.name
            by_input.setdefault(name, []).append((place, part))
        if not parts:
            raise InvalidInput("Expected at least one file in the form. Received: none.")
        check_names(by_input, self.inputs, "the form's parts")
        arrays = {spec.name: self._parts(by_input[spec.name], spec, budget) for spec in self.inputs}
        return fit_named(arrays, self.inputs, "the form's parts")

    def _parts(self, parts: list[tuple[int, Part]], spec: TensorSpec, budget: _Budget) -> Array:
        blocks: list[Array] = []
        for place, part in parts:
            name = (part.filename or part.name)[:80]
            what = f"part {place} ({name!r})"
            with _located(what, index=place, name=name):
                blocks.append(self._part(part, spec, what))
            budget.spend(blocks[-1].nbytes, what)
        if len({block.shape[1:] for block in blocks}) > 1:
            shapes = sorted({tuple(block.shape[1:]) for block in blocks})
            raise InvalidInput(f"Expected parts of one shape for input '{spec.name}'. Received: {shapes}.")
        return np.concatenate(blocks) if len(blocks) > 1 else blocks[0]

    def _part(self, part: Part, spec: TensorSpec, what: str) -> Array:
        """(rows, *row shape): a picture is one row; arrays and JSON lists may hold many."""
        if part.data.startswith(NPY_MAGIC):
            return fit(decode_npy(part.data, what), spec, what, single=True)
        if part.filename is None and part.data.lstrip()[:1] == b"[":
            lists = array_from_lists(decode_json(part.data), spec, what, plain=False)
            return fit(lists, spec, what, single=True)
        return self._picture(part.data, spec.name)[np.newaxis]

    # -- shared -------------------------------------------------------------------------------------------

    def _only(self) -> TensorSpec:
        if len(self.inputs) == 1:
            return self.inputs[0]
        raise InvalidInput(
            f"Expected values keyed by the inputs {[spec.name for spec in self.inputs]} of model '{self.model}'. "
            "Received: values without names."
        )

    def _one(self, array: Array, where: str) -> dict[str, Array]:
        spec = self._only()
        return {spec.name: fit(array, spec, where, single=where != "instances")}

    def _taken(self) -> str:
        kinds = [JSON, NPY, NPZ, MULTIPART]
        if len(self.images) == len(self.inputs) == 1:
            kinds.insert(0, "image/*")
        return f"one of {', '.join(kinds)} for model '{self.model}'"


class _Budget:
    """What the decoded arrays of one request may still hold: small files can hold large pictures."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._left = max_bytes

    def spend(self, size: int, what: str) -> None:
        self._left -= size
        if self._left < 0:
            raise BodyTooLarge(
                f"Expected inputs of at most {self._max_bytes} bytes once decoded (max_input_bytes). "
                f"Received: more, at {what}.",
                limit_bytes=self._max_bytes,
            )


@contextmanager
def _located(what: str, **place: Any) -> Iterator[None]:
    """Errors say which picture or part it was, in their message and as members."""
    try:
        yield
    except (UndecodableImage, InvalidInput, InvalidJson) as error:
        message = error.message if what in error.message else f"{what}: {error.message}"
        raise type(error)(message, **place) from error


def _b64_bytes(value: Any, what: str) -> bytes:
    if not _is_b64(value) or not isinstance(value["b64"], str):
        raise InvalidInput(
            f'Expected {what} to be {{"b64": "..."}} like the first. Received: {_kind(value)}.'
        )
    try:
        return b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"Expected {what} to be base64. Received: {error}.") from error


@lru_cache(maxsize=256)
def _media(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_plain(body: bytes, keys: int) -> bool:
    """Whether a JSON text with that many member names holds nothing but numbers and lists besides."""
    return body.count(b'"') == 2 * keys and not any(word in body for word in _LITERALS)


def _sniff(body: bytes) -> str:
    """The content type of a body that came without one, told by its first bytes."""
    if body.startswith(NPY_MAGIC):
        return NPY
    if body.startswith(ZIP_MAGIC):
        return NPZ
    if body.startswith(_IMAGE_MAGIC):
        return "image/*"
    return JSON if body.lstrip()[:1] in (b"{", b"[") else ""


def _stack(rows: list[Array], where: str) -> Array:
    shapes = {row.shape for row in rows}
    if len(shapes) > 1:
        raise InvalidInput(
            f"Expected the pictures of {where} to have one size, because the model takes any. Received: {shapes}."
        )
    return np.stack(rows)


def _is_b64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"}


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with {[str(key)[:80] for key in value][:8]}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "null" if value is None else f"a {type(value).__name__}"
