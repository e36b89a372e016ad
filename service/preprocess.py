"""Owns the numbers between a decoded picture and a model: what `[preprocess]` does to pixel values.

The order is Keras': `mode`, which is keras.applications.imagenet_utils.preprocess_input, then
ImageDataGenerator.standardize (keras/src/legacy/preprocessing/image.py, Keras 3.15). Every operation runs in
float32, in place and in the order that those two use, because only that gives the same bits. It knows
nothing of files and of sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from service.errors import RepositoryError, UndecodableImage
from service.model_config import PreprocessConfig
from service.tensors import Array

# Values of keras/src/applications/imagenet_utils.py: torch in R, G, B of 0..1; caffe in B, G, R of 0..255.
_TORCH_MEAN = (0.485, 0.456, 0.406)
_TORCH_STD = (0.229, 0.224, 0.225)
_CAFFE_MEAN = (103.939, 116.779, 123.68)
_EPSILON = 1e-6  # what ImageDataGenerator adds to a standard deviation before it divides


def preprocess(pixels: Array, config: PreprocessConfig, *, channels_first: bool) -> Array:
    """The pixel values as the model was trained on them.

    As in Keras, samplewise_std_normalization centres too, and a rescale of 0 does nothing.

    Args:
        pixels: (H, W, C) float32, or (C, H, W) with `channels_first`; 0..255, more for 16-bit pictures.
            It is overwritten.
        config: what to do; it has passed `check`.
        channels_first: whether the channels are on axis 0.

    Returns:
        `pixels`, or a view of it: float32 of the same shape. With mode `caffe` the channels are B, G, R.
    """
    pixels = _as_application(pixels, config.mode, channels_first=channels_first)
    if config.rescale:
        pixels *= config.rescale
    if config.samplewise_center or config.samplewise_std_normalization:
        pixels -= np.mean(pixels, keepdims=True)
    if config.samplewise_std_normalization:
        pixels /= np.std(pixels, keepdims=True) + _EPSILON
    if config.featurewise_mean is not None:
        _subtract(pixels, config.featurewise_mean, channels_first=channels_first)
    if config.featurewise_std is not None:
        # ImageDataGenerator.fit holds float32; the epsilon is lost or rounded there, and so it is here.
        stds = tuple(float(np.float32(std) + np.float32(_EPSILON)) for std in config.featurewise_std)
        _divide(pixels, stds, channels_first=channels_first)
    return pixels


def active_settings(config: PreprocessConfig) -> tuple[str, ...]:
    """The names of the settings that change pixel values; empty where pixels reach the model as decoded."""
    active = {
        "mode": config.mode != "none",
        "rescale": bool(config.rescale),
        "samplewise_center": config.samplewise_center,
        "samplewise_std_normalization": config.samplewise_std_normalization,
        "featurewise_mean": config.featurewise_mean is not None,
        "featurewise_std": config.featurewise_std is not None,
    }
    return tuple(name for name, on in active.items() if on)


def check(config: PreprocessConfig, channels: int, dtype: str, name: str) -> None:
    """Makes sure that the settings suit an input before a picture meets them.

    Args:
        config: the model's `[preprocess]`.
        channels: 1, 3 or 4.
        dtype: the input's numpy dtype.
        name: the input's name, for messages.

    Raises:
        RepositoryError: torch or caffe without three channels, featurewise numbers that are neither one nor
            one a channel, or settings that make fractions for an input of whole numbers.
    """
    if config.mode in {"torch", "caffe"} and channels != 3:
        raise RepositoryError(
            f"Expected an input of 3 channels for mode '{config.mode}' in [preprocess]. "
            f"Received: input '{name}' of {channels}."
        )
    for setting in ("featurewise_mean", "featurewise_std"):
        values = getattr(config, setting)
        if values is not None and len(values) not in {1, channels}:
            raise RepositoryError(
                f"Expected {setting} in [preprocess] to hold 1 number or {channels}, one a channel of input "
                f"'{name}'. Received: {len(values)}."
            )
    active = active_settings(config)
    if active and np.dtype(dtype).kind in "iu":
        raise RepositoryError(
            f"Expected no setting in [preprocess] that makes fractions, as input '{name}' takes {dtype}. "
            f"Received: {', '.join(active)}."
        )


def cast(pixels: Array, dtype: str, name: str) -> Array:
    """The same values in an input's dtype, never wrapped round and never made infinite.

    Args:
        pixels: numbers of any shape.
        dtype: the input's numpy dtype, of whole numbers or floats.
        name: the input's name, for messages.

    Raises:
        UndecodableImage: values that this dtype cannot hold.
    """
    wanted = np.dtype(dtype)
    limits = np.iinfo(wanted) if wanted.kind in "iu" else np.finfo(wanted)
    if not np.can_cast(pixels.dtype, wanted) and (pixels.min() < limits.min or pixels.max() > limits.max):
        raise UndecodableImage(
            f"Expected pixel values from {limits.min} to {limits.max}, as input '{name}' takes {dtype}. "
            f"Received: {pixels.min()} to {pixels.max()}."
        )
    return pixels.astype(wanted, copy=False)


def _as_application(pixels: Array, mode: str, *, channels_first: bool) -> Array:
    if mode == "tf":
        pixels /= 127.5
        pixels -= 1.0
    elif mode == "torch":
        pixels /= 255.0
        _subtract(pixels, _TORCH_MEAN, channels_first=channels_first)
        _divide(pixels, _TORCH_STD, channels_first=channels_first)
    elif mode == "caffe":
        pixels = pixels[::-1] if channels_first else pixels[..., ::-1]
        _subtract(pixels, _CAFFE_MEAN, channels_first=channels_first)
    return pixels


def _subtract(pixels: Array, values: tuple[float, ...], *, channels_first: bool) -> None:
    for place, value in _places(values, channels_first=channels_first):
        pixels[place] -= value


def _divide(pixels: Array, values: tuple[float, ...], *, channels_first: bool) -> None:
    for place, value in _places(values, channels_first=channels_first):
        pixels[place] /= value


def _places(values: tuple[float, ...], *, channels_first: bool) -> Iterator[tuple[Any, float]]:
    """The index of each channel with its value, or of the whole picture where one value is for all.

    A channel at a time is also several times faster than to broadcast over a last axis of three.
    """
    if len(values) == 1:
        yield ..., values[0]
        return
    for channel, value in enumerate(values):
        yield (channel if channels_first else (..., channel)), value
