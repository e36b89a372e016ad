"""Owns what is kept of a model so that OpenVINO can serve it in a later process without Keras, and its form in bytes.

The bytes are plain: JSON, npy arrays and an OpenVINO graph. Reading them runs no code of the model's.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.engines import converted, expectations
from service.engines.converted import Converted
from service.engines.expectations import Expectation, expect
from service.engines.openvino_engine import OpenVINOEngine
from service.payloads.codecs import decode_npy, encode_npy
from service.tensors import Array, LayerSpec, ModelSpec, OutputSpec, TensorSpec

_MODEL, _ROWS = "model.json", "rows/{}.npy"


@dataclass(frozen=True, slots=True)
class KeptModel:
    """A model without Keras.

    Args:
        spec: what it takes and gives.
        facts: about its file, for `/models`.
        converted: its graph.
        rows: input name -> rows that functions are compared on.
        expectations: path -> what TensorFlow gives for these rows.
        sizes: outputs -> the sizes of batches to prepare a function for.
    """

    spec: ModelSpec
    facts: Mapping[str, Any]
    converted: Converted
    rows: Mapping[str, Array]
    expectations: Mapping[str, Expectation]
    sizes: Mapping[tuple[str, ...], Sequence[int]]


def keep(engine: OpenVINOEngine, facts: Mapping[str, Any]) -> KeptModel:
    """What is worth keeping of an engine that serves.

    Args:
        engine: with the functions that were warmed, and TensorFlow, which says what all layers are to be.
        facts: as JSON takes them.

    Raises:
        LoadError, InputRejected: TensorFlow cannot compute all of its layers together.
    """
    values = engine.tensorflow.compile(engine.converted.paths).run(engine.rows)
    return KeptModel(
        engine.spec,
        facts,
        engine.converted,
        engine.rows,
        {path: expect(array) for path, array in values.items()},
        engine.sizes,
    )


def pack(model: KeptModel) -> dict[str, bytes]:
    """A kept model as named bytes; `unpack` reads them.

    Raises:
        OSError: as `Converted.pack`.
    """
    told = {
        "spec": dataclasses.asdict(model.spec),
        "facts": dict(model.facts),
        "rows": list(model.rows),
        "sizes": [[list(outputs), list(sizes)] for outputs, sizes in model.sizes.items()],
    }
    rows = {_ROWS.format(number): encode_npy(array) for number, array in enumerate(model.rows.values())}
    return {
        _MODEL: json.dumps(told).encode(),
        **rows,
        **expectations.pack(model.expectations),
        **model.converted.pack(),
    }


def unpack(parts: Mapping[str, bytes | memoryview]) -> KeptModel:
    """What `pack` wrote. Whoever calls it vouches for the bytes.

    Raises:
        ValueError, KeyError, TypeError, RuntimeError, InvalidInput: they are something else.
    """
    told = json.loads(bytes(parts[_MODEL]))
    return KeptModel(
        _spec(told["spec"]),
        told["facts"],
        converted.unpack(parts),
        {name: decode_npy(parts[_ROWS.format(number)]).copy() for number, name in enumerate(told["rows"])},
        expectations.unpack(parts),
        {tuple(outputs): tuple(sizes) for outputs, sizes in told["sizes"]},
    )


def _spec(told: Mapping[str, Any]) -> ModelSpec:
    return ModelSpec(
        inputs=tuple(TensorSpec(**_shaped(item)) for item in told["inputs"]),
        outputs=tuple(OutputSpec(**_shaped(item)) for item in told["outputs"]),
        layers=tuple(LayerSpec(**_shaped(item)) for item in told["layers"]),
        aliases=told["aliases"],
        bottleneck=told["bottleneck"],
    )


def _shaped(item: Mapping[str, Any]) -> dict[str, Any]:
    return {**item, "shape": tuple(item["shape"])}
