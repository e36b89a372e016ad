"""Owns the arguments that Keras 3's layers take, and which of an old config's others may be dropped.

What only matters in training goes first: initialisers, regularisers and constraints, the usual reason why a
file needs classes that nobody has. Of what is left, an argument that Keras 3 does not take is dropped if it does
not change what the layer computes, and refused otherwise.

`keras3_arguments.json` holds class -> arguments of Keras 3.15.1, written by
`python tests/parity/test_legacy_arguments.py`; the test in that file compares it with the installed Keras.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from service.loading.legacy.record import Entry, Record, layer_name, unrepairable

TABLE = "keras3_arguments.json"

MERGES = frozenset(["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"])
"""Layers whose masks Keras 3 merges otherwise than its forerunners; this package has them of the same name."""

_TRAINING = ("_initializer", "_regularizer", "_constraint", "_init")
_ALSO_TRAINING = {
    "activity_regularizer",
    "noise_shape",
    "seed",
    "transform_bias",
    "unit_forget_bias",
    "weights",
}
_SILENT = frozenset(  # said by every file of its time; nothing to report
    [
        *[
            "autocast",
            "batch_input_shape",
            "batch_shape",
            "build_input_shape",
            "dtype",
            "experimental_autocast",
        ],
        *["input_dim", "input_dtype", "input_length", "input_shape", "name", "optional", "trainable"],
        *[
            "data_format",
            "dynamic",
            "force_generator",
            "fused",
            "implementation",
            "ragged",
            "rng_type",
            "sparse",
        ],
        *["key_shape", "query_shape", "value_shape", "softmax_robust_masking"],
    ]
)
_INSTEAD: Mapping[str, tuple[Any, ...]] = {  # the values with which an argument may be dropped
    "groups": (1, None),
    "dilation_rate": (1, [1], [1, 1], [1, 1, 1], None),
    "output_padding": (None,),
    "keepdims": (False, None),
    "time_major": (False, None),
    "causal": (False, None),
    "return_attention_scores": (False, None),
    "virtual_batch_size": (None,),
    "ragged": (False, None),
    "sparse": (False, None),
    "num_constants": (None, 0),
    "data_format": ("channels_last", None),
    "mask": (None,),
}
_DEAD_WEIGHT = {  # arguments that name what acts in training only, by class
    "BatchNormalization": {"virtual_batch_size"},
    "Identity": {"factor", "height_factor", "width_factor", "interpolation"},
    "layertap>RowNormalization": {"momentum"},
}
_CONVOLUTION = {"filters", "kernel_size", "strides", "padding", "data_format", "activation", "use_bias"}
_OWN = {  # what this package's own layers take
    "CornerUpSampling2D": {"size", "data_format"},
    "Cosine": {"axes"},
    "Deconvolution2D": _CONVOLUTION | {"output_shape"},
    "Highway": {"activation", "use_bias"},
    "LocallyConnected1D": _CONVOLUTION,
    "LocallyConnected2D": _CONVOLUTION,
    "MaxoutDense": {"units", "features", "use_bias"},
    "ParametricSoftplus": {"shared_axes"},
    "RowNormalization": {"epsilon", "axis"},
    "SReLU": {"shared_axes"},
    "TensorFlowOperator": {"symbol"},
    "ThresholdedReLU": {"theta"},
    "TimeMajor": {"layer"},
}
_EVERY = frozenset(["name", "trainable", "dtype"])


@cache
def taken() -> dict[str, frozenset[str]]:
    """Class of Keras' layers, or of this package's as `layertap>Name` -> the arguments of its constructor."""
    text = resources.files(__package__).joinpath(TABLE).read_text(encoding="utf-8")
    found = {name: frozenset(arguments) for name, arguments in json.loads(text).items()}
    found |= {f"layertap>{name}": _EVERY | arguments for name, arguments in _OWN.items()}
    return found | {f"layertap>{name}": found[name] for name in MERGES}


def training_only(entry: Entry, _: Record) -> None:
    """Any: what only matters in training; weights come from the file, so zeros are the cheapest start."""
    known = taken().get(entry["class_name"], frozenset())
    config = entry["config"]
    for key in list(config):
        if key.endswith(_TRAINING) or key in _ALSO_TRAINING:
            del config[key]
    if entry["class_name"] not in {"BatchNormalization", "Normalization"}:
        config |= {key: "zeros" for key in known if key.endswith("_initializer")}


def unknown_arguments(entry: Entry, record: Record) -> None:
    """All before Keras 3: arguments that Keras 3's class does not take.

    Raises:
        LoadError: dropping one would change what the layer computes.
    """
    known = taken().get(entry["class_name"])
    if known is None:
        return
    config, dead = entry["config"], _DEAD_WEIGHT.get(entry["class_name"], set())
    for key in [key for key in config if key not in known]:
        value = config.pop(key)
        harmless = key in dead or (value in _INSTEAD[key] if key in _INSTEAD else key in _SILENT)
        if not harmless:
            raise unrepairable(
                entry,
                f"{key}={value!r}, which Keras 3 does not know",
                "Serve it through tf_keras, or build the layer without it and save the model again.",
            )
        if key not in _SILENT:
            record.changed("arguments", f"{key} is left out, as it changes nothing here", layer_name(entry))


def custom_config(entry: Entry, _: Record) -> None:
    """All before Keras 3: what Keras 3's `Layer` does not take, and what training alone reads, in custom layers."""
    config = entry["config"]
    for key in ("batch_input_shape", "input_dtype", "dynamic"):
        config.pop(key, None)
    for key, value in config.items():
        if key.endswith(("_regularizer", "_constraint")):
            config[key] = None
        inner = value.get("config") if isinstance(value, dict) else None
        if isinstance(inner, dict) and inner.get("distribution") == "normal":
            inner["distribution"] = "truncated_normal"  # VarianceScaling's word for it since Keras 2.2.5
