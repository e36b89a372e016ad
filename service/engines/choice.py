"""Owns the choice of the engine that serves a model and of its precision, and why it is these.

`auto` takes OpenVINO where it is installed, no GPU is in use, and it gives what Keras gives; else TensorFlow.
bfloat16 is given where OpenVINO serves, the processor has instructions for it and the model works in it; else
float32, with the reason. Without instructions OpenVINO computes in float32 and says so only when asked (AVX2), or
imitates bfloat16 (AVX-512 without them).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from service.engines import Engine
from service.engines.converted import Converted
from service.engines.openvino import OpenVINOOptions
from service.engines.openvino_engine import TOLERANCES, OpenVINOEngine, agreement
from service.engines.openvino_library import capabilities, is_installed
from service.engines.parity import Parity
from service.errors import LoadError
from service.model_config import ModelConfig
from service.tensors import Array

Convert = Callable[[tuple[str, ...]], Converted]
_log = logging.getLogger("layertap.engines")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What is asked for, and what there is.

    Args:
        engine: `auto`, `tensorflow` or `openvino`.
        precision: `float32` or `bfloat16`; the latter is a wish.
        gpu: whether TensorFlow uses a GPU.
        threads: cores that one batch may use.
        max_batch_size: rows of the largest batch.
        on_fallback: called for every function that OpenVINO was meant to compute and TensorFlow does.
        capabilities: tells what the processor has instructions for, in OpenVINO's words; called only where that
            matters, since it imports OpenVINO.
    """

    engine: str = "auto"
    precision: str = "float32"
    gpu: bool = False
    threads: int = 1
    max_batch_size: int = 32
    on_fallback: Callable[[], None] = field(default=lambda: None)
    capabilities: Callable[[], Collection[str]] = field(default=capabilities)

    def of(self, config: ModelConfig) -> EngineOptions:
        """These options with what a model's own settings say otherwise."""
        return dataclasses.replace(
            self,
            engine=config.engine or self.engine,
            precision=config.precision or self.precision,
            max_batch_size=config.max_batch_size or self.max_batch_size,
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine that serves a model.

    Args:
        engine: the engine.
        parity: how near it is to Keras.
        facts: for `/models`: `engine_reason`, `precision`, `precision_reason` (what was asked for and why it is not
            given; `None` where it is) and what there is to say of the functions.
    """

    engine: Engine
    parity: Parity
    facts: Mapping[str, Any]


def choose(
    options: EngineOptions,
    tensorflow: Engine,
    convert: Convert,
    rows: Mapping[str, Array],
    prove: Callable[[Engine, float | None], Parity],
) -> Choice:
    """The engine for a model.

    Args:
        options: what is asked for.
        tensorflow: the engine that takes every model.
        convert: a set of paths -> OpenVINO's graph of them.
        rows: input name -> rows that the model takes.
        prove: compares an engine with Keras; takes the tolerance, `None` for TensorFlow's.

    Raises:
        LoadError: OpenVINO was asked for by name and does not serve this model; or the engine differs from Keras.
    """
    reason = against(options)
    if reason is None:
        try:
            return _with_openvino(convert, tensorflow, rows, prove, options)
        except LoadError as error:
            reason = error.message
    if options.engine == "openvino":
        raise LoadError(
            f"Expected a model that OpenVINO serves. Received: {reason}",
            mend='Set engine = "auto" for this model; TensorFlow serves it then.',
        )
    if options.engine == "auto":
        _log.info("TensorFlow serves this model, because: %s", reason)
    parity = prove(tensorflow, None)
    facts = {"engine_reason": reason, **_precision_facts(options, "TensorFlow serves this model.")}
    return Choice(tensorflow, parity, {**facts, "weight_copies": {"keras": 1}})


def against(options: EngineOptions) -> str | None:
    """What speaks against OpenVINO before the model is looked at; `None` where nothing does."""
    if options.engine == "tensorflow":
        return "The setting engine says so."
    if not is_installed():
        return "OpenVINO is not installed."
    if options.gpu and options.engine == "auto":
        return "A GPU is in use."
    return None


def against_precision(options: EngineOptions) -> str | None:
    """What speaks against OpenVINO's computing in the wanted precision; `None` where nothing does."""
    if options.precision == "float32" or "BF16" in options.capabilities():
        return None
    return "The processor has no instructions for it that OpenVINO could use."


def _with_openvino(
    convert: Convert,
    tensorflow: Engine,
    rows: Mapping[str, Array],
    prove: Callable[[Engine, float | None], Parity],
    options: EngineOptions,
) -> Choice:
    spec = tensorflow.spec
    converted = _convert_widely(convert, tuple(layer.path for layer in spec.layers), spec.predictions)
    reason = against_precision(options)
    if reason is None:
        try:
            return _proved(converted, tensorflow, rows, prove, options)
        except LoadError as error:
            if options.precision == "float32":
                raise
            reason = error.message
    in_float32 = dataclasses.replace(options, precision="float32")
    choice = _proved(converted, tensorflow, rows, prove, in_float32)
    return dataclasses.replace(choice, facts={**choice.facts, **_precision_facts(options, reason)})


def _proved(
    converted: Converted,
    tensorflow: Engine,
    rows: Mapping[str, Array],
    prove: Callable[[Engine, float | None], Parity],
    options: EngineOptions,
) -> Choice:
    """OpenVINO, in exactly the precision of the options."""
    engine = OpenVINOEngine(
        converted,
        tensorflow,
        rows,
        OpenVINOOptions(options.threads, options.precision),
        max_batch_size=options.max_batch_size,
        on_fallback=options.on_fallback,
    )
    outputs = tensorflow.spec.predictions
    function = engine.require(outputs)
    parity = prove(engine, TOLERANCES[options.precision])
    facts: dict[str, Any] = {
        "engine_reason": "No GPU is in use, and OpenVINO gives what Keras gives.",
        "precision": options.precision,
        "precision_reason": None,
        "graph_weights_bytes": converted.weights_bytes,
        "weight_copies": {"keras": 1, "openvino_graph": 1},
        "functions": engine.functions,
    }
    if options.precision != "float32":
        facts["top1_agreement"] = agreement(function, tensorflow.compile(outputs), rows)
    return Choice(engine, parity, facts)


def _precision_facts(options: EngineOptions, reason: str) -> dict[str, Any]:
    """That float32 is given, and why, where something else was asked for."""
    asked = options.precision
    told = None if asked == "float32" else f"Asked for {asked}, gives float32, because: {reason}"
    return {"precision": "float32", "precision_reason": told}


def _convert_widely(convert: Convert, layers: tuple[str, ...], outputs: tuple[str, ...]) -> Converted:
    """The graph of every layer, or of the outputs only where a layer stands in the way."""
    try:
        return convert(tuple(dict.fromkeys([*layers, *outputs])))
    except LoadError as error:
        _log.info("OpenVINO computes no hidden layers of this model, because: %s", error.message)
        return convert(outputs)
