"""Owns the outputs of an inference request: what its names mean, and the reply that carries their tensors.

A name is one of the model's declared outputs, or a layer in any spelling that `/features` takes. Without names the
declared outputs are meant, never every layer. JSON data are flat, row-major.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.api import views
from service.api.http import Reply
from service.api.openinference import datatypes
from service.api.openinference.datatypes import BYTES
from service.api.openinference.requests import OutputWish
from service.errors import InvalidInput, LayerNotFound
from service.payloads.codecs import encode_json
from service.serving.served import ServedModel
from service.tensors import Array, InferResult, OutputSpec

BINARY = "application/octet-stream"

_JSON_BYTES_PER_NUMBER = 12  # of float32 in its shortest form, comma included; typical, not the most
_BYTES_PER_CLASS = 24  # its value, its index, its length or quotes


@dataclass(frozen=True, slots=True)
class Output:
    """One tensor of the reply.

    Args:
        name: as the reply calls it.
        spec: what the tensor is; its `path` names it in the result.
        datatype: of the reply's tensor.
        binary: behind the JSON instead of in it.
        classes: how many of the best classes are told instead of the numbers; 0 for the numbers.
    """

    name: str
    spec: OutputSpec
    datatype: str
    binary: bool
    classes: int


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """What a set of wishes means for one model.

    Args:
        served: the model.
        outputs: the reply's tensors, in its order.
        paths: what the engine computes, in the model's own order, so that equal wishes share batches.
        layers: the hidden layers among them that were asked for by name.
        row_bytes: the reply's size for each row as far as it is known before the model runs.
    """

    served: ServedModel
    outputs: tuple[Output, ...]
    paths: tuple[str, ...]
    layers: tuple[str, ...]
    row_bytes: int


def plan_outputs(served: ServedModel, wishes: Sequence[OutputWish], *, binary: bool) -> OutputPlan:
    """The plan for the outputs that a request asks for.

    Args:
        served: the model.
        wishes: in the reply's order; empty for all declared outputs.
        binary: whether those are binary.

    Raises:
        LayerNotFound: a name that is neither an output nor a layer.
        InvalidInput: a tensor that the protocol cannot tell, or not in JSON.
    """
    declared = {output.name: output for output in served.spec.outputs}
    outputs: list[Output] = []
    for wish in wishes or [OutputWish(name, binary) for name in declared]:
        spec = declared.get(wish.name)
        found = [(wish.name, spec)] if spec is not None else _layers(served, wish.name)
        outputs += [_output(name, spec, wish) for name, spec in found]
    named = {output.spec.path for output in outputs if output.spec.name not in declared}
    return OutputPlan(
        served,
        tuple(outputs),
        served.layers.ordered({output.spec.path for output in outputs}),
        tuple(sorted(named)),
        sum(_row_bytes(output, served.entry.classes) for output in outputs),
    )


def render_outputs(plan: OutputPlan, result: InferResult, request_id: str | None) -> Reply:
    """The reply of a successful inference: JSON, and behind it the binary tensors, if any."""
    tensors: list[dict[str, Any]] = []
    buffers: list[Any] = []
    for output in plan.outputs:
        array = result.outputs[output.spec.path]
        if output.classes:
            array = _classify(array, output, plan.served.entry.classes)
        tensor: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": array.shape}
        if output.binary:
            data = _binary(array)
            tensor["parameters"] = {"binary_data_size": len(data) if isinstance(data, bytes) else data.nbytes}
            buffers.append(data)
        else:
            tensor["data"] = _flat(array)
        tensors.append(tensor)
    head = {"model_name": plan.served.name, "model_version": str(plan.served.version)}
    if request_id is not None:
        head["id"] = request_id
    text = encode_json({**head, "outputs": tensors})
    if not buffers:
        return Reply(200, text)
    size = {"inference-header-content-length": str(len(text))}
    return Reply(200, b"".join((text, *buffers)), BINARY, size)


def _layers(served: ServedModel, name: str) -> list[tuple[str, OutputSpec]]:
    """The tensors that a layer's name means; a single one keeps the name that the client will look for."""
    try:
        paths = served.layers.resolve([name])
    except LayerNotFound as error:
        names = [output.name for output in served.spec.outputs]
        raise LayerNotFound(f"Expected one of the outputs {names}, or a layer. {error.message}") from error
    found = []
    for path in paths:
        layer = served.layers[path]
        found.append(OutputSpec(path, layer.shape, layer.dtype, path))
    return [(name, found[0])] if len(found) == 1 else [(spec.name, spec) for spec in found]


def _output(name: str, spec: OutputSpec, wish: OutputWish) -> Output:
    datatype = datatypes.datatype_of(spec.dtype)
    if wish.classes:
        if spec.dtype == "string" or np.dtype(spec.dtype).kind not in "fiu" or len(spec.shape) < 2:
            raise InvalidInput(
                f"Expected 'classification' for an output of numbers with an axis to choose from. Received: '{name}', "
                f"shape {list(spec.shape)} of {spec.dtype}."
            )
        return Output(name, spec, BYTES, wish.binary, wish.classes)
    if not wish.binary and datatype in datatypes.BINARY_ONLY:
        raise InvalidInput(
            f"Expected output '{name}' to be asked for as binary data, because {datatype} has no form in JSON. "
            "Received: a wish for JSON."
        )
    return Output(name, spec, datatype, wish.binary, 0)


def _row_bytes(output: Output, classes: Sequence[str]) -> int:
    values = output.spec.row_values or 0
    if output.classes:
        name = sum(map(len, classes)) // len(classes) if classes else 0
        return min(values, output.classes) * (_BYTES_PER_CLASS + name)
    if output.binary and output.spec.dtype != "string":
        return values * np.dtype(output.spec.dtype).itemsize
    return values * _JSON_BYTES_PER_NUMBER


def _classify(values: Array, output: Output, classes: Sequence[str]) -> Array:
    """(rows, k) of `score:index` or `score:index:class`, the best first; all axes of a row are one list of classes.

    What `/predict?top=k` says of the same output: a single sigmoid unit is two classes.

    Source: triton-inference-server/server/docs/protocol/extension_classification.md.
    """
    flat = values.reshape(len(values), -1)
    found = views.label(flat, output.spec) or views.Labels(flat[:, 0], flat[:, 0], flat)
    names = classes if len(classes) == found.values.shape[-1] else ()
    texts = [[_told(entry) for entry in row] for row in views.top_k(found, output.classes, names)]
    array = np.empty((len(texts), len(texts[0])), dtype=object)
    array[:] = texts
    return array


def _told(entry: dict[str, Any]) -> bytes:
    parts = [str(entry["score"]), str(entry["label"])]
    if "class" in entry:
        parts.append(entry["class"])
    return ":".join(parts).encode()


def _binary(array: Array) -> bytes | memoryview:
    if array.dtype.kind == "O":
        return datatypes.encode_elements(list(_as_bytes(array)))
    return np.ascontiguousarray(array).data if array.size else b""


def _flat(array: Array) -> Any:
    if array.dtype.kind == "O":
        return [element.decode(errors="replace") for element in _as_bytes(array)]
    return np.ascontiguousarray(array).ravel()


def _as_bytes(array: Array) -> Iterable[bytes]:
    return (element.encode() if isinstance(element, str) else element for element in array.ravel().tolist())
