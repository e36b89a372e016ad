"""Owns what is asked: the models, the pictures and a row's body in each form; written once to .cache/bench."""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from peers.endpoints import ENDPOINTS, Endpoint
from PIL import Image
from servers import ROOT

CACHE = ROOT / ".cache" / "bench"
MODELS = CACHE / "models"
SMALL, LARGE = (480, 640), (3000, 4000)  # pictures, height and width
_MAKE_MODEL = """
import sys, keras
keras.utils.set_random_seed(1)
name, path = sys.argv[1:]
if name == "pooling":
    picture = keras.Input((224, 224, 3))
    keras.Model(picture, keras.layers.GlobalAveragePooling2D()(picture)).save(path)
else:
    getattr(keras.applications, name)(weights=None).save(path)
"""
_MADE = {"pooling": "pooling", "mobilenet": "MobileNetV2", "resnet": "ResNet50"}


def make_models() -> Path:
    """The folder of the models: iris and digits as they ship, the others with random weights.

    Speed does not depend on the weights.
    """
    for name in ("iris", "digits"):
        shutil.copytree(ROOT / "models" / name, MODELS / name, dirs_exist_ok=True)
    for name, maker in _MADE.items():
        folder = MODELS / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.toml").write_text(_configuration(name))
        if not (folder / "model.h5").is_file():
            unfinished = folder / "unfinished.h5"
            command = [sys.executable, "-W", "ignore", "-c", _MAKE_MODEL, maker, str(unfinished)]
            environ = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
            subprocess.run(command, check=True, env=environ, stderr=subprocess.DEVNULL)
            unfinished.rename(folder / "model.h5")
    return MODELS


def _configuration(name: str) -> str:
    asked = [endpoint for endpoint in ENDPOINTS.values() if endpoint.model == name]
    warm = sorted({endpoint.layer for endpoint in asked if endpoint.layer})
    lines = [f"max_batch_size = {asked[0].batch}", f"warm_layers = {json.dumps(warm)}"]
    if any(endpoint.form == "jpeg" for endpoint in asked):
        lines += ["[preprocess]", f'mode = "{asked[0].mode}"']
    return "\n".join(lines) + "\n"


@functools.cache
def body(endpoint: Endpoint, size: tuple[int, int] = SMALL) -> bytes:
    """One row for an endpoint, in its form: JSON `{"instances": [row]}`, npy (1, *shape) float32, or a JPEG."""
    if endpoint.form == "jpeg":
        return picture(size)
    row = _row(endpoint)
    if endpoint.form == "npy":
        buffer = io.BytesIO()
        np.save(buffer, row[np.newaxis])
        return buffer.getvalue()
    # Four digits, as people round what they send; a float32 in full has up to nine.
    rounded = [[round(float(value), 4) for value in row.ravel()]]
    return json.dumps({"instances": np.array(rounded).reshape(1, *row.shape).tolist()}).encode()


def _row(endpoint: Endpoint) -> np.ndarray:
    if endpoint.model == "iris":
        return np.array([5.1, 3.5, 1.4, 0.2], np.float32)
    if endpoint.model == "digits":
        seven = Image.open(ROOT / "models" / "digits" / "examples" / "7.png").convert("L")
        return np.asarray(seven.resize((28, 28)), np.float32)[..., np.newaxis] / 255
    image = Image.open(io.BytesIO(picture(SMALL))).resize(endpoint.shape[1::-1])
    return np.asarray(image, np.float32) / 127.5 - 1.0


def picture(size: tuple[int, int]) -> bytes:
    """A JPEG with smooth shapes and some noise, as photographs have: 640x480 takes about 100 KB."""
    path = CACHE / f"{size[1]}x{size[0]}.jpg"
    if path.is_file():
        return path.read_bytes()
    generator = np.random.default_rng(1)
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    waves = [np.sin(x / (20 + 9 * c)) * np.cos(y / (31 - 5 * c)) * 90 + 128 for c in range(3)]
    pixels = np.stack(waves, axis=-1) + generator.normal(0, 14, (*size, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(buffer, "JPEG", quality=85)
    CACHE.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return buffer.getvalue()
