"""Owns the request bodies of the native API: from bytes of any content type to a model's named inputs."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from service.api.compression import unpack
from service.api.http import HttpRequest
from service.api.intake import Budget, Intake, kind, located
from service.api.json_inputs import NAMED_ROWS, NUMBERS, JsonInputs
from service.api.multipart import Part, read_parts
from service.errors import InvalidInput, InvalidRequest, UnsupportedMedia
from service.payloads.codecs import (
    BOM,
    JSON,
    NPY,
    NPY_MAGIC,
    NPZ,
    ZIP_MAGIC,
    decode_json,
    decode_npy,
    decode_npz,
)
from service.payloads.fitting import check_names, fit, fit_named
from service.payloads.json_lifting import lift
from service.payloads.nested_lists import array_from_lists
from service.tensors import Array, TensorSpec

MULTIPART = "multipart/form-data"
_UNTYPED = ("", "application/octet-stream", "application/x-www-form-urlencoded")
IMAGE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")


class InputReader:
    """Reads bodies for one model.

    Args:
        intake: what the model takes.
    """

    def __init__(self, intake: Intake) -> None:
        self.intake = intake
        self._values = JsonInputs(intake)

    def read(self, request: HttpRequest) -> dict[str, Array]:
        """The inputs of a request: name -> (rows, *row shape) in the input's dtype.

        Raises:
            UnsupportedMedia: the content type is none that this model takes, or the body is packed in an unknown way.
            InvalidJson, InvalidInput, UndecodableImage, BodyTooLarge: the body is not what it says, or does not
                fit the model.
        """
        headers, body = request.headers, request.body
        if b"content-encoding" in headers:
            body = unpack(body, request.header(b"content-encoding"), self.intake.max_input_bytes)
        if not body:
            raise InvalidRequest(f"Expected a body: {self._taken()}. Received: an empty one.")
        arrays = self._read(body, headers.get(b"content-type", b""))
        self.intake.check_size(arrays, "the body")
        return arrays

    def _read(self, body: bytes, content_type: bytes) -> dict[str, Array]:
        intake = self.intake
        named = media = _media(content_type)
        if media in _UNTYPED:
            media = _sniff(body)
        if media == JSON:
            return self._json(body)
        if media == NPY:
            array = decode_npy(body)
            spec = intake.only()
            return {spec.name: fit(array, spec, "the array", single=True)}
        if media == NPZ:
            return fit_named(
                decode_npz(body, intake.max_input_bytes), intake.inputs, "the npz file", single=True
            )
        if media == MULTIPART:
            return self._multipart(
                read_parts(body, content_type.decode("latin-1")), Budget(intake.max_input_bytes)
            )
        if media.startswith("image/") and len(intake.images) == len(intake.inputs) == 1:
            name = intake.inputs[0].name
            return {name: intake.picture(body, name)[np.newaxis]}
        received = (media or named)[:80] or "no content type"
        raise UnsupportedMedia(f"Expected {self._taken()}. Received: {received}.")

    def _json(self, body: bytes) -> dict[str, Array]:
        value = lift(body, NUMBERS, NAMED_ROWS) or decode_json(body)
        if not isinstance(value, dict):
            raise InvalidInput(
                f"Expected a JSON object with 'instances' or 'inputs'. Received: {kind(value)}."
            )
        if len(value) != 1 or not ("instances" in value or "inputs" in value):
            raise InvalidInput(
                "Expected a JSON object with exactly one member, 'instances' (rows) or 'inputs' (columns). "
                f"Received: {[key[:80] for key in value][:8]}."
            )
        if "inputs" in value:
            return self._values.columns(value["inputs"], body)
        return self._values.rows(value["instances"], body)

    # -- multipart ----------------------------------------------------------------------------------------

    def _multipart(self, parts: list[Part], budget: Budget) -> dict[str, Array]:
        by_input: dict[str, list[tuple[int, Part]]] = {}
        names = [spec.name for spec in self.intake.inputs]
        for place, part in enumerate(parts):
            name = names[0] if len(names) == 1 else part.name
            by_input.setdefault(name, []).append((place, part))
        if not parts:
            raise InvalidInput("Expected at least one file in the form. Received: none.")
        check_names(by_input, self.intake.inputs, "the form's parts")
        arrays = {spec.name: self._parts(by_input[spec.name], spec, budget) for spec in self.intake.inputs}
        return fit_named(arrays, self.intake.inputs, "the form's parts")

    def _parts(self, parts: list[tuple[int, Part]], spec: TensorSpec, budget: Budget) -> Array:
        blocks: list[Array] = []
        for place, part in parts:
            name = (part.filename or part.name)[:80]
            what = f"part {place} ({name!r})"
            with located(what, index=place, name=name):
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
        if part.filename is None and _begins_with(part.data, b"["):
            lists = array_from_lists(decode_json(part.data), spec, what, plain=False)
            return fit(lists, spec, what, single=True)
        return self.intake.picture(part.data, spec.name)[np.newaxis]

    # -- shared -------------------------------------------------------------------------------------------

    def _taken(self) -> str:
        kinds = [JSON, NPY, NPZ, MULTIPART]
        if len(self.intake.images) == len(self.intake.inputs) == 1:
            kinds.insert(0, "image/*")
        return f"one of {', '.join(kinds)} for model '{self.intake.model}'"


@lru_cache(maxsize=256)
def _media(content_type: bytes) -> str:
    return content_type.partition(b";")[0].strip().lower().decode("latin-1")


def _sniff(body: bytes) -> str:
    """The content type of a body that came without one, told by its first bytes."""
    if body.startswith(NPY_MAGIC):
        return NPY
    if body.startswith(ZIP_MAGIC):
        return NPZ
    if body.startswith(IMAGE_MAGIC):
        return "image/*"
    return JSON if _begins_with(body, b"{", b"[") else ""


def _begins_with(body: bytes, *marks: bytes) -> bool:
    return body.removeprefix(BOM).lstrip()[:1] in marks
