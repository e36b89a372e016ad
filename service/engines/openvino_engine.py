"""Owns the OpenVINO engine: every function compared with TensorFlow's before it is used, or else left to TensorFlow.

It knows OpenVINO and TensorFlow as two things that compile, and neither by name.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from service.engines import Engine, Function
from service.engines.converted import Converted
from service.engines.openvino import OpenVINOFunction, OpenVINOOptions, open_function
from service.engines.references import COMPARED_ROWS, Refer, refer_to
from service.errors import LoadError
from service.tensors import Array, ModelSpec

TOLERANCES = {"float32": 1e-5, "bfloat16": 5e-2}
"""How far a tensor may be from TensorFlow's, by precision, relative to its largest magnitude."""

_log = logging.getLogger("layertap.engines")


class OpenVINOEngine:
    """A Keras model, compiled by OpenVINO where that gives what TensorFlow gives.

    Args:
        converted: the model, with as many of its tensors as OpenVINO can compute.
        tensorflow: computes what OpenVINO does not.
        rows: input name -> rows that the model takes, for comparisons.
        options: how graphs are compiled.
        max_batch_size: rows of the largest batch.
        refer: outputs -> what TensorFlow gives for the first `COMPARED_ROWS` of the rows; `None`: it is asked.
        sizes: outputs -> the sizes of batches to prepare a function for, where they are known already.
        on_fallback: called for every function that is left to TensorFlow.

    Attributes:
        spec: what the model takes and gives.
        converted: the model's graph.
        rows: the rows that functions are compared on.
        tensorflow: computes what OpenVINO does not.
        functions: what is said of each function that is in use, kept up to date.
        activations: `None`, for every axis but the batch's has one size.
    """

    name = "openvino"
    activations = None

    def __init__(
        self,
        converted: Converted,
        tensorflow: Engine,
        rows: Mapping[str, Array],
        options: OpenVINOOptions,
        *,
        max_batch_size: int,
        refer: Refer | None = None,
        sizes: Mapping[tuple[str, ...], Sequence[int]] = MappingProxyType({}),
        on_fallback: Callable[[], None] = lambda: None,
    ) -> None:
        self.spec: ModelSpec = tensorflow.spec
        self.functions: list[dict[str, Any]] = []
        self.converted = converted
        self.tensorflow = tensorflow
        self.rows = {name: array[:COMPARED_ROWS] for name, array in rows.items()}
        self._refer = refer or refer_to(tensorflow, self.rows)
        self._options = options
        self._max_batch_size = max_batch_size
        self._sizes = dict(sizes)
        self._on_fallback = on_fallback
        self._kept: dict[tuple[str, ...], OpenVINOFunction] = {}

    @property
    def sizes(self) -> Mapping[tuple[str, ...], Sequence[int]]:
        """Outputs -> the sizes of batches that their function is prepared for, of every one ever made."""
        return self._sizes

    @property
    def alone(self) -> bool:
        """Whether OpenVINO computes all that is in use."""
        return all(function["engine"] == self.name for function in self.functions)

    def compile(self, outputs: tuple[str, ...]) -> Function:
        """A warm function; see `service.engines.Engine`."""
        kept = self._kept.get(outputs)
        if kept is not None:
            return kept
        try:
            return self._proved(outputs)
        except LoadError as error:
            reference = self.tensorflow.compile(outputs)
            _log.warning("%s: TensorFlow computes it, because: %s", ", ".join(outputs), error.message)
            self._on_fallback()
            self._note(reference, outputs, {"engine": self.tensorflow.name, "reason": error.message})
            return reference

    def require(self, outputs: tuple[str, ...]) -> Function:
        """A warm function that is OpenVINO's, kept for the next `compile` of the same outputs.

        Raises:
            LoadError: OpenVINO cannot compile it, or gives something else than TensorFlow.
        """
        self._kept[outputs] = self._proved(outputs)
        return self._kept[outputs]

    def _proved(self, outputs: tuple[str, ...]) -> OpenVINOFunction:
        if missing := set(outputs) - set(self.converted.paths):
            raise LoadError(f"OpenVINO has no graph of {', '.join(sorted(missing))}.")
        reference = self._refer(outputs)
        converted = self.converted.select(outputs)
        function = open_function(converted, self._options, reference.reserve)
        tolerance = TOLERANCES[self._options.precision]
        largest = 0.0

        def approve(size: int, got: Mapping[str, Array]) -> None:
            nonlocal largest
            for path, expected in reference.expected.items():
                difference = expected.difference(got[path])
                if not difference <= tolerance:
                    raise LoadError(
                        f"Expected '{path}' to equal TensorFlow's to {tolerance:g} of its scale, in batches of "
                        f"{size}. Received: a difference of {difference:g}."
                    )
                largest = max(largest, difference)

        if outputs in self._sizes:
            function.repeat(self.rows, self._sizes[outputs], approve)
        else:
            function.prepare(self.rows, self._max_batch_size, approve)
            self._sizes[outputs] = function.sizes
        facts = {
            "weights_bytes": converted.weights_bytes,
            "largest": largest,
            "largest_part": function.sizes[-1],
        }
        self._note(function, outputs, {"engine": self.name, **facts})
        return function

    def _note(self, function: Function, outputs: tuple[str, ...], facts: Mapping[str, Any]) -> None:
        entry = {"outputs": list(outputs), **facts}
        self.functions.append(entry)
        weakref.finalize(function, _drop, self.functions, entry).atexit = False


def agreement(function: Function, reference: Function, rows: Mapping[str, Array]) -> float | None:
    """The share of rows whose largest value is at the same place, over all outputs with several values a row.

    Returns:
        0..1; `None` where no output has several values.
    """
    got, wanted = function.run(rows), reference.run(rows)
    same = [
        np.argmax(got[path], axis=-1) == np.argmax(values, axis=-1)
        for path, values in wanted.items()
        if values.ndim > 1 and values.shape[-1] > 1
    ]
    return float(np.mean(np.concatenate([part.ravel() for part in same]))) if same else None


def _drop(entries: list[dict[str, Any]], entry: dict[str, Any]) -> None:
    """Forgets a function that was let go of; entries may be equal, so it is looked for by identity."""
    entries[:] = [other for other in entries if other is not entry]
