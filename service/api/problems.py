"""Owns how the native API tells errors: RFC 9457 problem documents with a stable `code`."""

from __future__ import annotations

from service.api.http import Reply
from service.errors import LayertapError, QueueFull
from service.payloads.codecs import encode_json

PROBLEM = "application/problem+json"


def problem(error: LayertapError) -> Reply:
    """The reply for an error; members that are `None` are left out."""
    document = {
        "type": f"/docs#{error.code}",
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": error.message,
    }
    document |= {name: value for name, value in error.details.items() if value is not None}
    headers = {"retry-after": str(error.retry_after_s)} if isinstance(error, QueueFull) else {}
    return Reply(error.status, encode_json(document), PROBLEM, headers)
