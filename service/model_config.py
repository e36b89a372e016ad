"""Owns what a `model.toml` may say about one model: its settings, their defaults and their checks."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import RepositoryError, SettingsError
from service.fields import build, setting


@dataclass(frozen=True, slots=True)
class PreprocessConfig:
    """How an image becomes the model's input, in Keras' own words; arrays are never touched.

    The order is Keras': load_img (color_mode, interpolation, resize), then `mode`
    (keras.applications.imagenet_utils.preprocess_input), then ImageDataGenerator.standardize (rescale,
    samplewise_center, samplewise_std_normalization, featurewise_mean, featurewise_std).
    """

    color_mode: str | None = setting(
        None,
        "rgb, rgba or grayscale; unset: what the input's channels say",
        choices=("rgb", "rgba", "grayscale"),
    )
    interpolation: str = setting(
        "nearest",
        "as Keras' load_img",
        choices=("nearest", "bilinear", "bicubic", "hamming", "box", "lanczos"),
    )
    resize: str = setting(
        "stretch",
        "stretch to the input's size, crop (centre) or pad to keep the aspect ratio",
        choices=("stretch", "crop", "pad"),
    )
    decode: str = setting(
        "exact",
        "exact, or fast: JPEG DCT scaling where the picture is much larger than the input",
        choices=("exact", "fast"),
    )
    exif_orientation: bool = setting(False, "turn pictures as their EXIF tag says (Keras ignores it)")
    mode: str = setting(
        "none",
        "keras.applications' preprocess_input: tf, torch or caffe",
        choices=("none", "tf", "torch", "caffe"),
    )
    rescale: float | None = setting(None, "factor, as ImageDataGenerator(rescale=...)")
    samplewise_center: bool = setting(False, "subtract each picture's mean")
    samplewise_std_normalization: bool = setting(False, "divide by each picture's standard deviation")
    featurewise_mean: tuple[float, ...] | None = setting(
        None, "subtract: one number, or one a channel (ImageDataGenerator.mean)"
    )
    featurewise_std: tuple[float, ...] | None = setting(
        None, "divide by: one number, or one a channel (ImageDataGenerator.std)"
    )


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model's settings; every one is optional."""

    default_layer: str | None = setting(None, "what /features answers when no layer is named")
    warm_layers: tuple[str, ...] = setting((), "layers compiled before the model is ready")
    layers: str = setting(
        "any", "any layer may be asked for, or listed: only warm_layers", choices=("any", "listed")
    )
    versions: str = setting(
        "latest", "serve the highest good version and those with a label, or all", choices=("latest", "all")
    )
    labels: Mapping[str, int] | None = setting(
        None, "names of versions, { stable = 1, canary = 2 }: requests can ask for them", low=0
    )
    engine: str | None = setting(
        None, "overrides the service's engine", choices=("auto", "tensorflow", "openvino")
    )
    precision: str | None = setting(
        None, "overrides the service's precision", choices=("float32", "bfloat16")
    )
    max_batch_size: int | None = setting(None, "overrides the service's max_batch_size", low=1, high=65536)
    engine_thread: str = setting(
        "auto",
        "own: a thread that computes for this model alone, so that no other waits for it; shared: takes turns with the "
        "others; auto: own where nobody knows how long a batch takes: its rows may have any size, or TensorFlow serves "
        "it with Python code of its own",
        choices=("auto", "own", "shared"),
    )
    classes: tuple[str, ...] | str = setting(
        (),
        "class names, or a file with them; unset: classes.txt, classes.json or class_indices.json, if there",
    )
    custom_objects: tuple[str, ...] = setting(
        ("custom_objects.py",),
        "what defines this model's layers, losses and metrics: files beside model.toml, or "
        '"package.module:attribute" of an installed package (a class, a function, a dict of them, or a '
        "function that returns such a dict); a later one wins",
    )
    loader: str = setting(
        "auto",
        "keras3; or tf_keras: serve an old file with Keras 2's own layers (pip install --no-deps tf_keras==2.21.0); "
        "auto: keras3, and tf_keras where it is installed and Keras 3 cannot load the file",
        choices=("auto", "keras3", "tf_keras"),
    )
    compile: bool = setting(False, "load loss, metrics and optimiser as well")
    architecture: str | None = setting(
        None,
        'for weights-only files: "model.json" (to_json of any Keras), "other.h5" (its architecture), or '
        '"builder:get_model" (builder.py in this folder)',
    )
    kernels: str = setting(
        "auto",
        "what computed the convolutions of a Keras 1 or 2 file, tensorflow or theano; auto: as the file says "
        "(Keras 1 does not), else tensorflow",
        choices=("auto", "tensorflow", "theano"),
    )
    allow_lambda: str | None = setting(
        None, '"sha256:..." of the file whose Lambda layers may run their stored code'
    )
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)


def read_model_config(path: Path) -> ModelConfig:
    """The settings in `path`, or the defaults where there is no such file.

    Raises:
        RepositoryError: not TOML, an unknown key, or an impossible value.
    """
    if not path.is_file():
        return ModelConfig()
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
        return build(ModelConfig, values, str(path))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RepositoryError(f"Expected TOML in {path}. Received: {error}.") from error
    except SettingsError as error:
        raise RepositoryError(error.message) from error
