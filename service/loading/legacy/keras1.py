"""Owns the Keras 1 spelling of layers: their class names, arguments and values, brought to those of Keras 2.

Source: keras-team/keras@1.0.8, 1.1.2 and 1.2.2 `keras/layers/`, and keras-team/keras@2.0.8
`keras/legacy/interfaces.py` for the pairs of old and new arguments.
"""

from __future__ import annotations

from typing import Any

from service.loading.legacy.record import Entry, Record, layer_name, unrepairable

CLASSES = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "AtrousConv1D": "Conv1D",
    "AtrousConv2D": "Conv2D",
    "SeparableConvolution2D": "SeparableConv2D",
    "Deconvolution2D": "layertap>Deconvolution2D",
    "Deconv2D": "layertap>Deconvolution2D",
    "TimeDistributedDense": "Dense",  # Dense works on the last axis of any rank since Keras 2
    "Highway": "layertap>Highway",
    "MaxoutDense": "layertap>MaxoutDense",
    "SReLU": "layertap>SReLU",
    "ParametricSoftplus": "layertap>ParametricSoftplus",
}

ARGUMENTS = {
    "output_dim": "units",
    "bias": "use_bias",
    "init": "kernel_initializer",
    "inner_init": "recurrent_initializer",
    "inner_activation": "recurrent_activation",
    "forget_bias_init": "unit_forget_bias",
    "W_regularizer": "kernel_regularizer",
    "U_regularizer": "recurrent_regularizer",
    "b_regularizer": "bias_regularizer",
    "W_constraint": "kernel_constraint",
    "U_constraint": "recurrent_constraint",
    "b_constraint": "bias_constraint",
    "beta_init": "beta_initializer",
    "gamma_init": "gamma_initializer",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
    "nb_filter": "filters",
    "filter_length": "kernel_size",
    "subsample": "strides",
    "subsample_length": "strides",
    "atrous_rate": "dilation_rate",
    "border_mode": "padding",
    "dim_ordering": "data_format",
    "pool_length": "pool_size",
    "stride": "strides",
    "length": "size",
    "p": "rate",
    "sigma": "stddev",
    "nb_feature": "features",
    "input_dtype": "dtype",
}

_OWN_ARGUMENTS = {  # where the table above does not hold
    "Embedding": {
        "output_dim": "output_dim",
        "dropout": "dropout",
        "W_regularizer": "embeddings_regularizer",
        "W_constraint": "embeddings_constraint",
        "init": "embeddings_initializer",
    },
    "PReLU": {"init": "alpha_initializer"},
}
_KERNEL_SIZES = (("nb_row", "nb_col"), ("kernel_dim1", "kernel_dim2", "kernel_dim3"))
_ORDERINGS = {"tf": "channels_last", "th": "channels_first", "default": None}
_TRAINING_ONLY = ("consume_less", "weights")


_WORDS = frozenset(
    ["output_dim", "nb_filter", "border_mode", "init", "input_dtype", "pool_length", "p", "mode_type"]
)


def wrote(model: dict[str, Any]) -> bool:
    """Whether a config without a version is in Keras 1's words."""
    waiting: list[Any] = [model]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            config = item.get("config")
            is_embedding = item.get("class_name") == "Embedding"  # its output_dim is of every Keras
            if isinstance(config, dict) and not is_embedding and not _WORDS.isdisjoint(config):
                return True
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return False


def from_keras1(entry: Entry, record: Record) -> None:
    """Keras 1 (before 2.0): classes and arguments by the tables above; modes that changed in Keras 2."""
    if record.origin.major != 1:
        return
    kind = entry["class_name"]
    batch_normalization_modes(entry, record)
    _arguments(kind, entry["config"])
    if kind in CLASSES:
        entry["class_name"] = CLASSES[kind]
    record.changed("keras1", "names of Keras 1 are read as those of Keras 2", "")
    if kind in CLASSES and not kind.startswith("Convolution"):
        record.changed(
            "keras1-layers", f"{kind} runs as {CLASSES[kind].rpartition('>')[2]}", layer_name(entry)
        )


def _arguments(kind: str, config: dict[str, Any]) -> None:
    renamed = dict(ARGUMENTS, **_OWN_ARGUMENTS.get(kind, {}))
    for key in list(config):
        if (new := renamed.get(key, key)) != key:
            config.setdefault(new, config.pop(key))
    for key in _TRAINING_ONLY:
        config.pop(key, None)
    for parts in _KERNEL_SIZES:
        if all(part in config for part in parts):
            config["kernel_size"] = [config.pop(part) for part in parts]
    if config.get("data_format") in _ORDERINGS:
        config["data_format"] = _ORDERINGS[config["data_format"]]
    if "unit_forget_bias" in config:
        config["unit_forget_bias"] = config["unit_forget_bias"] == "one"
    for change in (_zero_padding, _word_dropout):
        change(kind, config)


def _zero_padding(kind: str, config: dict[str, Any]) -> None:
    """`[top, bottom, left, right]` and `{"top_pad": ...}` (1.1 and later) to pairs an axis."""
    padding = config.get("padding")
    if kind == "ZeroPadding1D" and isinstance(padding, dict):
        config["padding"] = [padding.get("left_pad", 0), padding.get("right_pad", 0)]
    elif kind == "ZeroPadding2D" and isinstance(padding, dict):
        sides = [padding.get(f"{side}_pad", 0) for side in ("top", "bottom", "left", "right")]
        config["padding"] = [sides[:2], sides[2:]]
    elif kind == "ZeroPadding2D" and isinstance(padding, list) and len(padding) == 4:
        config["padding"] = [padding[:2], padding[2:]]


def _word_dropout(kind: str, config: dict[str, Any]) -> None:
    """Dropout of whole words acts in training only."""
    if kind == "Embedding":
        config.pop("dropout", None)


def batch_normalization_modes(entry: Entry, record: Record) -> None:
    """Keras 1: mode 1 normalises each row by itself, mode 2 by its batch, also when it predicts."""
    if entry["class_name"] != "BatchNormalization":
        return
    mode = entry["config"].pop("mode", 0)
    if mode == 1:
        entry["class_name"] = "layertap>RowNormalization"
        record.changed(
            "batchnorm-mode",
            "mode 1 of Keras 1, which normalises each row, is computed as there",
            layer_name(entry),
        )
    elif mode != 0:
        raise unrepairable(
            entry,
            f"mode {mode}, which lets the rows of a batch change each other's results",
            "Train it again with mode 0 or 1; its answers depend on which rows happen to be asked for together.",
        )
