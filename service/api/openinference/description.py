"""Owns what `/openapi.json` says of `/v2`: its operations, and which statuses they answer.

Sources: https://github.com/kserve/open-inference-protocol (specification/protocol/inference_rest.md) and Triton's
extensions of it (triton-inference-server/server/docs/protocol). The shapes of bodies stand in `shapes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.api.operations import Operation, json_content, operation, path_part
from service.api.schemas import binary
from service.payloads.codecs import JSON

TAG = "Open Inference Protocol V2"

_BINARY = "application/octet-stream"
_NAME = path_part("name", "The model.", "^[^/]+$")
_SCOPES: dict[str, tuple[dict[str, Any], ...]] = {
    "": (_NAME,),
    "/versions/{version}": (_NAME, path_part("version", "One version of it.", "^[0-9]{1,18}$")),
}
_SERVICE = {500: "The service failed."}
_OF_MODEL = _SERVICE | {404: "There is no such model, or no such version of it."}
_NO_NUMBER = {400: "The version in the path is no whole number."}
_NOT_READY = {503: "The model is loading, was unloaded, or has failed to load."}
_INFERENCE = (
    _OF_MODEL
    | _NOT_READY
    | {
        400: "The request is no JSON, or does not fit the model: an unknown output, values that it rejects.",
        413: "The body is too large, as sent or unpacked.",
        415: "Content-Encoding is neither gzip nor deflate.",
        429: "Too many rows wait already.",
        504: "The request's time ran out before its reply was there.",
    }
)
_ADMINISTRATION = _SERVICE | {
    400: "The body is no JSON object, or asks for an upload.",
    403: "The setting `admin` is off, or who asks may not: see `admin_key`.",
    413: "The body is too large.",
}
_LENGTH = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "How many bytes of the body are JSON; binary tensors follow. 0: the body is one raw tensor or picture.",
    "schema": {"type": "integer", "minimum": 0},
}
# End of the path, name, what is asked, schema of the reply.
_DOCUMENTS = (
    ("", "model", "What a model takes and gives", "V2Model"),
    ("/config", "config", "The configuration, as Triton tells it", "V2Config"),
    ("/stats", "stats", "Counts and times of a model", "V2Statistics"),
)


def paths() -> dict[str, dict[str, Operation]]:
    """Path -> method -> operation."""
    return {
        "/v2": {"get": _document("v2_server", "What this server is, and its extensions", "V2Server")},
        "/v2/health/live": {"get": _health("v2_live", "Whether the process is of any use", "V2Live")},
        "/v2/health/ready": {"get": _health("v2_ready", "Whether models can answer", "V2Ready")},
        "/v2/models": {"get": _document("v2_models", "The names of the models", "V2Models")},
        "/v2/models/stats": {
            "get": _document("v2_statistics", "Counts and times of all models", "V2Statistics")
        },
        **dict(_of_models()),
        **_repository(),
    }


def _document(name: str, summary: str, schema: str) -> Operation:
    return operation(name, summary, TAG, json_content(schema), _SERVICE)


def _health(name: str, summary: str, schema: str) -> Operation:
    described = operation(name, summary, TAG, json_content(schema), _SERVICE)
    described["responses"]["400"] = described["responses"]["200"] | {"description": "No."}
    return described


def _of_models() -> Iterator[tuple[str, dict[str, Operation]]]:
    for scope, parameters in _SCOPES.items():
        path = f"/v2/models/{{name}}{scope}"
        suffix = "_version" if scope else ""
        faults = _OF_MODEL | _NOT_READY | (_NO_NUMBER if scope else {})
        for rest, asked, summary, schema in _DOCUMENTS:
            described = operation(
                f"v2_{asked}{suffix}", summary, TAG, json_content(schema), faults, parameters=parameters
            )
            yield f"{path}{rest}", {"get": described}
        yield f"{path}/ready", {"get": _model_ready(suffix, parameters)}
        yield f"{path}/infer", {"post": _infer(suffix, parameters)}


def _model_ready(suffix: str, parameters: tuple[dict[str, Any], ...]) -> Operation:
    described = operation(
        f"v2_model_ready{suffix}",
        "Whether a model can answer",
        TAG,
        json_content("V2ModelReady"),
        _OF_MODEL,
        parameters=parameters,
    )
    either = {
        "anyOf": [{"$ref": "#/components/schemas/V2ModelReady"}, {"$ref": "#/components/schemas/Fault"}]
    }
    described["responses"]["400"] = described["responses"]["404"] | {
        "description": f"It cannot. Or: {_NO_NUMBER[400]}",
        "content": {JSON: {"schema": either}},
    }
    return described


def _infer(suffix: str, parameters: tuple[dict[str, Any], ...]) -> Operation:
    tensors = binary("JSON as told for application/json, and behind it the bytes of the binary tensors.")
    raw = binary(
        "JSON and the bytes of binary tensors behind it, or with a length of 0 one raw tensor or picture."
    )
    return operation(
        f"v2_infer{suffix}",
        "The model's outputs, or any of its layers by name",
        TAG,
        json_content("V2Reply") | {_BINARY: {"schema": tensors}},
        _INFERENCE,
        parameters=(*parameters, _LENGTH),
        body={"required": True, "content": json_content("V2Request") | {_BINARY: {"schema": raw}}},
        headers=("Server-Timing",),
    )


def _repository() -> dict[str, dict[str, Operation]]:
    index = operation(
        "v2_index",
        "What lies in the models folder, and its state",
        TAG,
        json_content("V2Index"),
        _ADMINISTRATION,
        body={"content": json_content("V2IndexRequest")},
    )
    described: dict[str, dict[str, Operation]] = {"/v2/repository/index": {"post": index}}
    unknown = {404: "There is no such model."}
    for action, summary, faults in (
        ("load", "Puts a model of the models folder into service", _NOT_READY),
        ("unload", "Takes a model out of service", {}),
    ):
        described[f"/v2/repository/models/{{name}}/{action}"] = {
            "post": operation(
                f"v2_{action}",
                summary,
                TAG,
                json_content("V2Changed"),
                _ADMINISTRATION | unknown | faults,
                parameters=(_NAME,),
                body={"content": json_content("V2ChangeRequest")},
            )
        }
    return described
