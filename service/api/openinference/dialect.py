"""Owns the routes of the Open Inference Protocol V2, each with its method.

Sources: https://github.com/kserve/open-inference-protocol (specification/protocol/inference_rest.md) and
triton-inference-server/server/docs/protocol.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from service.api.endpoint import Limits
from service.api.http import HttpRequest, Reply, options_reply
from service.api.openinference import accounts, configuration, metadata
from service.api.openinference.administration import INDEX, Administration
from service.api.openinference.faults import fault
from service.api.openinference.infer import InferEndpoint
from service.api.openinference.paths import model_path, model_route
from service.errors import LayertapError, MethodNotAllowed, NotFound, NotSupported
from service.serving.runtime import Runtime

Answer: TypeAlias = Callable[[HttpRequest, Runtime], Reply]

_ADMINISTRATION = re.compile(r"/v2/repository/models/(?P<model>[^/]+)/(?P<action>load|unload)")
# Triton has these; a client that asks for them shall hear that they are not here, rather than that its path is wrong.
_NOT_HERE = re.compile(
    r"/v2/(?:(?:models/[^/]+/)?trace/setting|logging"
    r"|(?:systemsharedmemory|cudasharedmemory)(?:/region/[^/]+)?/(?:status|register|unregister))"
)
_PLAIN: dict[str, Callable[[Runtime], Reply]] = {
    "/v2/health/live": metadata.live,
    "/v2/health/ready": metadata.ready,
    "/v2/models": metadata.models,
    "/v2/models/stats": accounts.all_statistics,
}
_OF_MODEL: dict[str, Callable[[Runtime, str, int | None], Reply]] = {
    "": metadata.model,
    "ready": metadata.model_ready,
    "config": configuration.model_config,
    "stats": accounts.model_statistics,
}


class OpenInference:
    """Every route under `/v2`.

    Args:
        limits: sizes.
        admin: whether models may be put in and out of service.
        admin_key: what whoever does that must know; `None`: only this machine may.
    """

    name = "openinference"
    prefix = "/v2"

    def __init__(self, limits: Limits, *, admin: bool, admin_key: str | None = None) -> None:
        self._infer = InferEndpoint(limits)
        self._administration = Administration(allowed=admin, key=admin_key)
        self._admin = admin

    def endpoint(self, path: str) -> InferEndpoint | None:
        """What answers a POST to this path by running a model."""
        return self._infer if path.endswith("/infer") and model_route(path) == "infer" else None

    def is_health(self, path: str) -> bool:
        """Whether a GET to this path asks if the server or a model is live or ready."""
        return path.startswith("/v2/health/") or model_route(path) == "ready"

    def answer(self, request: HttpRequest, runtime: Runtime) -> Reply:
        """The reply to anything that is no inference.

        Raises:
            LayertapError: `problem` renders it.
        """
        if _NOT_HERE.fullmatch(request.path):
            raise NotSupported(
                f"Expected one of the extensions that GET /v2 lists. Received: {request.method} {request.path[:200]}."
            )
        found = ("POST", None) if model_route(request.path) == "infer" else self._route(request.path)
        if found is None:
            raise NotFound(
                f"Expected a path of the Open Inference Protocol V2. Received: {request.path[:200]!r}."
            )
        method, answer = found
        if request.method == "OPTIONS":
            return options_reply(method)
        if request.method != method or answer is None:
            raise _wrong_method(method, request)
        return answer(request, runtime)

    def problem(self, error: LayertapError) -> Reply:
        """The reply for an error."""
        return fault(error)

    def _route(self, path: str) -> tuple[str, Answer] | None:
        """The method that a path takes, and what answers it."""
        if path in ("/v2", "/v2/"):
            return "GET", lambda _, __: metadata.server(admin=self._admin)
        plain = _PLAIN.get(path)
        if plain is not None:
            return "GET", lambda _, runtime: plain(runtime)
        if path == INDEX:
            return "POST", lambda request, runtime: self._administration.index(runtime, request)
        change = _ADMINISTRATION.fullmatch(path)
        if change is not None:
            name, loads = change["model"], change["action"] == "load"
            act = self._administration.load if loads else self._administration.unload
            return "POST", lambda request, runtime: act(runtime, name, request)
        asked = model_route(path)
        document = _OF_MODEL.get(asked) if asked is not None else None
        if document is not None:
            return "GET", lambda _, runtime: document(runtime, *model_path(path))
        return None


def _wrong_method(method: str, request: HttpRequest) -> MethodNotAllowed:
    return MethodNotAllowed(
        f"Expected {method} {request.path[:200]}. Received: {request.method}.", allow=method
    )
