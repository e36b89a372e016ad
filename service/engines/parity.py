"""Owns the proof that an engine gives what Keras itself gives, on rows it has never seen compiled.

Rows come from `golden.npz` beside the model's file, keyed by input name, else from a seeded generator that
respects dtypes and Embedding ranges. Where golden.npz also holds arrays named like outputs, Keras and the engine
must both reproduce those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service.engines import Engine
from service.errors import BodyTooLarge, InputRejected, InvalidInput, LoadError
from service.payloads.codecs import decode_npz
from service.payloads.fitting import fit_named
from service.tensors import Array, ModelSpec

GOLDEN = "golden.npz"
_MAX_GOLDEN_BYTES = 2**32


@dataclass(frozen=True, slots=True)
class Parity:
    """How far apart two sets of outputs are.

    Args:
        largest: the largest absolute difference, relative to the output's largest magnitude.
        tolerance: what is allowed.
        rows: how many rows were compared.
        source: `golden.npz` or `seeded`.
    """

    largest: float
    tolerance: float
    rows: int
    source: str


def golden_rows(path: Path, names: tuple[str, ...]) -> dict[str, Array] | None:
    """The arrays of `golden.npz` beside a model's file, or `None` where there is none.

    Raises:
        LoadError: the file is broken or lacks an input.
    """
    file = path.parent / GOLDEN
    if not file.is_file():
        return None
    try:
        rows = decode_npz(file.read_bytes(), _MAX_GOLDEN_BYTES)
    except OSError as error:
        raise LoadError(f"Expected {file} to be readable. Received: {error}.") from error
    except (InvalidInput, BodyTooLarge) as error:
        raise LoadError(f"{file.name}: {error.message}", mend=f"Rewrite {file} with numpy.savez.") from error
    missing = [name for name in names if name not in rows]
    if missing:
        raise LoadError(
            f"Expected {file.name} to hold the inputs {list(names)}. Missing: {missing}.",
            mend=f"Write {file} with one array for each input, named like it.",
        )
    return rows


def prove(
    engine: Engine,
    reference: Any,
    rows: Mapping[str, Array],
    *,
    source: str,
    tolerance: float,
) -> Parity:
    """Compares the engine's predictions with the reference's.

    Args:
        engine: what will serve.
        reference: takes the input arrays in the model's order, gives output arrays in the model's order.
        rows: input name -> (N, *row shape), possibly with expected outputs by name.
        source: where the rows are from.
        tolerance: relative to each output's scale.

    Raises:
        LoadError: they differ by more, or the model does not take the rows.
    """
    spec = engine.spec
    inputs = fitting_rows(rows, spec, source)
    function = engine.compile(spec.predictions)
    try:
        got = function.run(inputs)
    except InputRejected as error:
        mend = f"Write {GOLDEN} with rows that the model takes."
        raise LoadError(f"On {source} rows: {error.message}", mend=mend) from error
    expected = reference([inputs[item.name] for item in spec.inputs])
    largest = 0.0
    for output, wanted in zip(spec.outputs, expected, strict=True):
        references = [wanted]
        if output.name in rows and output.name not in inputs:
            references.append(rows[output.name])
        for values in references:
            difference = relative_difference(got[output.path], values)
            largest = max(largest, difference)
            if not difference <= tolerance:
                raise LoadError(
                    f"Expected output '{output.name}' of the {engine.name} engine to equal Keras' own to "
                    f"{tolerance:g} of its scale, on {source} rows. Received: a difference of {difference:g}.",
                    mend="Report this file: the engine computes something else than Keras.",
                )
    return Parity(largest, tolerance, len(next(iter(inputs.values()))), source)


def fitting_rows(rows: Mapping[str, Array], spec: ModelSpec, source: str) -> dict[str, Array]:
    """The model's inputs among `rows`, in their dtypes and C order.

    Raises:
        LoadError: they do not fit the model.
    """
    try:
        return fit_named(
            {item.name: rows[item.name] for item in spec.inputs}, spec.inputs, f"the {source} rows"
        )
    except InvalidInput as error:
        raise LoadError(error.message, mend=f"Write {GOLDEN} with rows that fit the model.") from error


def relative_difference(got: Array, wanted: Array) -> float:
    """The largest absolute difference over the largest finite magnitude of `wanted`.

    Infinite where shapes or non-finite values differ.
    """
    if got.shape != wanted.shape:
        return float("inf")
    if got.dtype.kind not in "fiu" or wanted.dtype.kind not in "fiu":
        return 0.0 if bool(np.all(got == wanted)) else float("inf")
    got, wanted = got.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(wanted) & np.isfinite(got)
    if not np.array_equal(got[~finite], wanted[~finite], equal_nan=True):
        return float("inf")
    scale = max(float(np.max(np.abs(wanted[finite]), initial=0.0)), float(np.finfo(np.float32).tiny))
    return float(np.max(np.abs(got[finite] - wanted[finite]), initial=0.0)) / scale
