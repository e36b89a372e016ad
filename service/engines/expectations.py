"""Owns what TensorFlow gave for a few rows, kept small enough to compare every layer with it in a later process.

Small tensors are kept whole. Of a large one each row's values at seeded places are kept, and at its largest
magnitude, so that differences have the scale that they would have in a comparison of the whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from service.engines.parity import relative_difference
from service.payloads.codecs import decode_npy, encode_npy
from service.tensors import Array

_KEPT_VALUES = 2**14  # of each row of a tensor; 175 tensors of a ResNet50, two rows: 18 MB
_INDEX, _VALUES, _PLACES = "expected.json", "expected/{}.npy", "expected/{}.places.npy"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What one tensor is expected to be.

    Args:
        row_shape: of a row.
        values: (rows, kept values), or (rows, *row shape) where all are kept.
        places: (kept values,) places in a flattened row; `None` where all are kept.
    """

    row_shape: tuple[int, ...]
    values: Array
    places: Array | None

    def difference(self, got: Array) -> float:
        """How far the first rows of a batch are from it, relative to their scale; infinite for another kind.

        Args:
            got: (rows, *row shape); row `i` was computed from row `i` of the inputs, modulo their number.
        """
        if got.dtype != self.values.dtype or got.shape[1:] != self.row_shape:
            return float("inf")
        if self.places is not None:
            got = got.reshape(len(got), -1)[:, self.places]
        return relative_difference(got, self.values[np.arange(len(got)) % len(self.values)])


def expect(array: Array) -> Expectation:
    """What to compare a tensor with later.

    Args:
        array: (rows, *row shape), any dtype but text.
    """
    flat = array.reshape(len(array), -1)
    if flat.shape[1] <= _KEPT_VALUES:
        return Expectation(array.shape[1:], array, None)
    seeded = np.random.default_rng(0).integers(0, flat.shape[1], _KEPT_VALUES)
    magnitudes = np.where(np.isfinite(flat), np.abs(flat), 0) if flat.dtype.kind == "f" else np.abs(flat)
    places = np.unique(np.concatenate([seeded, magnitudes.argmax(axis=1)]))
    return Expectation(array.shape[1:], flat[:, places], places)


def pack(expectations: Mapping[str, Expectation]) -> dict[str, bytes]:
    """Expectations by path as named bytes; `unpack` reads them."""
    parts = {
        _INDEX: json.dumps({path: expected.row_shape for path, expected in expectations.items()}).encode()
    }
    for number, expected in enumerate(expectations.values()):
        parts[_VALUES.format(number)] = encode_npy(expected.values)
        if expected.places is not None:
            parts[_PLACES.format(number)] = encode_npy(expected.places)
    return parts


def unpack(parts: Mapping[str, bytes | memoryview]) -> dict[str, Expectation]:
    """What `pack` wrote, as copies: the bytes may go.

    Raises:
        ValueError, KeyError, InvalidInput: they are something else.
    """
    found = {}
    for number, (path, row_shape) in enumerate(json.loads(bytes(parts[_INDEX])).items()):
        places = parts.get(_PLACES.format(number))
        found[path] = Expectation(
            tuple(row_shape),
            decode_npy(parts[_VALUES.format(number)]).copy(),
            None if places is None else decode_npy(places).copy(),
        )
    return found
