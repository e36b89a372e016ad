"""Owns what each peer's protocol makes of a row: the bytes of a request, and the array in a reply."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from load import Request
from peers.endpoints import Endpoint

Array = np.ndarray[Any, np.dtype[Any]]
_BOUNDARY = "layertap-bench"


@dataclass(frozen=True)
class Dialect:
    """One protocol.

    Args:
        says: what a request looks like, for the report.
        ask: an endpoint and a row's body (JSON `{"instances": [row]}`, npy or JPEG) -> the request.
        read: an endpoint, a reply's headers and its body -> the outputs, (1, ...).
    """

    says: str
    ask: Callable[[Endpoint, bytes], Request]
    read: Callable[[Endpoint, Mapping[str, str], bytes], Array]


_CONTENT_TYPES = {"json": "application/json", "npy": "application/x-npy", "jpeg": "image/jpeg"}


def _ask_plainly(endpoint: Endpoint, body: bytes) -> Request:
    return Request(f"/{endpoint.name}", _CONTENT_TYPES[endpoint.form], body)


def _ask_layertap(endpoint: Endpoint, body: bytes) -> Request:
    layer = f"&layer={endpoint.layer}" if endpoint.layer else ""
    pool = "&pool=avg" if endpoint.pooled else ""
    path = f"/{'features' if layer else 'predict'}?model={endpoint.model}{layer}{pool}"
    headers = {"Accept": "application/x-npy"} if endpoint.form == "npy" else {}
    return Request(path, _CONTENT_TYPES[endpoint.form], body, headers)


def _ask_base64(endpoint: Endpoint, body: bytes) -> Request:
    if endpoint.form == "json":
        return _ask_plainly(endpoint, body)
    text = json.dumps({"b64": base64.b64encode(body).decode()}).encode()
    return Request(f"/{endpoint.name}", "application/json", text)


def _ask_multipart(endpoint: Endpoint, body: bytes) -> Request:
    if endpoint.form == "json":
        return _ask_plainly(endpoint, body)
    name, file = ("images", "picture.jpg") if endpoint.form == "jpeg" else ("files", "row.npy")
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n'
        f"Content-Type: {_CONTENT_TYPES[endpoint.form]}\r\n\r\n"
    )
    whole = head.encode() + body + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return Request(f"/{endpoint.name}", f"multipart/form-data; boundary={_BOUNDARY}", whole)


def _ask_v2_json(endpoint: Endpoint, body: bytes) -> Request:
    if endpoint.form == "json":
        row = json.loads(body)["instances"]
        tensor = {"name": "rows", "shape": [1, *endpoint.shape], "datatype": "FP32", "data": row}
    else:
        data = [base64.b64encode(body).decode()]
        tensor = {"name": "rows", "shape": [1, 1], "datatype": "BYTES", "data": data}
    text = json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()
    return Request(f"/v2/models/{endpoint.name}/infer", "application/json", text)


def _ask_v2_binary(endpoint: Endpoint, body: bytes) -> Request:
    if endpoint.form == "json":
        return _ask_v2_json(endpoint, body)
    if endpoint.form == "npy":
        data = np.load(io.BytesIO(body)).tobytes()
        tensor: dict[str, Any] = {"name": "rows", "shape": [1, *endpoint.shape], "datatype": "FP32"}
    else:
        data = len(body).to_bytes(4, "little") + body
        tensor = {"name": "rows", "shape": [1, 1], "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": len(data)}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return Request(f"/v2/models/{endpoint.name}/infer", "application/octet-stream", head + data, headers)


def _read_plainly(endpoint: Endpoint, _: Mapping[str, str], body: bytes) -> Array:
    if endpoint.form == "npy":
        return np.load(io.BytesIO(body))
    return np.asarray(json.loads(body)["predictions"])


def _read_layertap(endpoint: Endpoint, headers: Mapping[str, str], body: bytes) -> Array:
    if endpoint.form == "npy" or endpoint.layer is None:
        return _read_plainly(endpoint, headers, body)
    return np.asarray(next(iter(json.loads(body)["features"].values())))


def _read_json(_: Endpoint, __: Mapping[str, str], body: bytes) -> Array:
    found = json.loads(body)
    return np.asarray(found["predictions"] if isinstance(found, dict) else found)


def _read_v2(_: Endpoint, headers: Mapping[str, str], body: bytes) -> Array:
    head = int(headers.get("inference-header-content-length", len(body)))
    tensor = json.loads(body[:head])["outputs"][0]
    values = tensor["data"] if "data" in tensor else np.frombuffer(body[head:], np.float32)
    return np.asarray(values).reshape(tensor["shape"])


LAYERTAP = Dialect("the native API: JSON instances, npy, image/jpeg", _ask_layertap, _read_layertap)
PLAIN = Dialect(
    "the very bytes that Layertap gets: JSON instances, npy, image/jpeg", _ask_plainly, _read_plainly
)
BASE64 = Dialect('JSON instances; npy and JPEG as {"b64": ...} in JSON', _ask_base64, _read_json)
MULTIPART = Dialect(
    "JSON instances; npy and JPEG as multipart files; replies are JSON", _ask_multipart, _read_json
)
V2_JSON = Dialect("KServe V2 in JSON; npy and JPEG as base64 in a BYTES tensor", _ask_v2_json, _read_v2)
V2_BINARY = Dialect("KServe V2: JSON for JSON, binary tensors for npy and JPEG", _ask_v2_binary, _read_v2)


def within(deadline_s: float, request: Request, dialect: Dialect) -> Request:
    """The request, with the deadline where the server's protocol has a place for it.

    Mosec and Triton take theirs when they start (PEER_DEADLINE_S).
    """
    if dialect is not LAYERTAP:
        return request
    return dataclasses.replace(request, path=f"{request.path}&timeout_ms={deadline_s * 1000:.0f}")
