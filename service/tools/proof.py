"""Owns the proof of a converted file, in a process that has seen nothing of the old one.

`python -m service.tools.proof FILE FOLDER [CUSTOM_OBJECTS...]` reads FOLDER/rows.npz and writes the outputs of
plain Keras and of the service's loader beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from service.errors import LoadError
from service.loading.loader import load
from service.model_config import ModelConfig
from service.tensors import Array

SERVED = "served.npz"
PLAIN = "plain.npz"
TROUBLE = "plain.txt"
_REASON_LENGTH = 300


def outputs(model: Any, rows: Sequence[Array]) -> list[Array]:
    """The model's outputs in its own order, computed by Keras without a compiled function.

    Args:
        model: a `keras.Model`.
        rows: one array an input, in the model's order.
    """
    found = model(rows[0] if len(rows) == 1 else list(rows), training=False)
    return [np.asarray(keras.ops.convert_to_numpy(output)) for output in keras.tree.flatten(found)]


def main(written: Path, folder: Path, object_files: Sequence[Path]) -> None:
    """Computes the outputs of both ways to load the file.

    Raises:
        LoadError: the service cannot load it.
    """
    with np.load(folder / "rows.npz", allow_pickle=False) as arrays:
        rows = [arrays[name] for name in arrays.files]
    try:
        np.savez(folder / PLAIN, *outputs(keras.saving.load_model(written, compile=False), rows))
    except Exception as error:  # noqa: BLE001 Keras raises what it likes; the reason is told
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        (folder / TROUBLE).write_text(reason[:_REASON_LENGTH], encoding="utf-8")
    loaded = load(written, ModelConfig(loader="keras3"), tuple(object_files))
    np.savez(folder / SERVED, *outputs(loaded.model, rows))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
    except LoadError as error:
        sys.exit(f"{error.message} {error.mend}".replace("\n", " "))
