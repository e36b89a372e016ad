"""Owns the TensorFlow engine: one concrete function per set of outputs, with a free batch axis, warm.

`model.predict` costs tens of milliseconds before it computes anything, so it never runs here. A function is
traced once for every batch size; with buckets, batches are padded so that devices which pay for each new size
(a GPU tuning its kernels) only ever see a few.

The trace of the predictions passes nearly every layer, so it also tells of which dtype their tensors are.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from service.engines.activations import Shapes, foresee
from service.errors import InputRejected, LoadError
from service.surgery.cut import cut, seeded_rows
from service.tensors import Activations, Array, ModelSpec

_log = logging.getLogger("layertap.engines")

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # Keras prints what matters in bold
_ELSEWHERE = (  # beginnings of lines that do not say what is wrong; the indented ones are a trace of source files
    " ", "\t", "Graph execution error", "Detected at node", "Stack", "Exception encountered when calling",
)  # fmt: skip
_REJECTIONS = (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError)
_FAILURES = (ValueError, TypeError, tf.errors.OpError, InputRejected)
_PYTHON = "Traceback (most recent call last)"
"""In the message of an error that Python code raised inside of the graph: `tf.py_function` makes InvalidArgumentError
of a ValueError, a TypeError and a KeyError. That is a defect of the model's code and no judgement of the values.
Source: MapPythonExceptionToTFErrorCode and py_func.cc in tensorflow/python/lib/core of TensorFlow 2.21."""


class TensorFlowFunction:
    """One compiled function.

    Args:
        concrete: takes the inputs in the model's order, returns the outputs in `paths`' order.
        inputs: the inputs' names, in that order.
        paths: the layer paths it returns.
        buckets: batch sizes to pad to, ascending; empty where padding only costs.
        on_padding: told how many rows each batch was padded by.
    """

    def __init__(
        self,
        concrete: Callable[..., Sequence[Any]],
        inputs: tuple[str, ...],
        paths: tuple[str, ...],
        buckets: tuple[int, ...],
        on_padding: Callable[[int], None],
    ) -> None:
        self._concrete = concrete
        self._inputs = inputs
        self._paths = paths
        self._buckets = buckets
        self._on_padding = on_padding

    def run(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """One forward pass; see `service.engines.Function`."""
        arrays = [batch[name] for name in self._inputs]
        rows = len(arrays[0])
        padding = self._padding(rows)
        if padding:
            arrays = [np.concatenate([array, np.repeat(array[-1:], padding, axis=0)]) for array in arrays]
            self._on_padding(padding)
        try:
            tensors = self._concrete(*[tf.constant(array) for array in arrays])
        except _REJECTIONS as error:
            if _PYTHON in str(error.message):
                raise
            raise InputRejected(f"The model rejected these values: {_reason(error)}.") from error
        outputs = [tensor.numpy() for tensor in tensors]
        if padding:
            outputs = [output[:rows] for output in outputs]
        return dict(zip(self._paths, outputs, strict=True))

    def _padding(self, rows: int) -> int:
        for bucket in self._buckets:
            if bucket >= rows:
                return bucket - rows
        return 0


class TensorFlowEngine:
    """A Keras model, compiled by TensorFlow.

    Args:
        model: a `keras.Model`.
        spec: what it takes and gives, with the dtypes that Keras declares.
        buckets: batch sizes to pad to, ascending; empty for none.
        on_trace: called once for every trace of a function.
        on_padding: told how many rows each batch was padded by.

    Attributes:
        spec: what it takes and gives, with the dtypes that are computed.
        activations: what a row takes in memory, where rows may have several sizes.

    Raises:
        LoadError: the model's outputs cannot be computed.
    """

    name = "tensorflow"

    def __init__(
        self,
        model: Any,
        spec: ModelSpec,
        *,
        buckets: tuple[int, ...] = (),
        on_trace: Callable[[], None] = lambda: None,
        on_padding: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._model = model
        self.spec = spec
        self._buckets = buckets
        self._on_trace = on_trace
        self._on_padding = on_padding
        dtypes: dict[str, str] = {}
        predictions = spec.predictions
        self._kept = {predictions: self._compile(predictions, dtypes)}
        if beside := tuple(layer.path for layer in spec.layers if layer.path not in dtypes):
            with contextlib.suppress(*_FAILURES):  # whoever asks for them is told
                self._trace(beside, dtypes)
        self.spec = spec.computing(dtypes)
        self.activations = self._foresee_activations()

    def compile(self, outputs: tuple[str, ...]) -> TensorFlowFunction:
        """A warm function; see `service.engines.Engine`. There is one of the predictions for good."""
        return self._kept.get(outputs) or self._compile(outputs, {})

    def _foresee_activations(self) -> Activations | None:
        """Of a model whose rows may have several sizes; else `None`."""
        wanted = [spec.row_shape for spec in self.spec.inputs]
        if all(None not in shape for shape in wanted):
            return None
        sizes = [array.shape[1:] for array in seeded_rows(self._model, 1).values()]
        larger = [
            tuple(have if want is not None else 2 * have for have, want in zip(size, shape, strict=True))
            for size, shape in zip(sizes, wanted, strict=True)
        ]
        try:
            return foresee(lambda shapes: self._trace(self.spec.predictions, {}, shapes).graph, sizes, larger)
        except _FAILURES as error:
            _log.warning("what rows need of the memory cannot be foreseen: %s", _reason(error))
            return None

    def _trace(self, outputs: tuple[str, ...], dtypes: dict[str, str], shapes: Shapes | None = None) -> Any:
        """The concrete function.

        Args:
            outputs: the layer paths that it yields.
            dtypes: is told what each tensor on the way is.
            shapes: of one row of each input: then it takes one row of that size; else any rows.
        """
        forward = cut(self._model, outputs, dtypes)

        def traced(*tensors: Any) -> list[Any]:
            self._on_trace()
            return forward(tensors)

        signature = [
            tf.TensorSpec(
                [None, *spec.row_shape] if shapes is None else [1, *shapes[place]],
                spec.dtype,
                name=f"input_{place}",
            )
            for place, spec in enumerate(self.spec.inputs)
        ]
        return tf.function(traced, input_signature=signature, autograph=False).get_concrete_function()

    def _compile(self, outputs: tuple[str, ...], dtypes: dict[str, str]) -> TensorFlowFunction:
        try:
            concrete = self._trace(outputs, dtypes)
            function = TensorFlowFunction(
                concrete,
                tuple(spec.name for spec in self.spec.inputs),
                outputs,
                self._buckets,
                self._on_padding,
            )
            for rows in self._buckets or (1,):
                function.run(seeded_rows(self._model, rows))
        except _FAILURES as error:
            raise LoadError(
                f"{', '.join(outputs)} cannot be computed: {_reason(error)}.",
                mend="Check with Keras that the model runs on one row of zeros.",
            ) from error
        return function


def bucket_sizes(max_batch_size: int) -> tuple[int, ...]:
    """1, 2, 4, ... up to and including `max_batch_size`."""
    sizes = []
    size = 1
    while size < max_batch_size:
        sizes.append(size)
        size *= 2
    return (*sizes, max_batch_size)


def _reason(error: Exception) -> str:
    """What is wrong, out of messages that also tell where in the graph and in whose code it was built."""
    lines = [
        line
        for line in _COLOURS.sub("", str(getattr(error, "message", None) or error)).splitlines()
        if line.strip() and not line.startswith(_ELSEWHERE)
    ]
    return lines[0].split(" [[")[0].rstrip(".")[:300] if lines else type(error).__name__
