"""Owns Sequential models: their two spellings, and the input layer that old ones leave to their first layer.

Source: keras-team/keras@2.2.2 and 2.2.4 `keras/engine/sequential.py`, get_config; keras/src/models/sequential.py
of Keras 3.15.1.
"""

from __future__ import annotations

from typing import Any

from service.loading.legacy.record import Entry, Record, layer_name

_SEQUENCES = {
    "LSTM",
    "GRU",
    "SimpleRNN",
    "CuDNNLSTM",
    "CuDNNGRU",
    "Convolution1D",
    "Conv1D",
    "TimeDistributedDense",
}


def listed_sequential(entry: Entry, record: Record) -> None:
    """Before Keras 2.2.3: the config of a Sequential is the bare list of its layers."""
    if entry["class_name"] == "Sequential" and isinstance(entry["config"], list):
        entry["config"] = {"name": entry.get("name") or "sequential", "layers": entry["config"]}
        record.changed("sequential-list", "the bare list of layers becomes a config", "")


def input_layer(entry: Entry, record: Record) -> None:
    """Before Keras 3: the first layer may carry the model's input shape, with the batch axis."""
    if entry["class_name"] != "Sequential" or not isinstance(entry["config"], dict):
        return
    layers = entry["config"].get("layers")
    if not layers or layers[0]["class_name"] == "InputLayer":
        return
    first = layers[0]
    shape, dtype = _input_of(first)
    if shape is None:
        shape = entry["config"].get("build_input_shape")
    if not isinstance(shape, list):
        return
    own = {"name": f"{layer_name(first)}_input", "batch_input_shape": list(shape), "dtype": dtype}
    layers.insert(0, {"class_name": "InputLayer", "config": own})
    record.changed(
        "input-layer", "the input shape of the first layer becomes an input layer", layer_name(first)
    )


def _input_of(entry: Entry) -> tuple[Any, str]:
    """The batch shape and the dtype that a first layer says it takes; of a nested model, its first layer's."""
    config = entry["config"]
    if isinstance(config, list):  # a Sequential in a Sequential, as a bare list
        return _input_of(config[0])
    if "batch_input_shape" in config or "batch_shape" in config:
        shape = config.get("batch_input_shape") or config.get("batch_shape")
        return shape, _dtype(config)
    if "input_layers" in config and len(config["input_layers"]) == 1:
        name = config["input_layers"][0][0]
        return _input_of(next(layer for layer in config["layers"] if layer.get("name") == name))
    if config.get("layers") and "input_layers" not in config:
        return _input_of(config["layers"][0])
    if isinstance(config.get("input_dim"), int) and "output_dim" in config:
        return _keras1_shape(entry), _dtype(config)
    return None, "float32"


def _keras1_shape(entry: Entry) -> list[int | None]:
    """Keras 1 wrote `input_dim` and `input_length` beside the shape; alone they say as much."""
    config, kind = entry["config"], entry["class_name"]
    if kind == "Embedding":
        return [None, config.get("input_length")]
    if kind in _SEQUENCES:
        return [None, config.get("input_length"), config["input_dim"]]
    return [None, config["input_dim"]]


def _dtype(config: dict[str, Any]) -> str:
    dtype = config.get("input_dtype") or config.get("dtype")
    if isinstance(dtype, dict):
        dtype = (dtype.get("config") or {}).get("name")
    if not isinstance(dtype, str) or dtype.startswith("mixed_"):
        return "float32"
    return dtype


def input_arguments(entry: Entry, record: Record) -> None:
    """Before Keras 3: an InputLayer's shape has another name, ragged inputs are said explicitly."""
    if entry["class_name"] != "InputLayer":
        return
    config = entry["config"]
    if "batch_input_shape" in config:
        config["batch_shape"] = config.pop("batch_input_shape")
    if config.get("input_dtype"):
        config["dtype"] = config.pop("input_dtype")
    if record.frees_batch and config.get("batch_shape") and config["batch_shape"][0] is not None:
        config["batch_shape"] = [None, *config["batch_shape"][1:]]
        record.changed(
            "batch-size", "any number of rows, not the one size that it was built for", layer_name(entry)
        )
