"""Owns requests and replies of the Open Inference Protocol as a client makes and reads them, without the service.

Written from Triton's description of its binary tensor data extension, so that a misreading in the service shows.
"""

import json
import struct
from dataclasses import dataclass

import numpy as np

LENGTH = "Inference-Header-Content-Length"
DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32",
    "float64": "FP64",
}  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """A request's headers and body."""

    headers: dict[str, str]
    body: bytes


def encode(inputs, outputs=None, *, binary=True, datatypes=None, **members):
    """A request.

    Args:
        inputs: name -> array, or a list of byte strings, which is a BYTES tensor.
        outputs: name -> its parameters; `None` leaves the member out.
        binary: whether inputs are binary; a set of names makes only those so.
        datatypes: name -> datatype, where it is not the array's own.
        members: further members of the head.
    """
    heads, tail = [], b""
    for name, values in inputs.items():
        text = isinstance(values, list)
        datatype = (datatypes or {}).get(name) or ("BYTES" if text else DATATYPES[str(values.dtype)])
        shape = [len(values)] if text else list(values.shape)
        head = {"name": name, "shape": shape, "datatype": datatype}
        if binary is True or (binary and name in binary):
            data = b"".join(struct.pack("<I", len(v)) + v for v in values) if text else values.tobytes()
            head["parameters"] = {"binary_data_size": len(data)}
            tail += data
        else:
            head["data"] = values if text else values.ravel().tolist()
        heads.append(head)
    document = {**members, "inputs": heads}
    if outputs is not None:
        document["outputs"] = [
            {"name": name, **({"parameters": parameters} if parameters else {})}
            for name, parameters in outputs.items()
        ]
    head = json.dumps(document).encode()
    return Sent({LENGTH: str(len(head))} if tail else {}, head + tail)


def decode(answer, body=None):
    """The document of a reply, and its arrays by name; BYTES are lists of byte strings in row-major order.

    Args:
        answer: a 200.
        body: its body, where that had to be unpacked first.
    """
    assert answer.status == 200, answer.body
    body = answer.body if body is None else body
    length = answer.headers.get(LENGTH.lower())
    assert answer.content_type == ("application/json" if length is None else "application/octet-stream")
    split = len(body) if length is None else int(length)
    document, tail = json.loads(body[:split]), body[split:]
    arrays = {}
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        assert (size is None) == ("data" in output)
        data, tail = (tail[:size], tail[size:]) if size is not None else (output["data"], tail)
        arrays[output["name"]] = _array(output, data)
    assert tail == b""
    return document, arrays


def _array(output, data):
    if output["datatype"] == "BYTES":
        texts = [element.encode() for element in data] if isinstance(data, list) else _elements(data)
        assert len(texts) == np.prod(output["shape"])
        return texts
    dtype = next(name for name, datatype in DATATYPES.items() if datatype == output["datatype"])
    flat = np.array(data, dtype) if isinstance(data, list) else np.frombuffer(data, dtype)
    assert flat.ndim == 1
    return flat.reshape(output["shape"])


def _elements(data):
    found = []
    while data:
        size = struct.unpack("<I", data[:4])[0]
        found.append(data[4 : 4 + size])
        assert len(found[-1]) == size
        data = data[4 + size :]
    return found
