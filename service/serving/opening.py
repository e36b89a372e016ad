"""Owns the way from a file of the repository to a proved engine: load, describe, compile, compare with Keras."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from service.engines import Engine
from service.engines.choice import EngineOptions, choose
from service.engines.converted import Converted
from service.engines.openvino_conversion import convert
from service.engines.parity import GOLDEN, Parity, fitting_rows, golden_rows, prove
from service.engines.tensorflow import TensorFlowEngine, bucket_sizes
from service.errors import LoadError
from service.loading.config_text import MAX_ROW_VALUES, MAX_STEPS, RECURRENT
from service.loading.loader import LoadedModel, load
from service.repository import ModelEntry, ModelVersion
from service.serving.served import OpenedModel
from service.startup import timed
from service.surgery.cut import describe, seeded_rows
from service.tensors import Array, ModelSpec

ON_TENSORFLOW = EngineOptions(engine="tensorflow")
SEEDED_ROWS = {"float32": 2, "bfloat16": 32}
"""How many rows an engine is proved on, by precision: how often labels stay the same takes some."""


def open_model(
    entry: ModelEntry,
    version: ModelVersion,
    *,
    buckets_to: int | None,
    tolerance: float,
    on_trace: Callable[[], None],
    on_padding: Callable[[int], None],
    engine_options: EngineOptions = ON_TENSORFLOW,
) -> OpenedModel:
    """One version, loaded and proved.

    Args:
        entry: the model.
        version: the file.
        buckets_to: pad batches to powers of two up to this size; `None` for no padding.
        tolerance: the largest difference to Keras, relative to an output's scale.
        on_trace: called for every trace of a function.
        on_padding: told by how many rows a batch was padded.
        engine_options: which engine is wanted; the model's own settings count more.

    Raises:
        LoadError: the file cannot be loaded, compiled, or does not compute what Keras does; or the model keeps
            state, so that an answer would depend on the requests before it.
    """
    wanted = engine_options.of(entry.config)
    phases_s: dict[str, float] = {}
    with timed(phases_s, "load"):
        loaded, tensorflow = _load(entry, version, buckets_to, on_trace, on_padding)
    spec = tensorflow.spec
    golden = golden_rows(version.path, tuple(item.name for item in spec.inputs))
    source = "seeded" if golden is None else GOLDEN
    rows = seeded_rows(loaded.model, SEEDED_ROWS[wanted.precision]) if golden is None else golden
    keras = _keras(loaded.original or loaded.model, spec)

    def convert_paths(paths: tuple[str, ...]) -> Converted:
        with timed(phases_s, "convert"):
            return convert(loaded.model, spec, paths, on_trace)

    def prove_engine(engine: Engine, own_tolerance: float | None) -> Parity:
        return prove(engine, keras, rows, source=source, tolerance=own_tolerance or tolerance)

    begun = time.monotonic()
    choice = choose(wanted, tensorflow, convert_paths, fitting_rows(rows, spec, source), prove_engine)
    phases_s["prove"] = time.monotonic() - begun - phases_s.get("convert", 0.0)
    facts = {**_facts(loaded, version), **choice.facts, "parity": dataclasses.asdict(choice.parity)}
    return OpenedModel(choice.engine, facts, phases_s)


def open_tensorflow(
    entry: ModelEntry,
    version: ModelVersion,
    sha256: str,
    *,
    buckets_to: int | None,
    on_trace: Callable[[], None],
    on_padding: Callable[[int], None],
) -> Engine:
    """TensorFlow's engine of a model that another one serves.

    Args:
        entry: the model.
        version: the file.
        sha256: what the file must have, in hexadecimal.
        buckets_to: as `open_model`.
        on_trace: as `open_model`.
        on_padding: as `open_model`.

    Raises:
        LoadError: it cannot be loaded, or is another file by now.
    """
    loaded, tensorflow = _load(entry, version, buckets_to, on_trace, on_padding)
    if loaded.sha256 != sha256:
        raise LoadError(
            f"Expected the file that is served, with SHA-256 {sha256}. Received: {loaded.sha256}.",
            mend="Load the model again.",
        )
    return tensorflow


def _load(
    entry: ModelEntry,
    version: ModelVersion,
    buckets_to: int | None,
    on_trace: Callable[[], None],
    on_padding: Callable[[int], None],
) -> tuple[LoadedModel, TensorFlowEngine]:
    loaded = load(version.path, entry.config, entry.object_files, entry.folder)
    _refuse_state(loaded.original or loaded.model)
    spec = describe(loaded.model)
    _refuse_giant_rows(spec)
    _refuse_endless_steps(loaded.model)
    buckets = bucket_sizes(buckets_to) if buckets_to else ()
    return loaded, TensorFlowEngine(
        loaded.model, spec, buckets=buckets, on_trace=on_trace, on_padding=on_padding
    )


def _facts(loaded: LoadedModel, version: ModelVersion) -> dict[str, Any]:
    return {
        "file": version.path.name,
        "file_bytes": version.path.stat().st_size,
        "sha256": loaded.sha256,
        "loader": loaded.library,
        "loader_reason": loaded.reason,
        "repairs": list(loaded.repairs),
        "notes": list(loaded.notes),
        "compiled": loaded.compiled,
        "opened_from": "file",
        "weights_bytes": sum(int(np.prod(item.shape)) * _item_bytes(item) for item in loaded.model.weights),
    }


def _item_bytes(weight: Any) -> int:
    return int(tf.as_dtype(weight.dtype).size)


def _refuse_giant_rows(spec: ModelSpec) -> None:
    """A layer without weights may ask for any size; computing it would take the service's memory."""
    for layer in spec.layers:
        if (layer.tensor.row_values or 0) > MAX_ROW_VALUES:
            raise LoadError(
                f"Expected layers of at most {MAX_ROW_VALUES} numbers a row. Received: {layer.path} with "
                f"{layer.tensor.row_values}.",
                mend="Save the model again with model.save and copy the whole file.",
            )


def _refuse_endless_steps(model: Any) -> None:
    """Steps are computed one after another; a file of a few kilobytes may ask for millions."""
    for layer in model._flatten_layers():  # noqa: SLF001 Keras lists nested layers in no public way
        if type(layer).__name__ in {*RECURRENT, "Bidirectional"}:
            shape = getattr(getattr(layer, "input", None), "shape", (None, None))
            steps = shape[1] if len(shape) > 1 else None
            if steps is not None and steps > MAX_STEPS:
                raise LoadError(
                    f"Expected recurrent layers of at most {MAX_STEPS} steps. Received: {layer.name} with {steps}.",
                    mend="Save the model again with a free axis for the steps.",
                )


def _refuse_state(model: Any) -> None:
    layers = model._flatten_layers()  # noqa: SLF001 Keras lists nested layers in no public way
    stateful = list(dict.fromkeys(layer.name for layer in layers if getattr(layer, "stateful", False)))
    if stateful:
        raise LoadError(
            f"Expected a model that remembers nothing between requests. Received: stateful layers {stateful}.",
            mend="Build it again with stateful=False, give it these weights (set_weights) and save it.",
        )


def _keras(model: Any, spec: ModelSpec) -> Callable[[Sequence[Array]], list[Array]]:
    """Keras' own forward pass: arrays in the model's input order -> arrays in its output order.

    It is run eagerly; of integers and booleans as `model.predict` runs it, because there Keras' layers for pictures
    make floats of them, and eagerly they round or refuse.
    """
    traced = any(item.dtype.startswith(("int", "uint", "bool")) for item in spec.inputs)

    def call(arrays: Sequence[Array]) -> list[Array]:
        tensors = [tf.constant(array) for array in arrays]
        forward = tf.function(model, autograph=False) if traced else model
        outputs = forward(tensors[0] if len(tensors) == 1 else tensors, training=False)
        return [np.asarray(output) for output in tf.nest.flatten(outputs)]

    return call
