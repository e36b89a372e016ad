"""Owns what requests carry, as `/openapi.json` tells it: query parameters, headers, and bodies with examples.

Names and choices of parameters come from `options`; content types are those that `bodies` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.api.bodies import MULTIPART
from service.api.options import CHOICES, REPEATABLE
from service.api.schemas import Schema, binary, ref
from service.payloads.codecs import JSON, NPY, NPZ
from service.serving.served import ModelStatus, ServedModel

_MAX_EXAMPLE_VALUES = 64  # larger rows make no example that anybody reads
_COUNT: Schema = {"type": "integer", "minimum": 1}
_VERSION: Schema = {"type": "integer", "minimum": 0}

_PARAMETERS: dict[str, tuple[Schema, str]] = {
    "model": ({"type": "string"}, "Which model answers; the default one, or the only one, if not named."),
    "version": (_VERSION, "Which version of it; the highest that is served if not named."),
    "top": (_COUNT, "Adds the best k classes of each row to the predictions of a JSON reply."),
    "dtype": ({"type": "string"}, "The type of floats in the reply."),
    "timeout_ms": (_COUNT, "Time for this request; can only shorten request_timeout_ms."),
    "layer": (
        {"type": "string"},
        (
            "A layer's path (`pool`, `base/conv5`), its place (`-2` counts from the end) or a pattern "
            "(`conv5_*`); the model's default layer if not named. May be repeated."
        ),
    ),
    "pool": ({"type": "string"}, "Average or maximum over the spatial axes."),
    "normalize": ({"type": "string"}, "Scales rows to L2 norm 1 over the last axis."),
    "include": ({"type": "string"}, "Adds the predictions, from the same pass."),
}


def query(name: str, models: Sequence[ModelStatus]) -> dict[str, Any]:
    """A query parameter of the inference routes; model names are examples, no closed list."""
    kind, description = _PARAMETERS[name]
    schema = dict(kind)
    if name in CHOICES:
        schema["enum"] = list(CHOICES[name])
    parameter: dict[str, Any] = {"name": name, "in": "query", "description": description, "schema": schema}
    if name in REPEATABLE:
        parameter |= {"schema": {"type": "array", "items": schema}, "style": "form", "explode": True}
    if name == "model" and models:
        parameter["examples"] = _names(models)
    return parameter


def path_name(models: Sequence[ModelStatus]) -> dict[str, Any]:
    """The model in a path."""
    parameter: dict[str, Any] = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    parameter["description"] = "The model."
    return parameter | ({"examples": _names(models)} if models else {})


def listed_version() -> dict[str, Any]:
    """The version whose layers are listed."""
    schema, description = _PARAMETERS["version"]
    return {"name": "version", "in": "query", "description": description, "schema": dict(schema)}


def request_id() -> dict[str, Any]:
    """The header that names a request."""
    description = "Comes back in the reply and in the log. At most 128 printable ASCII characters, no spaces."
    return {
        "name": "X-Request-Id",
        "in": "header",
        "description": description,
        "schema": {"type": "string", "maxLength": 128},
    }


def _names(models: Sequence[ModelStatus]) -> dict[str, Any]:
    return {status.name: {"value": status.name} for status in models}


def bodies(models: Sequence[ModelStatus]) -> dict[str, Any]:
    """Content type -> what such a body is; a row of zeros for each served model that takes numbers."""
    part = binary("A picture or an npy file; a part without a file name may hold nested JSON lists.")
    parts = {"anyOf": [part, {"type": "array", "items": part}]}
    untyped = binary("Told by its first bytes: npy, npz, a picture or JSON.")
    json_body: dict[str, Any] = {"schema": {"oneOf": [ref("Rows"), ref("Columns")]}}
    examples = {served.name: {"value": row} for served in _served(models) if (row := _example(served))}
    return {
        JSON: json_body | ({"examples": examples} if examples else {}),
        "image/*": {"schema": binary("One picture, for models with one input that takes pictures.")},
        MULTIPART: {
            "schema": {
                "type": "object",
                "description": "Pictures or arrays in order; with several inputs the part names are theirs.",
                "additionalProperties": parts,
            }
        },
        NPY: {"schema": binary("An array with a batch axis, or a single sample.")},
        NPZ: {"schema": binary("One array for each input, by its name.")},
        "application/octet-stream": {"schema": untyped},
        "application/x-www-form-urlencoded": {"schema": untyped},  # what curl sends if it is not told
    }


def _served(models: Sequence[ModelStatus]) -> list[ServedModel]:
    return [status.latest for status in models if status.latest is not None]


def _example(served: ServedModel) -> dict[str, Any] | None:
    """One row of zeros; `None` where it would be too long to read."""
    sizes = [spec.row_values for spec in served.spec.inputs]
    if served.images or any(size is None or size > _MAX_EXAMPLE_VALUES for size in sizes):
        return None
    row = {spec.name: _zeros(spec.row_shape, spec.dtype) for spec in served.spec.inputs}
    return {"instances": [next(iter(row.values())) if len(row) == 1 else row]}


def _zeros(shape: Sequence[int | None], dtype: str) -> Any:
    if not shape:
        return {"string": "", "bool": False}.get(dtype, 0)
    return [_zeros(shape[1:], dtype)] * (shape[0] or 1)
