"""Owns the model repository extension: the index, and models put in and out of service over HTTP.

A model is loaded from the files in the models folder, never from the request: a file can hold code, and a
configuration decides how much of it runs.

Source: triton-inference-server/server/docs/protocol/extension_model_repository.md.
"""

from __future__ import annotations

from typing import Any

from service.api.http import HttpRequest, Reply
from service.api.intake import kind
from service.api.openinference.requests import read_parameters
from service.api.trust import check_administrator
from service.errors import AdminOff, InvalidInput, InvalidParameter
from service.payloads.codecs import decode_json, encode_json
from service.serving.runtime import Runtime

INDEX = "/v2/repository/index"


class Administration:
    """The routes below `/v2/repository`.

    Args:
        allowed: the setting `admin`; without it every route here is refused.
        key: the setting `admin_key`.
    """

    def __init__(self, *, allowed: bool, key: str | None) -> None:
        self._allowed = allowed
        self._key = key

    def index(self, runtime: Runtime, request: HttpRequest) -> Reply:
        """Every version in the folder and in service, with its state; with `{"ready": true}` those that answer.

        Raises:
            AdminOff, AdminRefused: the setting says so, or who asks may not.
            InvalidJson, InvalidInput: the body is no such object.
        """
        self._check(request)
        ready_only = _object(request.body).get("ready")
        if not isinstance(ready_only, bool | None):
            raise InvalidInput(f"Expected 'ready' to be true or false. Received: {kind(ready_only)}.")
        lines: list[dict[str, str]] = []
        for line in runtime.index(ready_only=bool(ready_only)):
            version = {} if line.version is None else {"version": str(line.version)}
            lines.append({"name": line.name, **version, "state": line.state, "reason": line.reason})
        return Reply(200, encode_json(lines))

    def load(self, runtime: Runtime, name: str, request: HttpRequest) -> Reply:
        """Loads a model from the folder, or what is new of it; returns when it is served.

        Raises:
            AdminOff, AdminRefused: the setting says so, or who asks may not.
            ModelNotFound: it is not in the folder.
            ModelLoadFailed: its files are no good.
            InvalidJson, InvalidInput, InvalidParameter: the body asks for another model than the folder holds.
        """
        self._check(request)
        for parameter in read_parameters(_object(request.body), "the request"):
            if parameter == "config" or parameter.startswith("file:"):
                raise InvalidParameter(
                    f"Expected a model that lies in the models folder, with its own model.toml. "
                    f"Received: the parameter {parameter[:80]!r}; nothing is uploaded."
                )
        status = runtime.load_everywhere(name)
        return Reply(200, encode_json({"name": status.name, "load": True}))

    def unload(self, runtime: Runtime, name: str, request: HttpRequest) -> Reply:
        """Takes a model out of service; returns when its requests are answered.

        No model here depends on another, so `unload_dependents` changes nothing.

        Raises:
            AdminOff, AdminRefused: the setting says so, or who asks may not.
            ModelNotFound: there is none.
            InvalidJson, InvalidInput, InvalidParameter: the body is no such object.
        """
        self._check(request)
        dependents = read_parameters(_object(request.body), "the request").get("unload_dependents", False)
        if not isinstance(dependents, bool):
            raise InvalidParameter(
                f"Expected 'unload_dependents' to be true or false. Received: {kind(dependents)}."
            )
        status = runtime.unload_everywhere(name)
        return Reply(200, encode_json({"name": status.name, "unload": True}))

    def _check(self, request: HttpRequest) -> None:
        if not self._allowed:
            raise AdminOff(
                "Expected the setting admin = true for /v2/repository. Received: a request without it."
            )
        check_administrator(request, self._key)


def _object(body: bytes) -> dict[str, Any]:
    """The body, which may be left out."""
    value = decode_json(body) if body.strip() else {}
    if not isinstance(value, dict):
        raise InvalidInput(f"Expected the request to be a JSON object. Received: {kind(value)}.")
    return value
