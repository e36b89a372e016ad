"""Owns the JSON schemas of the native API: what bodies and replies look like, and the codes of errors.

Plain data in JSON Schema 2020-12, the dialect of OpenAPI 3.1. `openapi` says which route takes and answers
which of them.
"""

from __future__ import annotations

from typing import Any

from service.errors import LayertapError, RequestError, ServiceError
from service.serving.served import State

Schema = dict[str, Any]

_WHOLE: Schema = {"type": "integer", "minimum": 0}
_TEXT: Schema = {"type": "string"}
_NULLABLE_TEXT: Schema = {"type": ["string", "null"]}


def error_classes() -> dict[str, type[LayertapError]]:
    """Code -> the error that carries it, for every code that can reach a client, in the tree's order.

    Where a class takes over the code of its parent, it stands for the code: it says more.
    """
    found: dict[str, type[LayertapError]] = {}

    def walk(cls: type[LayertapError]) -> None:
        found[cls.code] = cls
        for child in cls.__subclasses__():
            walk(child)

    walk(RequestError)
    walk(ServiceError)
    return found


def component_schemas() -> dict[str, Schema]:
    """Every schema that the native API names, and the error of the other dialects, by its name."""
    fault = record({"error": {**_TEXT, "description": "What was expected and what was received."}})
    return {**_values(), **_bodies(), **_replies(), **_catalog(), "Problem": _problem(), "Fault": fault}


def ref(name: str) -> Schema:
    """A reference to one of `component_schemas`."""
    return {"$ref": f"#/components/schemas/{name}"}


def binary(description: str) -> Schema:
    """Bytes that are no JSON."""
    return {"description": description, "contentMediaType": "application/octet-stream"}


def list_of(items: Schema, **more: Any) -> Schema:
    """A list of equal things."""
    return {"type": "array", "items": items, **more}


def _map_of(values: Schema, description: str = "") -> Schema:
    schema: Schema = {"type": "object", "additionalProperties": values, "minProperties": 1}
    return schema | ({"description": description} if description else {})


def record(required: dict[str, Schema], optional: dict[str, Schema] | None = None, **more: Any) -> Schema:
    """An object with members of its own; others may stand beside them."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
        **more,
    }


def _one_or_by_output(schema: Schema, description: str) -> Schema:
    return {
        "description": f"{description} With several outputs: an object keyed by output.",
        "anyOf": [schema, _map_of(schema)],
    }


def _values() -> dict[str, Schema]:
    return {
        "Values": {
            "description": "A number, text or boolean of the input's dtype, or nested lists of equal length.",
            "type": ["number", "string", "boolean", "array"],
            "items": ref("Values"),
        },
        "Results": {
            "description": "Nested lists, batch axis first. A number that is not finite is null.",
            "type": ["number", "string", "boolean", "null", "array"],
            "items": ref("Results"),
        },
        "Picture": record(
            {"b64": {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/*"}},
            description="An image file in base64, for inputs that take pictures.",
            additionalProperties=False,
        ),
        "Shape": list_of({"type": ["integer", "null"]}, description="The batch axis first; null: any size."),
    }


def _bodies() -> dict[str, Schema]:
    value = {"anyOf": [ref("Values"), ref("Picture"), list_of(ref("Picture"), minItems=1)]}
    row = {
        "description": "The values of one row, or an object keyed by input.",
        "anyOf": [ref("Values"), ref("Picture"), _map_of({"anyOf": [ref("Values"), ref("Picture")]})],
    }
    rows = record(
        {"instances": list_of(row, minItems=1)},
        additionalProperties=False,
        description='Rows, as `{"instances": [row, row, ...]}`; a row of a model with several inputs is an object '
        "keyed by input.",
    )
    columns = record(
        {"inputs": {"anyOf": [value, _map_of(value)]}},
        additionalProperties=False,
        description='Columns, as `{"inputs": {"x": [...]}}`: an array with a batch axis, or a single sample, for each '
        "input; for the only input also without its name.",
    )
    return {"Rows": rows, "Columns": columns}


def _replies() -> dict[str, Schema]:
    who = {"model": _TEXT, "version": _WHOLE}
    predictions = {"predictions": _one_or_by_output(ref("Results"), "What the model answers.")}
    labels = {
        "labels": _one_or_by_output(ref("Results"), "Argmax over the last axis."),
        "classes": _one_or_by_output(ref("Results"), "The labels' names, where the model has any."),
        "scores": _one_or_by_output(ref("Results"), "The value at the label: its probability."),
        "top": _one_or_by_output(ref("Ranking"), "The best `top` of each row."),
    }
    entry = record({"label": _WHOLE, "score": {"type": ["number", "null"]}}, {"class": _TEXT})
    features = {"features": _map_of(ref("Results"), "Keyed by the layer's path.")}
    return {
        "Ranking": list_of({"anyOf": [entry, ref("Ranking")]}),
        "Predictions": record({**who, **predictions}, labels),
        "Features": record({**who, **features}, {**predictions, **labels}),
    }


def _catalog() -> dict[str, Schema]:
    tensor = {"name": _TEXT, "shape": ref("Shape"), "dtype": _TEXT}
    failure = {"error": _TEXT, "mend": _NULLABLE_TEXT}
    states = {"enum": [state.value for state in State]}
    model = record(
        {"name": _TEXT, "state": states},
        {
            "reason": {**_TEXT, "description": "Why it is unavailable."},
            "version": {**_WHOLE, "description": "The one that answers when a request names none."},
            "versions": list_of(_WHOLE),
            "labels": {"type": "object", "additionalProperties": _WHOLE},
            "engine": _TEXT,
            "inputs": list_of(record({**tensor, "image": {"type": "boolean"}})),
            "outputs": list_of(record({**tensor, "activation": _NULLABLE_TEXT})),
            "classes": {"type": ["array", "null"], "items": _TEXT},
            "default_layer": _NULLABLE_TEXT,
            "layers": {**_WHOLE, "description": "How many there are."},
            "load_s": {"type": "number", "description": "Seconds from opening the file to ready."},
            "errors": list_of(record({"version": {"type": ["integer", "null"]}, **failure})),
            **failure,
        },
        description="A model that is ready tells what it takes and gives; one that failed, why. Further "
        "members are facts about its file.",
    )
    listing = {"aliases": {"type": "object", "additionalProperties": _TEXT}, "layers": list_of(ref("Layer"))}
    return {
        "Model": model,
        "Models": record({"models": list_of(ref("Model")), "device": {"type": "object"}}),
        "Layer": _layer(),
        "Layers": record({"model": _TEXT, "version": _WHOLE, "default_layer": _NULLABLE_TEXT, **listing}),
        "Health": record({"status": {"enum": ["alive", "engine_stopped"]}}),
        "Readiness": record(
            {"ready": {"type": "boolean"}, "models": {"type": "object", "additionalProperties": states}}
        ),
    }


def _layer() -> Schema:
    share = {"type": "number", "minimum": 0, "maximum": 1}
    return record(
        {
            "name": {**_TEXT, "description": "What `layer` takes."},
            "class": _TEXT,
            "shape": ref("Shape"),
            "dtype": _TEXT,
            "parameters": _WHOLE,
            "row_bytes": {"type": ["integer", "null"], "description": "null where an axis is free."},
            "compute_share": {**share, "description": "Of the whole model, up to this tensor."},
            "compiled": {"type": "boolean", "description": "Whether the first request need not wait."},
        }
    )


def _problem() -> Schema:
    codes = [
        {"const": code, "title": cls.title, "description": cls.__doc__, "x-status": cls.status}
        for code, cls in error_classes().items()
    ]
    return record(
        {
            "type": {"type": "string", "format": "uri-reference"},
            "title": _TEXT,
            "status": {"type": "integer"},
            "code": {"description": "Stable; programs may rely on it.", "oneOf": codes},
            "detail": {**_TEXT, "description": "What was expected and what was received."},
        },
        description="RFC 9457. Some errors have further members: limits, suggestions, the index of a picture.",
    )
