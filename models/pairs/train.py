"""Owns the making of `pairs`: two pictures of digits in, their sum and whether they are the same digit out.

Run `python models/pairs/train.py` from the repository's root; it rewrites `1/model.h5` beside this file and
prints what it measured on pairs of held-out pictures. The data is scikit-learn's copy of the UCI digits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from custom_objects import LowRankProduct  # the file beside this one, as the service will load it
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

MODEL_FILE = Path(__file__).parent / "1" / "model.h5"
SEED = 7
EPOCHS = 30
TRAINING_PAIRS = 40_000
HELD_OUT_PAIRS = 4_000

Array = np.ndarray[Any, np.dtype[Any]]
Columns = dict[str, Array]


def split() -> tuple[tuple[Columns, Columns], tuple[Columns, Columns]]:
    """Training pairs and held-out pairs, each as inputs and targets: always the same.

    No picture is in both. Every other pair shows one digit twice; by chance only every tenth would.

    Returns:
        `left` and `right`: (N, 8, 8) float32, ink 0..16 as scikit-learn gives it; `sum`: (N,) int64, 0..18;
        `same`: (N, 1) float32, 0 or 1.
    """
    digits = load_digits()
    pictures, held_out, labels, held_out_labels = train_test_split(
        digits.images.astype("float32"),
        digits.target,
        test_size=0.25,
        stratify=digits.target,
        random_state=SEED,
    )
    random = np.random.default_rng(SEED)
    return _pair(pictures, labels, TRAINING_PAIRS, random), _pair(
        held_out, held_out_labels, HELD_OUT_PAIRS, random
    )


def _pair(pictures: Array, labels: Array, count: int, random: np.random.Generator) -> tuple[Columns, Columns]:
    left = random.integers(len(pictures), size=count)
    right = random.integers(len(pictures), size=count)
    for place in range(0, count, 2):
        right[place] = random.choice(np.flatnonzero(labels == labels[left[place]]))
    same = (labels[left] == labels[right]).astype("float32")[:, np.newaxis]
    return (
        {"left": pictures[left], "right": pictures[right]},
        {"sum": labels[left] + labels[right], "same": same},
    )


def build() -> keras.Model:
    """The untrained model.

    Every layer from `scale` to `code` is shared: it reads the left picture, then the right one. `base` is a
    model of its own, called once on both codes.
    """
    layers = keras.layers
    left, right = keras.Input((8, 8), name="left"), keras.Input((8, 8), name="right")
    reading = [
        layers.Rescaling(1 / 16, name="scale"),
        layers.Reshape((8, 8, 1), name="channel"),
        layers.Conv2D(16, 3, padding="same", activation="relu", name="conv"),
        layers.MaxPooling2D(2, name="pool"),
        layers.Flatten(name="flatten"),
        layers.Dropout(0.2, name="dropout"),
        layers.Dense(32, activation="relu", name="code"),
    ]
    codes = []
    for tensor in (left, right):
        for layer in reading:
            tensor = layer(tensor)  # noqa: PLW2901  (the chain is the point)
        codes.append(tensor)
    joint = _base(32)(codes)
    outputs = [
        layers.Dense(19, activation="softmax", name="sum")(joint),
        layers.Dense(1, activation="sigmoid", name="same")(joint),
    ]
    return keras.Model([left, right], outputs, name="pairs")


def _base(size: int) -> keras.Model:
    left, right = keras.Input((size,), name="left_code"), keras.Input((size,), name="right_code")
    product = LowRankProduct(96, name="product")([left, right])
    joint = keras.layers.Dense(64, activation="relu", name="joint")(product)
    return keras.Model([left, right], joint, name="base")


def main() -> None:
    """Trains, prints the held-out figures and writes the file."""
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    (inputs, targets), (held_out, held_out_targets) = split()
    model = build()
    steps = EPOCHS * -(-TRAINING_PAIRS // 128)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        loss={"sum": "sparse_categorical_crossentropy", "same": "binary_crossentropy"},
    )
    model.fit(inputs, targets, batch_size=128, epochs=EPOCHS, verbose=2)
    total, same = model.predict(held_out, verbose=0)
    right_sums = np.mean(total.argmax(axis=1) == held_out_targets["sum"])
    right_same = np.mean((same > 0.5) == held_out_targets["same"])
    print(
        f"pairs: held-out accuracy of 'sum' {right_sums:.4f}, of 'same' {right_same:.4f} ({len(same)} pairs)"
    )
    MODEL_FILE.parent.mkdir(exist_ok=True)
    model.save(MODEL_FILE, include_optimizer=False)


if __name__ == "__main__":
    main()
