"""Owns how one operation of a dialect is written in OpenAPI: its reply, its errors, its parameters.

Which operations there are, each dialect says itself; `openapi` puts them into one document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.api.schemas import ref
from service.errors import QueueFull
from service.payloads.codecs import JSON

Operation = dict[str, Any]


def response(description: str, content: Mapping[str, Any], *headers: str) -> dict[str, Any]:
    """A reply: its content by type, the headers by their names in the document's components."""
    named = {name: {"$ref": f"#/components/headers/{name}"} for name in (*headers, "X-Request-Id")}
    return {"description": description, "headers": named, "content": dict(content)}


def operation(
    name: str,
    summary: str,
    tag: str,
    good: Mapping[str, Any],
    faults: Mapping[int, str],
    *,
    parameters: Sequence[dict[str, Any]] = (),
    body: Mapping[str, Any] | None = None,
    headers: Sequence[str] = (),
) -> Operation:
    """An operation whose errors are `{"error": message}`.

    Args:
        name: the operation's id, unique in the document.
        summary: what it answers.
        tag: the dialect.
        good: content type -> media type object of a 200.
        faults: status -> when it is answered.
        parameters: in the path, the query and the headers.
        body: the request's body, if it takes one.
        headers: of a 200, by their names in the document's components.
    """
    described: Operation = {"operationId": name, "summary": summary, "tags": [tag]}
    if parameters:
        described["parameters"] = list(parameters)
    if body is not None:
        described["requestBody"] = dict(body)
    described["responses"] = {
        "200": response(summary, good, *headers),
        **{str(status): _fault(status, when) for status, when in sorted(faults.items())},
    }
    return described


def json_content(schema: str) -> dict[str, Any]:
    """JSON of one of the document's schemas."""
    return {JSON: {"schema": ref(schema)}}


def path_part(name: str, description: str, pattern: str) -> dict[str, Any]:
    """A parameter in the path."""
    schema = {"type": "string", "pattern": pattern}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _fault(status: int, when: str) -> dict[str, Any]:
    headers = ("Retry-After",) if status == QueueFull.status else ()
    return response(when, json_content("Fault"), *headers)
