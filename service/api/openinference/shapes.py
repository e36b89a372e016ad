"""Owns the JSON schemas of `/v2`: what its bodies and replies look like.

Source: the Open Inference Protocol V2 and Triton's extensions binary_tensor_data, classification, parameters,
schedule_policy, statistics, model_configuration and model_repository.
"""

from __future__ import annotations

from service.api.openinference.datatypes import DATATYPES
from service.api.schemas import Schema, list_of, record, ref

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_WHOLE: Schema = {"type": "integer", "minimum": 0}
_DATATYPE: Schema = {"enum": list(DATATYPES)}
_SIZES: Schema = {"type": "array", "items": _WHOLE, "description": "The batch axis first."}


def schemas() -> dict[str, Schema]:
    """Name -> JSON schema."""
    return {**_documents(), **_inference(), **_statistics(), **_administration()}


def _documents() -> dict[str, Schema]:
    shape = {"type": "array", "items": {"type": "integer", "minimum": -1}, "description": "-1: any size."}
    tensor = record({"name": _TEXT, "datatype": _TEXT, "shape": shape}, {"parameters": {"type": "object"}})
    dims = {"name": _TEXT, "data_type": _TEXT, "dims": shape}
    fault = {"error": {"type": "string", "description": "Why not."}}
    return {
        "V2Server": record({"name": _TEXT, "version": _TEXT, "extensions": list_of(_TEXT)}),
        "V2Live": record({"live": _FLAG}, fault),
        "V2Ready": record({"ready": _FLAG}, fault),
        "V2ModelReady": record({"name": _TEXT, "ready": _FLAG}, fault),
        "V2Models": record({"models": list_of(_TEXT)}),
        "V2Tensor": tensor,
        "V2Model": record(
            {
                "name": _TEXT,
                "versions": list_of(_TEXT),
                "platform": _TEXT,
                "inputs": list_of(ref("V2Tensor")),
                "outputs": list_of(ref("V2Tensor")),
            }
        ),
        "V2Config": record(
            {
                "name": _TEXT,
                "platform": _TEXT,
                "max_batch_size": _WHOLE,
                "input": list_of(record(dims)),
                "output": list_of(record(dims)),
            },
            description="Triton's ModelConfig; the members named here are those that its tools ask for.",
        ),
    }


def _inference() -> dict[str, Schema]:
    known = {
        "timeout": {**_WHOLE, "description": "Microseconds; can only shorten request_timeout_ms."},
        "priority": {**_WHOLE, "description": "1 goes first; 0 is the default."},
        "binary_data_output": {
            **_FLAG,
            "description": "Whether outputs are binary unless they say otherwise.",
        },
    }
    wish = {
        "binary_data": _FLAG,
        "classification": {**_WHOLE, "description": "The best so many classes instead of the numbers."},
    }
    data = {"type": "array", "description": "Row-major, flat or nested as the shape is."}
    size = {"binary_data_size": {**_WHOLE, "description": "Bytes behind the JSON, instead of `data`."}}
    tensor: dict[str, Schema] = {"name": _TEXT, "shape": _SIZES, "datatype": _DATATYPE}
    either = {"anyOf": [{"required": ["data"]}, {"required": ["parameters"]}]}
    given = {"data": data, "parameters": _parameters(size)}
    output = record({"name": _TEXT}, {"parameters": _parameters(wish)})
    return {
        "V2Input": record(tensor, given, **either),
        "V2Output": record({**tensor, "datatype": _TEXT}, given, **either),
        "V2Request": record(
            {"inputs": list_of(ref("V2Input"), minItems=1)},
            {"id": _TEXT, "parameters": _parameters(known), "outputs": list_of(output)},
            description="An output is one that the model declares, or any layer by name.",
        ),
        "V2Reply": record(
            {"model_name": _TEXT, "model_version": _TEXT, "outputs": list_of(ref("V2Output"))}, {"id": _TEXT}
        ),
    }


def _parameters(known: dict[str, Schema]) -> Schema:
    return {
        "type": "object",
        "properties": known,
        "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
    }


def _statistics() -> dict[str, Schema]:
    tally = record({"count": _WHOLE, "ns": _WHOLE})
    parts = ("compute_input", "compute_infer", "compute_output")
    kinds = ("success", "fail", "queue", *parts, "cache_hit", "cache_miss")
    batch = record({"batch_size": _WHOLE, **dict.fromkeys(parts, tally)})
    model = record(
        {
            "name": _TEXT,
            "version": _TEXT,
            "last_inference": {**_WHOLE, "description": "Milliseconds since 1970."},
            "inference_count": {**_WHOLE, "description": "Rows."},
            "execution_count": {**_WHOLE, "description": "Batches."},
            "inference_stats": record(dict.fromkeys(kinds, tally)),
            "batch_stats": list_of(batch),
        }
    )
    return {"V2Statistics": record({"model_stats": list_of(model)})}


def _administration() -> dict[str, Schema]:
    states = {"enum": ["READY", "UNAVAILABLE", "LOADING", "UNLOADING", "UNKNOWN"]}
    line = record({"name": _TEXT, "state": states, "reason": _TEXT}, {"version": _TEXT})
    unload = {"unload_dependents": {**_FLAG, "description": "Changes nothing here."}}
    return {
        "V2IndexRequest": record(
            {}, {"ready": {"type": ["boolean", "null"], "description": "Only those that answer."}}
        ),
        "V2Index": list_of(line),
        "V2ChangeRequest": record({}, {"parameters": _parameters(unload)}),
        "V2Changed": record({"name": _TEXT}, {"load": {"const": True}, "unload": {"const": True}}),
    }
