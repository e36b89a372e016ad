"""Owns what configs say of activations: names, functions and layers used as functions.

Source: keras/src/activations/ of Keras 3.15.1; keras-team/keras@2.2.4 `keras/activations.py`.
"""

from __future__ import annotations

from typing import Any

from service.loading.legacy.record import Entry, Record, layer_name

KNOWN = frozenset(
    [
        *["celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_silu", "hard_swish", "hard_tanh"],
        *[
            "hard_sigmoid",
            "leaky_relu",
            "linear",
            "log_sigmoid",
            "log_softmax",
            "mish",
            "relu",
            "relu6",
            "selu",
        ],
        *[
            "sigmoid",
            "silu",
            "soft_shrink",
            "softmax",
            "softplus",
            "softsign",
            "sparse_plus",
            "sparse_sigmoid",
        ],
        *["sparsemax", "squareplus", "swish", "tanh", "tanh_shrink", "threshold"],
    ]
)
"""The names that Keras 3.15.1 has."""

HARD_SIGMOID = "layertap>hard_sigmoid"


def function(name: str) -> Entry:
    """A function that is registered under this name, as Keras 3 writes it."""
    return {"class_name": "function", "config": name, "module": None, "registered_name": name}


def hard_sigmoid(entry: Entry, record: Record) -> None:
    """All before Keras 3: `clip(0.2 x + 0.5, 0, 1)`; Keras 3 computes `relu6(x + 3) / 6` under the same name.

    Source: keras-team/keras@2.2.4 `keras/backend/tensorflow_backend.py`, hard_sigmoid.
    """
    for key in _keys(entry):
        if _name(entry["config"][key]) == "hard_sigmoid":
            entry["config"][key] = function(HARD_SIGMOID)
            record.changed("hard-sigmoid", "clip(0.2 x + 0.5, 0, 1), as before Keras 3", layer_name(entry))


def custom_activation(entry: Entry, record: Record) -> None:
    """Any: a name that is no activation of Keras is a function of custom_objects.py."""
    for key in _keys(entry):
        name = _name(entry["config"][key])
        if name is not None:
            known = name in KNOWN and name not in record.custom
            entry["config"][key] = name if known else function(name)


def _keys(entry: Entry) -> list[str]:
    return [key for key in ("activation", "recurrent_activation") if key in entry["config"]]


def _name(value: Any) -> str | None:
    """The name of an activation that is saved by name, alone or as a function object of tf.keras."""
    if isinstance(value, dict) and value.get("class_name") in {"function", "Function"}:
        value = value.get("config")
    return value if isinstance(value, str) else None
