"""Owns the documents about models: TensorFlow Serving's status and metadata, KServe's list and readiness.

Sources: get_model_status.proto and get_model_metadata.proto of TensorFlow Serving, printed as protobuf prints JSON
(one blank a level, 64-bit numbers as text); KServe's python/kserve/kserve/protocol/rest/v1_endpoints.py. Both ask
`GET /v1/models/<m>`: the reply has what either reads, and KServe's status for a model that is not ready.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from service.api.http import Reply
from service.api.tfserving.routes import Target
from service.api.tfserving.signatures import DEFAULT, LAYER_PREFIX, METHOD_NAMES
from service.errors import InvalidRequest, ModelNotFound, VersionNotFound
from service.serving.runtime import Runtime
from service.serving.served import ModelStatus, ServedModel, State
from service.tensors import TensorSpec

_DTYPES = {
    "float16": "DT_HALF",
    "float32": "DT_FLOAT",
    "float64": "DT_DOUBLE",
    "bool": "DT_BOOL",
    "string": "DT_STRING",
} | {f"{kind}{bits}": f"DT_{kind.upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_OK = {"error_code": "OK", "error_message": ""}
_LOAD_FAILED = "INVALID_ARGUMENT"
_MAX_TOLD = 200


def models(runtime: Runtime) -> Reply:
    """KServe's list of models, ready or not."""
    return _reply({"models": sorted(status.name for status in runtime.models())})


def status(target: Target, runtime: Runtime) -> Reply:
    """The state of each version of a model, or of the one that the path names.

    Without a version in the path, `name` and `ready` tell KServe's clients whether the model answers, and the HTTP
    status is 503 while it does not.

    Raises:
        InvalidRequest: the path has no model, or a label that no version has.
        ModelNotFound, VersionNotFound: there is none.
    """
    if not target.model:
        raise InvalidRequest("Missing model name in request.")
    try:
        found = runtime.status(target.model)
    except ModelNotFound as error:
        raise ModelNotFound(f"Could not find any versions of model {target.model[:_MAX_TOLD]}") from error
    number = target.number(found)
    lines = _versions(found)
    if number is None:
        ready = found.latest is not None
        document = {"name": found.name, "ready": ready, "model_version_status": list(lines.values())}
        return _reply(document, 200 if ready else 503)
    if number not in lines:
        raise VersionNotFound(f"Could not find version {number} of model {found.name}")
    return _reply({"model_version_status": [lines[number]]})


def metadata(target: Target, runtime: Runtime) -> Reply:
    """What a version takes and gives, as signatures.

    `serving_default`, and the layers that are compiled at start: every other layer has a signature as well, but
    there may be hundreds.

    Raises:
        InvalidRequest: the path has no model, or a label that no version has.
        NotFound, NotReady: there is none that answers.
    """
    if not target.model:
        raise InvalidRequest("Missing model name in request.")
    served = target.served(runtime)
    config = served.entry.config
    signatures = {DEFAULT: _signature(served, {output.name: output for output in served.spec.outputs})}
    named = config.default_layer or served.spec.bottleneck
    for path in served.layers.resolve([*([named] if named else []), *config.warm_layers]):
        signatures[LAYER_PREFIX + path] = _signature(served, {path: served.layers[path].tensor})
    spec = _printed({"name": served.name, "signature_name": "", "version": str(served.version)})
    definitions = _printed({"signature_def": signatures})
    # Two messages of protobuf in a frame written by hand, as ToJsonString in http_rest_api_util.cc has it.
    body = b'{\n"model_spec":%b,\n"metadata": {"signature_def": %b}\n}\n' % (spec, definitions)
    return Reply(200, body)


def _versions(found: ModelStatus) -> dict[int, dict[str, Any]]:
    """A line for each version that answers, has failed or is on its way, the highest first."""
    states: dict[int, tuple[str, dict[str, str]]] = {
        number: (
            "END",
            {"error_code": _LOAD_FAILED, "error_message": f"{error.message} {error.mend}".rstrip()},
        )
        for number, error in found.errors.items()
    }
    states |= dict.fromkeys(found.versions, ("AVAILABLE", _OK))
    moving = "UNLOADING" if found.state is State.UNLOADING else "LOADING"
    states |= {number: (moving, _OK) for number in found.moving if number not in found.versions}
    return {
        number: {"version": str(number), "state": state, "status": health}
        for number, (state, health) in sorted(states.items(), reverse=True)
    }


def _signature(served: ServedModel, outputs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    return {
        "inputs": _tensors((spec.name, spec, f"{DEFAULT}_{spec.name}:0") for spec in served.spec.inputs),
        "outputs": _tensors(
            (name, spec, f"StatefulPartitionedCall:{place}")
            for place, (name, spec) in enumerate(outputs.items())
        ),
        "method_name": METHOD_NAMES["predict"],
        "defaults": {},
    }


def _tensors(named: Iterable[tuple[str, TensorSpec, str]]) -> dict[str, Any]:
    return {
        name: {
            "dtype": _DTYPES.get(spec.dtype, "DT_INVALID"),
            "tensor_shape": {
                "dim": [{"size": str(-1 if size is None else size), "name": ""} for size in spec.shape],
                "unknown_rank": False,
            },
            "name": tensor,
        }
        for name, spec, tensor in named
    }


def _reply(document: Mapping[str, Any], http_status: int = 200) -> Reply:
    return Reply(http_status, _printed(document))


def _printed(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
