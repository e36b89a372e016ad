"""Owns what a query means for a model: which tensors to compute, which to return, in which format.

A plan depends on the query, the Accept header and the models that are served, never on a body, so it is worked
out once and remembered for all requests alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.api import views
from service.api.bodies import InputReader
from service.api.endpoint import Limits
from service.api.intake import Intake
from service.api.options import Options, parse_accept, parse_options
from service.api.remembered import LONGEST, Remembered
from service.errors import LayerRequired, NotAcceptable
from service.payloads.codecs import JSON, NPY
from service.serving.runtime import Runtime
from service.serving.served import ServedModel
from service.tensors import OutputSpec

_JSON_BYTES_PER_NUMBER = 12  # of float32 in its shortest form, comma included; typical, not the most
_JSON_BYTES_PER_NAME = 3  # quotes and comma
_JSON_BYTES_PER_ENTRY = 20  # of `top`: braces and the names of its members


@dataclass(frozen=True, slots=True)
class Plan:
    """How one kind of request is answered.

    Args:
        served: the model that answers.
        options: what the query asked for.
        features: the layers to return; empty on `/predict`.
        predictions: the model's outputs, where they are to be returned.
        outputs: what the engine computes, in the model's own order, so that equal wishes share batches.
        media: the reply's format.
        row_bytes: the reply's size for each row as far as it is known before the model runs.
        reader: reads the model's bodies.
    """

    served: ServedModel
    options: Options
    features: tuple[str, ...]
    predictions: tuple[OutputSpec, ...]
    outputs: tuple[str, ...]
    media: str
    row_bytes: int
    reader: InputReader


class Planner:
    """Makes plans for one route and remembers them while the same models are served.

    Args:
        features: whether the route is `/features`.
        limits: sizes.
    """

    def __init__(self, limits: Limits, *, features: bool) -> None:
        self._limits = limits
        self._features = features
        self._plans: Remembered[tuple[bytes, str], Plan] = Remembered()

    def plan(self, query: bytes, accept: str, runtime: Runtime) -> Plan:
        """The plan for a query.

        Raises:
            InvalidParameter, NotAcceptable, NotFound, ModelRequired, LayerRequired, NotReady: as they say.
        """
        key, generation = (query, accept), runtime.generation
        plan = self._plans.find(key, generation)
        if plan is None:
            plan = self._make(query, accept, runtime)
            if len(query) + len(accept) <= LONGEST:
                self._plans.keep(key, generation, plan)
        return plan

    def _make(self, query: bytes, accept: str, runtime: Runtime) -> Plan:
        options = parse_options(query, features=self._features)
        formats = parse_accept(accept)
        served = runtime.resolve(options.model, options.version)
        features = _layers(served, options) if self._features else ()
        predictions = served.spec.outputs if options.predictions else ()
        outputs = served.layers.ordered({*features, *(output.path for output in predictions)})
        media = _choose(formats, len({*features, *(output.name for output in predictions)}))
        row_bytes = _row_bytes(served, options, features, media)
        reader = InputReader(Intake.of(served, self._limits))
        return Plan(served, options, features, predictions, outputs, media, row_bytes, reader)


def _layers(served: ServedModel, options: Options) -> tuple[str, ...]:
    if options.layers:
        return served.layers.resolve(options.layers)
    named = served.entry.config.default_layer or served.spec.bottleneck
    if named is None:
        raise LayerRequired(
            f"Expected a layer, as ?layer=NAME: model '{served.name}' has no layer with weights before its last one. "
            f"Received: none. GET /models/{served.name}/layers lists them."
        )
    return served.layers.resolve([named])


def _choose(formats: tuple[str, ...], arrays: int) -> str:
    for media in formats:
        if media != NPY or arrays == 1:
            return media
    raise NotAcceptable(
        f"Expected a format that holds {arrays} arrays: application/x-npz or application/json. Received: {NPY}, "
        "which holds one."
    )


def _row_bytes(served: ServedModel, options: Options, features: tuple[str, ...], media: str) -> int:
    half = options.dtype == "float16"
    total = 0
    for path in features:
        layer = served.layers[path]
        values = views.pooled_values(layer) if options.pool else layer.tensor.row_values
        total += (values or 0) * _number_bytes(media, layer.dtype, half=half)
    for output in served.spec.outputs if options.predictions else ():
        total += (output.row_values or 0) * _number_bytes(media, output.dtype, half=half)
        if media == JSON:
            total += _label_bytes(output, options.top or 0, served.entry.classes)
    return total


def _label_bytes(output: OutputSpec, top: int, classes: Sequence[str]) -> int:
    """What labels, scores, class names and the `top` best add to a row."""
    values, choices = output.row_values, output.shape[-1]
    if not values or not choices or len(output.shape) < 2 or output.dtype == "string":
        return 0
    if choices == 1 and output.activation != "sigmoid":
        return 0
    candidates = max(2, choices)
    name = sum(map(len, classes)) // candidates + _JSON_BYTES_PER_NAME if len(classes) == candidates else 0
    label = _JSON_BYTES_PER_NUMBER + name
    return values // choices * (label + min(top, candidates) * (label + _JSON_BYTES_PER_ENTRY))


def _number_bytes(media: str, dtype: str, *, half: bool) -> int:
    if media == JSON or dtype == "string":
        return _JSON_BYTES_PER_NUMBER
    kind = np.dtype(dtype)
    return 2 if half and kind.kind == "f" else kind.itemsize
