"""Owns the model repository extension: the index, and models put in and out of service over HTTP.

A model is loaded from the files in the models folder, never from the request: a file can hold code, and a
configuration decides how much of it runs.

Source: triton-inference-server/server/docs/protocol/extension_model_repository.md.
"""

from __future__ import annotations

from typing import Any

from service.api.http import Reply
from service.api.intake import kind
from service.errors import AdminOff, InvalidInput, InvalidParameter
from service.payloads.codecs import decode_json, encode_json
from service.serving.runtime import Runtime

INDEX = "/v2/repository/index"


class Administration:
    """The routes below `/v2/repository`.

    Args:
        allowed: the setting `admin`; without it every route here is refused.
    """

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed

    def index(self, runtime: Runtime, body: bytes) -> Reply:
        """Every version in the folder and in service, with its state; with `{"ready": true}` those that answer.

        Raises:
            AdminOff: the setting says so.
            InvalidJson, InvalidInput: the body is no such object.
        """
        self._check()
        ready_only = _object(body).get("ready", False)
        if not isinstance(ready_only, bool):
            raise InvalidInput(f"Expected 'ready' to be true or false. Received: {kind(ready_only)}.")
        lines: list[dict[str, str]] = []
        for line in runtime.index(ready_only=ready_only):
            version = {} if line.version is None else {"version": str(line.version)}
            lines.append({"name": line.name, **version, "state": line.state, "reason": line.reason})
        return Reply(200, encode_json(lines))

    def load(self, runtime: Runtime, name: str, body: bytes) -> Reply:
        """Loads a model from the folder, or what is new of it; returns when it is served.

        Raises:
            AdminOff: the setting says so.
            ModelNotFound: it is not in the folder.
            ModelLoadFailed: its files are no good.
            InvalidJson, InvalidInput, InvalidParameter: the body asks for another model than the folder holds.
        """
        self._check()
        for parameter in _parameters(body):
            if parameter == "config" or parameter.startswith("file:"):
                raise InvalidParameter(
                    f"Expected a model that lies in the models folder, with its own model.toml. "
                    f"Received: the parameter {parameter[:80]!r}; nothing is uploaded."
                )
        status = runtime.load_model(name)
        return Reply(200, encode_json({"name": status.name, "load": True}))

    def unload(self, runtime: Runtime, name: str, body: bytes) -> Reply:
        """Takes a model out of service; returns when its requests are answered.

        No model here depends on another, so `unload_dependents` changes nothing.

        Raises:
            AdminOff: the setting says so.
            ModelNotFound: there is none.
            InvalidJson, InvalidInput, InvalidParameter: the body is no such object.
        """
        self._check()
        dependents = _parameters(body).get("unload_dependents", False)
        if not isinstance(dependents, bool):
            raise InvalidParameter(
                f"Expected 'unload_dependents' to be true or false. Received: {kind(dependents)}."
            )
        status = runtime.unload_model(name)
        return Reply(200, encode_json({"name": status.name, "unload": True}))

    def _check(self) -> None:
        if not self._allowed:
            raise AdminOff(
                "Expected the setting admin = true for /v2/repository. Received: a request without it."
            )


def _object(body: bytes) -> dict[str, Any]:
    """The body, which may be left out."""
    value = decode_json(body) if body.strip() else {}
    if not isinstance(value, dict):
        raise InvalidInput(f"Expected the request to be a JSON object. Received: {kind(value)}.")
    return value


def _parameters(body: bytes) -> dict[str, Any]:
    parameters = _object(body).get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidParameter(f"Expected 'parameters' to be an object. Received: {kind(parameters)}.")
    return parameters
