"""Owns the command `python -m service convert FILE OUT`: a clean Keras 3 file, proved to compute the same.

The file is loaded with its repairs and saved beside OUT; a fresh process loads that twice, as plain Keras does and
as the service does, and runs both on the same rows. Only then does it get its name.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service.errors import LayertapError, LoadError
from service.loading import archive, hdf5
from service.loading.config_text import parse
from service.loading.loader import load
from service.loading.vetting import missing
from service.surgery.cut import describe, seeded_rows
from service.tensors import Array
from service.tools import proof
from service.tools.doctor.companions import companions
from service.tools.doctor.known_names import LAYERS

SUFFIXES = (".keras", ".h5")
TOLERANCE = 1e-5
"""The largest difference, relative to an output's largest value."""

_ROWS = 4
_PATIENCE_S = 600
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Converted:
    """A file that was written and proved.

    Args:
        repairs: what was changed to bring it to Keras 3.
        difference: the largest one between the outputs of the two files, relative to an output's scale.
        plain: whether Keras reads it without anything else.
        objects: the custom objects in it, those of the service (`layertap>...`) included.
        trouble: why Keras alone does not read it, or an empty string.
    """

    repairs: tuple[str, ...]
    difference: float
    plain: bool
    objects: tuple[str, ...] = ()
    trouble: str = ""


def convert(source: Path, out: Path, object_files: tuple[Path, ...] = ()) -> Converted:
    """Writes `source` as a Keras 3 file to `out`, without optimiser, loss and metrics.

    Args:
        source: a model file of any kind that the service loads.
        out: a new file ending in .keras or .h5.
        object_files: Python files that define custom objects, besides those that lie beside `source`; they run.

    Raises:
        LoadError: `source` cannot be loaded, `out` exists or has another ending, or what was written does not
            load again or computes something else; nothing is left at `out`.
        RepositoryError: the model.toml beside `source` is wrong.
    """
    _check_target(out)
    beside = companions(source, object_files)
    config = dataclasses.replace(beside.config, compile=False, loader="keras3")
    loaded = load(source, config, beside.object_files, beside.folders[-1])
    names = [spec.name for spec in describe(loaded.model).inputs]
    drawn = seeded_rows(loaded.model, _ROWS)
    rows = [drawn[name] for name in names]
    expected = proof.outputs(loaded.model, rows)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".converting-") as folder:
        written = Path(folder) / f"model{out.suffix}"
        loaded.model.save(written)
        told = _prove(written, rows, beside.object_files, Path(folder))
        difference = max(_difference(expected, found) for found in told.outputs)
        if not difference <= TOLERANCE:
            raise LoadError(
                f"Expected the converted file to compute the same. Received: a difference of {difference:.3g}.",
                mend="Serve the file as it is.",
            )
        objects = _custom_objects(written)
        _publish(written, out)
    return Converted(loaded.repairs, difference, told.plain, objects, told.trouble)


def run(source: Path, out: Path, object_files: tuple[Path, ...]) -> int:
    """Converts, says what came of it and returns the exit status: 0, or 3 if the file is refused."""
    try:
        done = convert(source, out, object_files)
    except LayertapError as error:
        mend = getattr(error, "mend", "")
        print(f"{source}: not converted. {error.message}" + (f"\n{mend}" if mend else ""), file=sys.stderr)
        return 3
    print(
        f"{out}: written. Same outputs as {source} on {_ROWS} rows (largest difference {done.difference:.2g})."
    )
    for repair in done.repairs:
        print(f"  repaired: {repair}")
    if not done.plain:
        why = (
            f"needs custom_objects for {', '.join(done.objects)}"
            if done.objects
            else f"fails: {done.trouble}"
        )
        print(f"  The service reads it as it read {source.name}; Keras alone {why}.")
    return 0


def _custom_objects(written: Path) -> tuple[str, ...]:
    inside = archive.look_into(written) if archive.is_archive(written) else hdf5.look(written)
    needs = missing(parse(inside.config or "", written.name), layers=LAYERS, offered=())
    return tuple(dict.fromkeys(need.saved.split(" ")[0] for need in needs))


def _check_target(out: Path) -> None:
    if out.suffix not in SUFFIXES:
        raise LoadError(f"Expected a new file ending in {' or '.join(SUFFIXES)}. Received: {out.name}.")
    if out.exists():
        raise LoadError(
            f"Expected a file that does not exist yet. Received: {out}.", mend="Choose another name."
        )
    if not out.parent.is_dir():
        raise LoadError(f"Expected a folder at {out.parent}. Received: nothing there.", mend="Make it.")


@dataclass(frozen=True, slots=True)
class _Told:
    outputs: list[list[Array]]
    plain: bool
    trouble: str


def _prove(written: Path, rows: list[Array], object_files: tuple[Path, ...], folder: Path) -> _Told:
    """What a fresh process computes with the new file."""
    np.savez(folder / "rows.npz", *rows)
    command = [sys.executable, "-m", "service.tools.proof", str(written.resolve()), str(folder.resolve())]
    command += [str(path.resolve()) for path in object_files]
    try:
        child = subprocess.run(  # noqa: S603 this very interpreter, and paths that are no shell's
            command, cwd=_ROOT, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"Expected the new file to load within {_PATIENCE_S} s. Received: no end.") from error
    if child.returncode != 0:
        reason = (child.stderr.strip().splitlines() or ["no word"])[-1]
        raise LoadError(
            f"Expected the new file to load again. Received: {reason}", mend="Serve the file as it is."
        )
    served = _read(folder / proof.SERVED)
    plain = (folder / proof.PLAIN).is_file()
    trouble = "" if plain else (folder / proof.TROUBLE).read_text(encoding="utf-8")
    return _Told([served, _read(folder / proof.PLAIN)] if plain else [served], plain, trouble)


def _read(path: Path) -> list[Array]:
    with np.load(path, allow_pickle=False) as arrays:
        return [arrays[name] for name in arrays.files]


def _difference(expected: list[Array], found: list[Any]) -> float:
    if [array.shape for array in expected] != [array.shape for array in found]:
        return float("inf")
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        if one.dtype.kind in "OSU":
            worst = max(worst, 0.0 if np.array_equal(one, other) else float("inf"))
            continue
        a, b = one.astype("float64"), other.astype("float64")
        scale = max(float(np.max(np.abs(a), initial=0.0)), 1e-6)
        apart = np.abs(a - b)
        apart[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
        largest = float(np.max(apart, initial=0.0)) / scale
        worst = max(worst, largest if np.isfinite(largest) else float("inf"))
    return worst


def _publish(written: Path, out: Path) -> None:
    """Gives the file its name; a link, unlike a rename, never replaces what appeared there meanwhile."""
    try:
        os.link(written, out)
    except FileExistsError as error:
        raise LoadError(f"Expected a file that does not exist yet. Received: {out}.") from error
