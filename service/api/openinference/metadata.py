"""Owns the documents that describe the server and its models, and tell whether they are ready.

Source: "Health", "Server Metadata" and "Model Metadata" of the Open Inference Protocol V2. What is ready answers
200; what is not 400, as Triton does, with a body that KServe's clients and people can read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.api.http import Reply
from service.api.openapi import API_VERSION
from service.api.openinference.datatypes import BYTES, datatype_of
from service.errors import NotReady
from service.payloads.codecs import encode_json
from service.serving.runtime import Runtime
from service.tensors import TensorSpec

PLATFORM = "keras_h5"

_EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "statistics",
)
_ADMINISTRATION = ("model_repository", "model_repository(unload_dependents)")


def server(*, admin: bool) -> Reply:
    """What this server is, and the extensions that it speaks.

    Args:
        admin: whether models may be put in and out of service; without that the extension is not announced.
    """
    extensions = sorted(_EXTENSIONS + _ADMINISTRATION) if admin else _EXTENSIONS
    return Reply(200, encode_json({"name": "layertap", "version": API_VERSION, "extensions": extensions}))


def live(runtime: Runtime) -> Reply:
    """Whether the process is of any use."""
    return _health({"live": runtime.alive}, "The engine stopped.", good=runtime.alive)


def ready(runtime: Runtime) -> Reply:
    """Whether every model has settled and at least one can answer."""
    return _health({"ready": runtime.ready}, "The models are not ready yet.", good=runtime.ready)


def model_ready(runtime: Runtime, name: str, version: int | None) -> Reply:
    """Whether a model can answer.

    Raises:
        ModelNotFound, VersionNotFound: there is none.
    """
    try:
        served = runtime.resolve(name, version)
    except NotReady as error:
        return _health({"name": name, "ready": False}, error.message, good=False)
    return _health({"name": served.name, "ready": True}, "", good=True)


def models(runtime: Runtime) -> Reply:
    """The names of the models, as KServe lists them."""
    return Reply(200, encode_json({"models": [status.name for status in runtime.models()]}))


def model(runtime: Runtime, name: str, version: int | None) -> Reply:
    """What a model takes and gives.

    The outputs are the declared ones; every layer can be asked for as well, see `/models/<m>/layers`. An input that
    takes pictures says so in its parameters.

    Raises:
        ModelNotFound, VersionNotFound: there is none.
        NotReady: it cannot answer now.
    """
    served = runtime.resolve(name, version)
    inputs = tensors(served.spec.inputs)
    for tensor in inputs:
        if tensor["name"] in served.images:
            tensor["parameters"] = {"also_takes": BYTES}
    versions = sorted(runtime.status(name).versions)
    return Reply(
        200,
        encode_json(
            {
                "name": served.name,
                "versions": [str(number) for number in versions],
                "platform": PLATFORM,
                "inputs": inputs,
                "outputs": tensors(served.spec.outputs),
            }
        ),
    )


def tensors(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    """Name, datatype and shape of each tensor; -1 where any size goes."""
    return [
        {"name": spec.name, "datatype": datatype_of(spec.dtype), "shape": sizes(spec.shape)} for spec in specs
    ]


def sizes(shape: Sequence[int | None]) -> list[int]:
    """A shape in the protocol's way."""
    return [-1 if size is None else size for size in shape]


def _health(document: dict[str, Any], fault: str, *, good: bool) -> Reply:
    return Reply(200 if good else 400, encode_json(document if good else {**document, "error": fault}))
