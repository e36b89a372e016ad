"""Owns what `/openapi.json` says of `/v1`: its operations and the shapes of their bodies.

Sources: tensorflow_serving/g3doc/api_rest.md, and http_rest_api_util.cc where that differs; KServe's V1 protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.api.operations import Operation, json_content, operation, path_part
from service.api.schemas import Schema, list_of, record, ref

TAG = "TensorFlow Serving, KServe V1"

_NAME = path_part("name", "The model.", "^[^/:]+$")
_SCOPES: dict[str, tuple[dict[str, Any], ...]] = {
    "": (_NAME,),
    "/versions/{version}": (_NAME, path_part("version", "One version of it.", "^[0-9]{1,18}$")),
    "/labels/{label}": (_NAME, path_part("label", "The version that has this label.", "^[^/:]+$")),
}
_ABOUT = {
    400: "The path names no model, or a label or a version that cannot be.",
    404: "There is no such model, or no such version of it.",
    500: "The service failed.",
}
_NOT_READY = {503: "The model is loading, was unloaded, or has failed to load."}
_INFERENCE = (
    _ABOUT
    | _NOT_READY
    | {
        400: "The request is no JSON, does not fit the model, or asks for what the model has not.",
        413: "The body is too large, as sent or unpacked.",
        429: "Too many rows wait already.",
        504: "The request's time ran out before its reply was there.",
    }
)
_VERBS = {
    "predict": ("The model's outputs, or hidden layers by `signature_name`", "V1Predict", "V1Predictions"),
    "classify": ("Classes with their scores", "V1Examples", "V1Classes"),
    "regress": ("One number for each example", "V1Examples", "V1Numbers"),
}


def paths() -> dict[str, dict[str, Operation]]:
    """Path -> method -> operation."""
    faults = {500: _ABOUT[500]}
    listing = operation(
        "v1_models", "The names of the models, as KServe lists them", TAG, json_content("V1Models"), faults
    )
    return {"/v1/models": {"get": listing}} | dict(_of_models())


def _of_models() -> Iterator[tuple[str, dict[str, Operation]]]:
    for scope, parameters in _SCOPES.items():
        path = f"/v1/models/{{name}}{scope}"
        suffix = "_" + scope.split("/")[1] if scope else ""
        yield path, {"get": _status(suffix, parameters, whole=not scope)}
        summary = "What versions take and give, as signatures"
        metadata = operation(
            f"v1_metadata{suffix}",
            summary,
            TAG,
            json_content("V1Metadata"),
            _ABOUT | _NOT_READY,
            parameters=parameters,
        )
        yield f"{path}/metadata", {"get": metadata}
        for verb, (summary, taken, given) in _VERBS.items():
            described = operation(
                f"v1_{verb}{suffix}",
                summary,
                TAG,
                json_content(given),
                _INFERENCE,
                parameters=parameters,
                body={"required": True, "content": json_content(taken)},
                headers=("Server-Timing",),
            )
            yield f"{path}:{verb}", {"post": described}


def _status(suffix: str, parameters: tuple[dict[str, Any], ...], *, whole: bool) -> Operation:
    described = operation(
        f"v1_status{suffix}",
        "The state of each version",
        TAG,
        json_content("V1Status"),
        _ABOUT,
        parameters=parameters,
    )
    if whole:  # KServe's clients ask here whether a model is ready
        responses = described["responses"]
        responses["503"] = responses["200"] | {"description": "No version of the model is ready."}
    return described


def schemas() -> dict[str, Schema]:
    """Name -> JSON schema."""
    text: Schema = {"type": "string"}
    signature: dict[str, Schema] = {
        "signature_name": {
            "type": "string",
            "description": "`serving_default` if left out; `layer:pool` or `layer:pool,conv` for hidden layers.",
        }
    }
    tensor = ref("V1Tensor")
    pair = {"type": "array", "items": {"type": ["string", "number"]}, "minItems": 2, "maxItems": 2}
    examples = {
        **signature,
        "context": {"type": "object", "description": "Features that all examples have."},
    }
    return {
        "V1Tensor": _tensor(),
        "V1Predict": {
            "description": "Rows, as `instances`, or columns, as `inputs`.",
            "anyOf": [
                record({"instances": list_of(tensor, minItems=1)}, signature),
                record({"inputs": tensor}, signature),
            ],
        },
        "V1Predictions": {
            "description": "`predictions` where rows came, `outputs` where columns did; an object where there are several.",
            "anyOf": [record({"predictions": list_of(tensor)}), record({"outputs": tensor})],
        },
        "V1Examples": record(
            {"examples": list_of({"type": "object", "additionalProperties": tensor}, minItems=1)}, examples
        ),
        "V1Classes": record(
            {"results": list_of(list_of(pair))},
            description="For each example its classes, each a pair of label (empty where it has none) and score.",
        ),
        "V1Numbers": record({"results": list_of({"type": "number"})}),
        "V1Models": record({"models": list_of(text)}),
        "V1Status": _status_schema(text),
        "V1Metadata": record({"model_spec": {"type": "object"}, "metadata": {"type": "object"}}),
    }


def _tensor() -> Schema:
    return {
        "description": 'A value, nested lists of them, base64 as `{"b64": ...}`, or an object keyed by name.',
        "type": ["number", "string", "boolean", "array", "object"],
        "items": ref("V1Tensor"),
        "additionalProperties": ref("V1Tensor"),
    }


def _status_schema(text: Schema) -> Schema:
    states = ["START", "LOADING", "AVAILABLE", "UNLOADING", "END", "UNKNOWN"]
    health = record({"error_code": text, "error_message": text})
    line = record({"version": text, "state": {"enum": states}, "status": health})
    return record({"model_version_status": list_of(line)}, {"name": text, "ready": {"type": "boolean"}})
