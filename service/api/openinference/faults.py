"""Owns how this dialect tells errors: `{"error": "..."}`, with the HTTP status that Triton's clients expect.

Triton knows no 422 and calls an unknown output an invalid argument: those are 400 here; 415 is a Content-Encoding that
is not known. What is not found begins with the words that NVIDIA's tests and clients look for. Overload is told as everywhere in this service, 429 with Retry-After and 504, where Triton has 503.

Sources: `HttpCodeFromError` in triton-inference-server/server/src/http_server.cc, and `ModelRepositoryManager::GetModel`
in triton-inference-server/core/src/model_repository_manager/model_repository_manager.cc.
"""

from __future__ import annotations

from service.api.compression import CODINGS
from service.api.http import Reply
from service.errors import (
    LayerNotFound,
    LayertapError,
    MethodNotAllowed,
    ModelNotFound,
    QueueFull,
    RequestError,
    UnsupportedMedia,
    VersionNotFound,
)
from service.payloads.codecs import encode_json

_UNKNOWN = "Request for unknown model:"
_MAX_TOLD = 200  # characters of a name
_KEPT = {400, 403, 404, 405, 408, 413, 414, 415, 429, 431}


def fault(error: LayertapError) -> Reply:
    """The reply for an error."""
    status = error.status
    if isinstance(error, LayerNotFound) or (isinstance(error, RequestError) and status not in _KEPT):
        status = 400
    headers: dict[str, str] = {}
    if isinstance(error, QueueFull):
        headers["retry-after"] = str(error.retry_after_s)
    if isinstance(error, UnsupportedMedia):
        headers["accept-encoding"] = ", ".join(CODINGS)
    if isinstance(error, MethodNotAllowed) and "allow" in error.details:  # else its driver says it
        headers["allow"] = error.details["allow"]
    return Reply(status, encode_json({"error": _message(error)}), headers=headers)


def _message(error: LayertapError) -> str:
    if isinstance(error, ModelNotFound):
        return f"{_UNKNOWN} '{error.name[:_MAX_TOLD]}' is not found. {error.message}"
    return f"{_UNKNOWN} {error.message}" if isinstance(error, VersionNotFound) else error.message
