"""Owns the layouts in which Keras 1, Keras 2, CuDNN and Theano kept weights, brought to those of Keras 3.

Arrays in, arrays out: it knows the classes by name and no Keras.

Source: keras-team/keras@2.2.4 `keras/engine/saving.py` (preprocess_weights_for_loading, _convert_rnn_weights,
_need_convert_kernel); keras-team/keras@1.0.8, 1.1.2 and 1.2.2 `keras/layers/` for what Keras 1 wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.tensors import Array

Arrays = list[Array]
Shapes = Sequence[tuple[int, ...]]

_CHANNELS_FIRST = {  # Keras 1's axes of a kernel with dim_ordering "th", in the order in which Keras 3 wants them
    "Conv2D": (2, 3, 1, 0),
    "SeparableConv2D": (2, 3, 1, 0),
    "ConvLSTM2D": (2, 3, 1, 0),
    "Conv2DTranspose": (2, 3, 0, 1),
    "Deconvolution2D": (2, 3, 0, 1),
    "Conv3D": (2, 3, 4, 1, 0),
}
_DECONVOLUTIONS = {"Conv2DTranspose", "Deconvolution2D"}
_GATES = {  # how many arrays Keras 1 wrote, and the order of its gates: i, c, f, o for LSTM, z, r, h for GRU
    "LSTM": (12, (0, 2, 1, 3)),
    "ConvLSTM2D": (12, (0, 2, 1, 3)),
    "GRU": (9, (0, 1, 2)),
}
ROTATED = {
    "Conv1D": 1,
    "Conv2D": 1,
    "Conv3D": 1,
    "Conv2DTranspose": 1,
    "Deconvolution2D": 1,
    "ConvLSTM2D": 2,
}
"""Layers of convolutions, and how many of their arrays are kernels."""

_SHARED = {"PReLU", "SReLU", "ParametricSoftplus"}


@dataclass(frozen=True, slots=True)
class Unit:
    """What is known of a layer that takes weights.

    Args:
        kind: its class; of a recurrent layer or cell, the layer's: `LSTM`.
        shapes: of its weights in Keras 3's order, the trained ones first.
        channels_first: whether its pictures are `(N, C, H, W)`.
        keras1: whether Keras 1 wrote the arrays.
        theano: whether Theano computed with them, whose convolutions turn the kernel around.
    """

    kind: str
    shapes: Shapes
    channels_first: bool = False
    keras1: bool = False
    theano: bool = False


def saved_count(unit: Unit) -> int:
    """How many arrays a file has for the unit: Keras 1 wrote one for each gate, or all gates in one."""
    return _GATES[unit.kind][0] if unit.keras1 and unit.kind in _GATES else len(unit.shapes)


def converted(unit: Unit, arrays: Arrays) -> Arrays:
    """The arrays in Keras 3's layout, in the order of the unit's weights; what needs nothing is as it was."""
    if unit.keras1:
        arrays = _from_keras1(unit, arrays)
    if unit.theano:
        count = ROTATED.get(unit.kind, 0)
        arrays = [_rotated(array) for array in arrays[:count]] + arrays[count:]
    if unit.kind in {"LSTM", "GRU"} and len(arrays) == 3:
        arrays = _from_cudnn(unit, arrays)
    if unit.kind in _SHARED:
        arrays = [_spread(array, shape) for array, shape in zip(arrays, unit.shapes, strict=False)]
    return arrays


def _from_keras1(unit: Unit, arrays: Arrays) -> Arrays:
    kind = unit.kind
    if kind in _GATES and len(arrays) == _GATES[kind][0]:
        arrays = _joined_gates(
            arrays, *_GATES[kind], axis=1 if unit.channels_first and kind == "ConvLSTM2D" else -1
        )
    if kind == "Conv1D" and arrays and arrays[0].ndim == 4:
        arrays = [_conv1d(arrays[0], unit.shapes[0]), *arrays[1:]]
    if unit.channels_first and kind in _CHANNELS_FIRST:
        axes = _CHANNELS_FIRST[kind]
        arrays = [array.transpose(axes) if array.ndim == len(axes) else array for array in arrays]
    elif kind in _DECONVOLUTIONS and arrays and arrays[0].ndim == 4:
        arrays = [arrays[0].transpose(0, 1, 3, 2), *arrays[1:]]
    if unit.channels_first and kind == "LocallyConnected2D" and len(arrays) == 2:
        rows, columns, filters = arrays[1].shape  # Keras 1 filled (filters, rows, columns) from this memory
        arrays = [arrays[0], arrays[1].reshape(filters, rows, columns).transpose(1, 2, 0)]
    return arrays


def _joined_gates(arrays: Arrays, count: int, order: Sequence[int], axis: int) -> Arrays:
    """Kernel, recurrent kernel and bias of all gates, from three arrays a gate.

    Keras 1's channels-first kernels are `(out, in, h, w)`: their gates lie along the first axis.
    """
    gates = [arrays[place : place + 3] for place in range(0, count, 3)]
    gates = [gates[place] for place in order]
    along = 0 if axis == 1 else -1
    return [
        np.concatenate([gate[part] for gate in gates], axis=along if part < 2 else -1) for part in range(3)
    ]


def _conv1d(kernel: Array, shape: tuple[int, ...]) -> Array:
    """Keras 1.2: (length, 1, in, out); 1.0 and 1.1: (out, in, length, 1)."""
    length, size, filters = shape
    if kernel.shape == (filters, size, length, 1) and kernel.shape[:2] != (length, 1):
        kernel = kernel.transpose(2, 3, 1, 0)
    return kernel[:, 0] if kernel.shape[1] == 1 else kernel


def _rotated(kernel: Array) -> Array:
    """A kernel `(*spatial, in, out)` turned by half a circle in its spatial axes."""
    spatial = kernel.ndim - 2
    return np.flip(kernel, axis=tuple(range(spatial))) if spatial > 0 else kernel


def _from_cudnn(unit: Unit, arrays: Arrays) -> Arrays:
    """CuDNN has two biases, and each gate's kernels with their axes the other way round."""
    kernel, recurrent, bias = arrays
    gates = 4 if unit.kind == "LSTM" else 3
    size = recurrent.shape[0]
    if bias.shape != (2 * gates * size,) or unit.shapes[2] == bias.shape:
        return arrays
    kernels = [part.T.reshape(part.shape, order="F") for part in np.split(kernel, gates, axis=1)]
    recurrents = [part.T for part in np.split(recurrent, gates, axis=1)]
    biases = bias.reshape(2, -1)
    return [np.hstack(kernels), np.hstack(recurrents), biases.sum(axis=0) if unit.kind == "LSTM" else biases]


def _spread(array: Array, shape: tuple[int, ...]) -> Array:
    """Keras 1 did not store which axes share a parameter; the arrays have one place there."""
    fits = array.ndim == len(shape) and all(
        own in {1, size} for own, size in zip(array.shape, shape, strict=True)
    )
    return np.broadcast_to(array, shape) if fits else array
