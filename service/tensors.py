"""Owns the vocabulary that crosses layers: what a model takes and gives, one request, one result.

Plain values only. It knows no HTTP, no TensorFlow and no queue.

Words: a *row* is one example; a *path* names a tensor inside a model (`pool`, `base/conv5`, `dense:1` for
the second use of a shared layer, `lstm:0:2` for the third tensor of a layer's first use).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named tensor.

    Args:
        name: an input's name, an output's name or a layer's path.
        shape: the batch axis first; `None` where any size goes: `(None, 28, 28, 1)`.
        dtype: numpy's name as it crosses the border: `float32`, `int64`, `bool`, `string`. Types that numpy
            lacks (bfloat16) cross as `float32`.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    @property
    def row_shape(self) -> tuple[int | None, ...]:
        """The shape of one row, without the batch axis."""
        return self.shape[1:]

    @property
    def row_values(self) -> int | None:
        """How many numbers one row holds; `None` where an axis is free."""
        total = 1
        for size in self.shape[1:]:
            if size is None:
                return None
            total *= size
        return total


@dataclass(frozen=True, slots=True)
class OutputSpec(TensorSpec):
    """One of the model's own outputs.

    Args:
        path: the layer path that yields the same tensor, so that predictions and features share functions.
        activation: the name of the activation it ends with (`softmax`, `sigmoid`, `linear`, ...), or `None`
            where it cannot be told.
    """

    path: str = ""
    activation: str | None = None


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One tensor that a layer yields, as `/models/<m>/layers` lists it.

    Args:
        path: canonical name.
        class_name: the layer's class, `Conv2D`.
        shape: batch axis first, `None` where free.
        dtype: as in `TensorSpec`.
        parameters: the number of weights of the layer, each counted once.
        compute_share: the estimated part of the whole model's multiply-adds that this tensor needs, 0..1;
            everything upstream of it is counted, it included.
        channel_axis: where the channels are: -1, or 1 for channels-first layers.
    """

    path: str
    class_name: str
    shape: tuple[int | None, ...]
    dtype: str
    parameters: int
    compute_share: float
    channel_axis: int = -1

    @property
    def tensor(self) -> TensorSpec:
        """The tensor's spec, named by its path."""
        return TensorSpec(self.path, self.shape, self.dtype)

    @property
    def row_bytes(self) -> int | None:
        """Bytes of one row in its own dtype; `None` where an axis is free or the dtype has no fixed size."""
        values = self.tensor.row_values
        if values is None or self.dtype == "string":
            return None
        return values * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a loaded model takes and gives.

    Args:
        inputs: in the model's own order.
        outputs: in the model's own order.
        layers: every addressable tensor in order of computation, nested ones by path, the model's inputs
            included.
        aliases: other spellings that lead to a path: `{"dense": "dense:0"}` for a shared layer.
        bottleneck: the path that `/features` answers when nothing else says so: the input of the last layer
            with weights on the way to the first output, Dropout skipped; `None` where that is an input.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[OutputSpec, ...]
    layers: tuple[LayerSpec, ...]
    aliases: dict[str, str] = field(default_factory=dict)
    bottleneck: str | None = None

    @property
    def predictions(self) -> tuple[str, ...]:
        """The paths of the outputs, each once: what a prediction computes."""
        return tuple(dict.fromkeys(output.path for output in self.outputs))

    def computing(self, dtypes: Mapping[str, str]) -> ModelSpec:
        """The same model with the dtypes that its tensors have when they are computed.

        Args:
            dtypes: path -> dtype; others stay as they are.
        """
        return replace(
            self,
            outputs=tuple(replace(item, dtype=dtypes.get(item.path, item.dtype)) for item in self.outputs),
            layers=tuple(replace(item, dtype=dtypes.get(item.path, item.dtype)) for item in self.layers),
        )


@dataclass(frozen=True, slots=True)
class Activations:
    """What one row takes in memory while it is computed, of a model whose rows may have several sizes.

    Args:
        values: numbers of one row of all inputs together, as it was measured.
        size: bytes that it takes, with a margin.
        power: of the numbers, by which the bytes grow.
    """

    values: int
    size: int
    power: float

    def bytes_of(self, inputs: Mapping[str, Array]) -> int:
        """Bytes that these rows take, name -> (rows, *row shape), all computed at once."""
        rows = len(next(iter(inputs.values())))
        values = sum(array.size for array in inputs.values()) / rows
        growth: float = (values / self.values) ** self.power
        return math.ceil(rows * self.size * growth)


@dataclass(slots=True)
class Timings:
    """Seconds spent on one request, in the order they are spent."""

    decode_s: float = 0.0
    queue_s: float = 0.0
    compute_s: float = 0.0
    encode_s: float = 0.0


@dataclass(slots=True)
class InferRequest:
    """Valid arrays for one model, ready for the queue.

    Args:
        model: a served model's name.
        version: a served version of it.
        outputs: the layer paths to return, canonical and without duplicates.
        inputs: input name -> (rows, *row shape) in the spec's dtype, C order.
        rows: how many rows every input has.
        timeout_s: the client's own limit; never longer than the service's.
        priority: 1 goes first, larger numbers later; 0 is the middle, `service.scheduling.jobs.MIDDLE_PRIORITY`.
        served: what `Runtime.resolve` gave and the arrays were made for. With it the request is answered by that
            very model, also when another has taken its place meanwhile; `None`: by whatever has this name and
            version once the request is queued.
        place: what `Runtime.book` kept for it before its body was read.
        charge: what it holds of the service's memory, a `service.memory.Charge`; `Runtime.submit` gives it one where
            it needs much and has none. Whoever answers it releases that.
        request_id: by which the log names it.
    """

    model: str
    version: int
    outputs: tuple[str, ...]
    inputs: dict[str, Array]
    rows: int
    timeout_s: float | None = None
    priority: int = 0
    served: object | None = None
    place: object | None = None
    charge: object | None = None
    request_id: str = ""


@dataclass(slots=True)
class InferResult:
    """What one request gets back: layer path -> (rows, *row shape), and the time it took."""

    outputs: dict[str, Array]
    queue_s: float
    compute_s: float
