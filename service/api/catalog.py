"""Owns the documents about models and health: `/models...`, `/healthz`, `/readyz`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.api.http import Reply
from service.payloads.codecs import encode_json
from service.serving.runtime import Runtime
from service.serving.served import ModelStatus, ServedModel, State
from service.tensors import LayerSpec, TensorSpec


def healthz(runtime: Runtime) -> Reply:
    """200 while the engine thread runs, else 503: the process is of no more use."""
    if runtime.alive:
        return _reply(200, {"status": "alive"})
    return _reply(503, {"status": "engine_stopped"})


def readyz(runtime: Runtime) -> Reply:
    """200 once every model has settled and at least one can answer, else 503."""
    states = {status.name: status.state.value for status in runtime.models()}
    return _reply(200 if runtime.ready else 503, {"ready": runtime.ready, "models": states})


def models(runtime: Runtime, device: Mapping[str, Any]) -> Reply:
    """Every model with its state, and the device settings in force."""
    documents = [_model(status) for status in runtime.models()]
    return _reply(200, {"models": documents, "device": dict(device)})


def model(runtime: Runtime, name: str) -> Reply:
    """One model: state, inputs, outputs, settings, facts about its file."""
    return _reply(200, _model(runtime.status(name)))


def layers(runtime: Runtime, name: str, version: int | None) -> Reply:
    """Every addressable tensor of a model, in order of computation."""
    served = runtime.resolve(name, version)
    warm = {path for outputs in served.lanes.compiled for path in outputs}
    listing = [_layer(layer, compiled=layer.path in warm) for layer in served.spec.layers]
    return _reply(
        200,
        {
            "model": served.name,
            "version": served.version,
            "default_layer": _default_layer(served),
            "aliases": served.spec.aliases,
            "layers": listing,
        },
    )


def _model(status: ModelStatus) -> dict[str, Any]:
    document: dict[str, Any] = {"name": status.name, "state": status.state.value}
    if status.reason:
        document["reason"] = status.reason
    if status.labels:
        document["labels"] = dict(status.labels)
    served = status.latest
    if served is not None:
        document |= _served(served) | {"versions": sorted(status.versions)}
    if status.errors:
        document["errors"] = [
            {"version": version or None, "error": error.message, "mend": error.mend or None}
            for version, error in sorted(status.errors.items())
        ]
    if status.state is State.FAILED:
        document |= {key: document["errors"][-1][key] for key in ("error", "mend")}
    return document


def _served(served: ServedModel) -> dict[str, Any]:
    return {
        "version": served.version,
        "engine": served.engine,
        "inputs": [_tensor(spec) | {"image": spec.name in served.images} for spec in served.spec.inputs],
        "outputs": [_tensor(spec) | {"activation": spec.activation} for spec in served.spec.outputs],
        "classes": list(served.entry.classes) or None,
        "default_layer": _default_layer(served),
        "layers": len(served.spec.layers),
        "load_s": round(served.load_s, 3),
        **served.facts,
    }


def _default_layer(served: ServedModel) -> str | None:
    return served.entry.config.default_layer or served.spec.bottleneck


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "shape": spec.shape, "dtype": spec.dtype}


def _layer(layer: LayerSpec, *, compiled: bool) -> dict[str, Any]:
    return {
        "name": layer.path,
        "class": layer.class_name,
        "shape": layer.shape,
        "dtype": layer.dtype,
        "parameters": layer.parameters,
        "row_bytes": layer.row_bytes,
        "compute_share": round(layer.compute_share, 6),
        "compiled": compiled,
    }


def _reply(status: int, document: Mapping[str, Any]) -> Reply:
    return Reply(status, encode_json(document))
