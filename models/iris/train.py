"""Owns the making of `iris`: a multinomial regression from 4 flower measurements to 3 species.

Run `python models/iris/train.py` from the repository's root; it rewrites `1/model.h5` beside this file and
prints the accuracy on the flowers that it held out. The data is scikit-learn's copy of Fisher's iris.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

MODEL_FILE = Path(__file__).parent / "1" / "model.h5"
SEED = 7
EPOCHS = 400

Array = np.ndarray[Any, np.dtype[Any]]


def split() -> tuple[Array, Array, Array, Array]:
    """Training rows, held-out rows, training labels, held-out labels: always the same.

    Returns:
        (105, 4) and (45, 4) float32 in centimetres; (105,) and (45,) int, 0..2. Each species keeps its share.
    """
    flowers = load_iris()
    rows = flowers.data.astype("float32")
    parts = train_test_split(rows, flowers.target, test_size=0.3, stratify=flowers.target, random_state=SEED)
    return tuple(parts)


def build() -> keras.Model:
    """The untrained model: one Dense layer, nothing else."""
    return keras.Sequential(
        [
            keras.Input((4,), name="measurements"),
            keras.layers.Dense(3, activation="softmax", name="species"),
        ],
        name="iris",
    )


def main() -> None:
    """Trains, prints the held-out accuracy and writes the file."""
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    rows, held_out, labels, held_out_labels = split()
    model = build()
    model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(rows, labels, batch_size=len(rows), epochs=EPOCHS, verbose=0)
    _, accuracy = model.evaluate(held_out, held_out_labels, verbose=0)
    print(f"iris: held-out accuracy {accuracy:.4f} ({len(held_out)} flowers)")
    MODEL_FILE.parent.mkdir(exist_ok=True)
    model.save(MODEL_FILE, include_optimizer=False)


if __name__ == "__main__":
    main()
