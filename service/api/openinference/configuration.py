"""Owns a model's configuration in the words of Triton's `ModelConfig`, which NVIDIA's tools ask for.

It says what is so here: the batch axis is free, requests are batched as they come, the newest version or every one
is served. Members that would only repeat a default are there where tools read them without asking.

Source: `message ModelConfig` of triton-inference-server/common/protobuf/model_config.proto, printed as protobuf
prints JSON; triton-inference-server/server/docs/protocol/extension_model_configuration.md.
"""

from __future__ import annotations

from typing import Any

from service.api.http import Reply
from service.api.openinference.datatypes import BYTES, datatype_of
from service.api.openinference.metadata import PLATFORM, sizes
from service.payloads.codecs import encode_json
from service.serving.runtime import Runtime
from service.serving.served import ServedModel
from service.tensors import TensorSpec


def model_config(runtime: Runtime, name: str, version: int | None) -> Reply:
    """The configuration of a model.

    Raises:
        ModelNotFound, VersionNotFound: there is none.
        NotReady: it cannot answer now.
    """
    served = runtime.resolve(name, version)
    declared = served.layers.ordered({output.path for output in served.spec.outputs})
    max_batch_size = served.lanes.lane(declared).max_batch_size
    document = {
        "name": served.name,
        "platform": PLATFORM,
        "backend": served.engine,
        "version_policy": _version_policy(runtime, served),
        "max_batch_size": max_batch_size,
        "input": [_input(spec, served) for spec in served.spec.inputs],
        "output": [_tensor(spec) | {"label_filename": ""} for spec in served.spec.outputs],
        "batch_input": [],
        "batch_output": [],
        "dynamic_batching": {
            "preferred_batch_size": [max_batch_size],
            "preserve_ordering": False,
        },
        "default_model_filename": str(served.facts.get("file", "")),
        "parameters": {},
        "model_warmup": [],
        "model_transaction_policy": {"decoupled": False},
    }
    return Reply(200, encode_json(document))


def _version_policy(runtime: Runtime, served: ServedModel) -> dict[str, Any]:
    config = served.entry.config
    if config.versions == "all":
        return {"all": {}}
    if config.labels:
        return {"specific": {"versions": sorted(runtime.status(served.name).versions)}}
    return {"latest": {"num_versions": 1}}


def _input(spec: TensorSpec, served: ServedModel) -> dict[str, Any]:
    return _tensor(spec) | {
        "format": _format(spec, served),
        "allow_ragged_batch": False,
        "optional": False,
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    datatype = datatype_of(spec.dtype)
    return {
        "name": spec.name,
        "data_type": "TYPE_STRING" if datatype == BYTES else f"TYPE_{datatype}",
        "dims": sizes(spec.row_shape),
        "is_shape_tensor": False,
    }


def _format(spec: TensorSpec, served: ServedModel) -> str:
    image = served.images.get(spec.name)
    if image is None or image.flat:
        return "FORMAT_NONE"
    return "FORMAT_NCHW" if image.channels_first else "FORMAT_NHWC"
