"""Owns `/openapi.json`: every route with its replies and errors, as OpenAPI 3.1.

Codes come from the tree in `errors`, what requests carry from `openapi_requests`, the shapes of bodies and
replies from `schemas`; `/v1` and `/v2` are told by their dialects. A test compares the document with the
application's routes and its real replies.
Format: https://spec.openapis.org/oas/v3.1.0.html
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from service import errors
from service.api import openapi_requests as requests
from service.api.openinference import description as v2
from service.api.openinference import shapes as v2_shapes
from service.api.operations import response
from service.api.options import FEATURES_ONLY, SHARED
from service.api.problems import PROBLEM
from service.api.schemas import binary, component_schemas, error_classes, ref
from service.api.scraping import OPENMETRICS, PLAIN
from service.api.tfserving import description as v1
from service.errors import LayertapError
from service.payloads.codecs import JSON, NPY, NPZ
from service.serving.runtime import Runtime
from service.serving.served import ModelStatus

API_VERSION = "0.2.0"

_SERVICE_WIDE = (errors.NotFound, errors.MethodNotAllowed)  # about paths; no operation answers them
_OF_CONNECTIONS = (  # whatever is asked, it may be refused so
    errors.RequestTimedOut,
    errors.TargetTooLong,
    errors.TooManyConnections,
    errors.HeadTooLarge,
    errors.HostNotAllowed,
)
_OF_DIALECTS = (  # the native API has no words for what they refuse
    errors.AdminOff,
    errors.AdminRefused,
    errors.NotSupported,
)
_ABOUT_LAYERS = (errors.LayerRequired, errors.LayerNotFound)


def openapi_document(runtime: Runtime, server: str = "/") -> dict[str, Any]:
    """The document, with the models of `runtime` as examples; complete before any is loaded. `server` as below."""
    return describe_api(runtime.models(), server)


def describe_api(models: Sequence[ModelStatus], server: str = "/") -> dict[str, Any]:
    """The document.

    Args:
        models: what is served; names and input shapes appear as examples.
        server: the path that the routes are below, as clients see it.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Layertap",
            "version": API_VERSION,
            "description": "Predictions, labels and the output of any hidden layer of Keras models. A path "
            f"that is not listed answers 404 `{errors.NotFound.code}`, a method that is not listed 405 "
            f"`{errors.MethodNotAllowed.code}`. Whatever is asked, it may also be refused with "
            f"{', '.join(f'{error.status} `{error.code}`' for error in _OF_CONNECTIONS)}. Every error is a problem "
            "document with a stable `code`. "
            'Below `/v1` and `/v2` errors are `{"error": message}`, as the clients of those protocols expect; there, '
            "too, a path that is not listed answers an error: 400 below `/v1`, 404, 405 or 501 below `/v2`.",
        },
        "servers": [{"url": server}],
        "paths": _paths(models),
        "components": {"schemas": _schemas(), "headers": _headers()},
    }


def _paths(models: Sequence[ModelStatus]) -> dict[str, Any]:
    return {
        "/predict": {"post": _inference("predict", "Predictions, labels and scores", "Predictions", models)},
        "/features": {"post": _inference("features", "The output of hidden layers", "Features", models)},
        **_catalog_paths(models),
        **_service_paths(),
        **v1.paths(),
        **v2.paths(),
    }


def _schemas() -> dict[str, Any]:
    return component_schemas() | v1.schemas() | v2_shapes.schemas()


def _catalog_paths(models: Sequence[ModelStatus]) -> dict[str, Any]:
    name = requests.path_name(models)
    model_errors = (errors.ModelNotFound,)
    listing_errors = (
        errors.InvalidParameter,
        errors.ModelNotFound,
        errors.VersionNotFound,
        errors.ModelLoading,
        errors.ModelLoadFailed,
        errors.ModelUnloaded,
    )
    return {
        "/models": {
            "get": _get(
                "models", "Every model with its state, and the device settings in force", _json("Models")
            )
        },
        "/models/{name}": {
            "get": _get(
                "model",
                "One model: its state, inputs, outputs and default layer",
                _json("Model"),
                (name,),
                model_errors,
            )
        },
        "/models/{name}/layers": {
            "get": _get(
                "layers",
                "The layers of a model, in order of computation",
                _json("Layers"),
                (name, requests.listed_version()),
                listing_errors,
            )
        },
    }


def _service_paths() -> dict[str, Any]:
    return {
        "/healthz": {
            "get": _health(
                "healthz", "Whether the engine runs; where it does not, restart the process", "Health"
            )
        },
        "/readyz": {"get": _health("readyz", "Whether requests can be answered yet", "Readiness")},
        "/metrics": {"get": _get("metrics", "Prometheus metrics", _text(PLAIN) | _text(OPENMETRICS))},
        "/openapi.json": {
            "get": _get(
                "openapi", "The routes as an OpenAPI 3.1 document", {JSON: {"schema": {"type": "object"}}}
            )
        },
        "/docs": {
            "get": _get("docs", "The models, routes and errors, as a page to read", _text("text/html"))
        },
        "/": {"get": _root()},
    }


def _inference(name: str, summary: str, schema: str, models: Sequence[ModelStatus]) -> dict[str, Any]:
    features = name == "features"
    elsewhere = (*_SERVICE_WIDE, *_OF_CONNECTIONS, *_OF_DIALECTS)
    excluded = elsewhere if features else (*elsewhere, *_ABOUT_LAYERS)
    formats = {
        JSON: {"schema": ref(schema)},
        NPY: {"schema": binary("The array; only where there is one.")},
        NPZ: {"schema": binary("All arrays by name: the layers asked for, then the model's outputs.")},
    }
    names = (*SHARED, *FEATURES_ONLY) if features else SHARED
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [*(requests.query(parameter, models) for parameter in names), requests.request_id()],
        "requestBody": {"required": True, "content": requests.bodies(models)},
        "responses": {
            "200": response("The answer, in the format that Accept asks for.", formats, "Server-Timing"),
            **_problems(cls for cls in error_classes().values() if cls not in excluded),
        },
    }


def _get(
    name: str,
    summary: str,
    content: dict[str, Any],
    parameters: Sequence[dict[str, Any]] = (),
    raised: Sequence[type[LayertapError]] = (),
) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [*parameters, requests.request_id()],
        "responses": {"200": response(summary, content), **_problems((*raised, errors.ServiceError))},
    }


def _health(name: str, summary: str, schema: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "responses": {
            "200": response("Yes.", _json(schema)),
            "503": response("No.", _json(schema)),
            **_problems((errors.ServiceError,)),
        },
    }


def _root() -> dict[str, Any]:
    health = _health("root", "Leads browsers to `/docs`, and tells others what `/healthz` tells", "Health")
    led = response("To /docs, where text/html is accepted.", _text("text/html"))
    led["headers"]["Location"] = {"schema": {"type": "string", "const": "docs"}}
    health["responses"]["302"] = led
    return health


def _problems(classes: Iterable[type[LayertapError]]) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for cls in classes:
        by_status.setdefault(cls.status, []).append(cls.code)
    return {str(status): _problem(status, codes) for status, codes in sorted(by_status.items())}


def _problem(status: int, codes: list[str]) -> dict[str, Any]:
    narrowed = {"properties": {"status": {"const": status}, "code": {"enum": codes}}}
    content = {PROBLEM: {"schema": {"allOf": [ref("Problem"), narrowed]}}}
    headers = ("Retry-After",) if status == errors.QueueFull.status else ()
    return response(f"{' or '.join(codes)}.", content, *headers)


def _headers() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "X-Request-Id": {
            "description": "The request's own, else a new one.",
            "schema": text,
            "required": True,
        },
        "Server-Timing": {
            "description": "Milliseconds of decode, queue, compute and encode.",
            "schema": text,
            "required": True,
        },
        "Retry-After": {
            "description": "Seconds until another try makes sense.",
            "schema": {"type": "integer", "minimum": 0},
            "required": True,
        },
    }


def _text(media: str) -> dict[str, Any]:
    return {media: {"schema": {"type": "string"}}}


def _json(schema: str) -> dict[str, Any]:
    return {JSON: {"schema": ref(schema)}}
