"""Owns the repairs of recurrent layers that Keras 2 and tf.keras wrote.

Source: keras-team/keras@2.2.4 `keras/layers/recurrent.py` and `keras/layers/cudnn_recurrent.py`;
keras-team/tf-keras@v2.21.0 `tf_keras/layers/rnn/`.
"""

from __future__ import annotations

import copy
from typing import Any

from service.loading.legacy.record import Entry, Record, layer_name

_CUDNN: dict[str, tuple[str, dict[str, Any]]] = {
    "CuDNNLSTM": ("LSTM", {}),
    "CuDNNGRU": ("GRU", {"reset_after": True}),
}
_GATED = {"LSTM", "GRU", "LSTMCell", "GRUCell"}
RECURRENT = frozenset(
    [
        "RNN",
        "SimpleRNN",
        "LSTM",
        "GRU",
        "ConvLSTM1D",
        "ConvLSTM2D",
        "ConvLSTM3D",
        "Bidirectional",
        "TimeMajor",
    ]
)
"""Layers that take their initial states as further inputs."""


def cudnn(entry: Entry, record: Record) -> None:
    """Keras 2.0.9-2.2, tf.keras 1.x: layers for GPUs alone; LSTM and GRU with sigmoid gates compute the same."""
    if entry["class_name"] not in _CUDNN:
        return
    entry["class_name"], own = _CUDNN[entry["class_name"]]
    gates = {"activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True}
    entry["config"].update(gates | own)
    record.changed("cudnn", "the GPU-only recurrent layer runs as the general one", layer_name(entry))


def gru_before_reset_after(entry: Entry, record: Record) -> None:
    """Before Keras 2.1.5: GRU knew only what `reset_after=False` does now; the default has changed since."""
    if entry["class_name"] in {"GRU", "GRUCell"} and "reset_after" not in entry["config"]:
        entry["config"]["reset_after"] = False
        record.changed(
            "reset-after",
            "the reset gate acts before the product, as in this file's Keras",
            layer_name(entry),
        )


def gates_before_sigmoid(entry: Entry, record: Record) -> None:
    """Any config without `recurrent_activation`: the default was hard_sigmoid before Keras 2.3 and TF 2.0."""
    old = record.origin.major == 1 or str(record.origin.version).startswith(("2.0", "2.1", "2.2"))
    if old and entry["class_name"] in _GATED and "recurrent_activation" not in entry["config"]:
        entry["config"]["recurrent_activation"] = "hard_sigmoid"
        record.changed("gates", "gates are hard sigmoids, as in this file's Keras", layer_name(entry))


def time_major(entry: Entry, record: Record) -> None:
    """tf.keras 1.15-2.15: sequences with the time axis first; the layer is wrapped in one that turns them."""
    if not entry["config"].pop("time_major", False):
        return
    inner = copy.deepcopy({"class_name": entry["class_name"], "config": entry["config"]})
    inner["config"]["name"] = f"{layer_name(entry)}_batch_major"
    entry["class_name"] = "layertap>TimeMajor"
    entry["config"] = {"name": layer_name(entry), "layer": inner}
    record.changed(
        "time-major", "sequences with time first are turned before and after the layer", layer_name(entry)
    )
