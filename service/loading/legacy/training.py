"""Owns the losses, metrics and optimisers of `compile = true`, brought from older spellings to Keras 3's.

Serving needs none of them; what Keras 3 has no words for, as an optimiser's `decay`, is left out.

Source: keras-team/keras@2.2.4 `keras/engine/saving.py`, training_config; keras/src/legacy/saving/saving_utils.py
of Keras 3.15.1.
"""

from __future__ import annotations

from typing import Any

from service.loading.legacy.values import plain

_OPTIMIZER_ARGUMENTS = frozenset(
    [
        *[
            "learning_rate",
            "beta_1",
            "beta_2",
            "epsilon",
            "rho",
            "momentum",
            "nesterov",
            "centered",
            "amsgrad",
        ],
        *["name", "weight_decay", "clipnorm", "clipvalue", "global_clipnorm"],
    ]
)
_FUNCTIONS = {  # short and older names -> the function
    "mse": "mean_squared_error",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "msle": "mean_squared_logarithmic_error",
    "bce": "binary_crossentropy",
    "cosine": "cosine_similarity",
    "cosine_proximity": "cosine_similarity",
    "kld": "kl_divergence",
    "kullback_leibler_divergence": "kl_divergence",
    "logcosh": "log_cosh",
}
_CLASSES = {  # Keras 3 reads these metrics by class, not by function
    "mean_squared_error": "MeanSquaredError",
    "mean_absolute_error": "MeanAbsoluteError",
    "mean_absolute_percentage_error": "MeanAbsolutePercentageError",
    "mean_squared_logarithmic_error": "MeanSquaredLogarithmicError",
    "binary_crossentropy": "BinaryCrossentropy",
}
_WRAPPERS = {"MeanMetricWrapper", "LossFunctionWrapper"}
_DROPPED = {"fn", "axis", "dtype"}


def training(config: dict[str, Any]) -> dict[str, Any]:
    """A copy of a file's training_config in Keras 3's words."""
    found: dict[str, Any] = plain(config)
    if "module" in (config.get("optimizer_config") or {}):
        return config  # Keras 3 wrote it
    if isinstance(found.get("optimizer_config"), dict):
        found["optimizer_config"] = _optimizer(found["optimizer_config"])
    found["loss"] = _measure(found.get("loss"), metric=False)
    for key in ("metrics", "weighted_metrics"):
        found[key] = _measure(found.get(key), metric=True)
    return found


def _optimizer(entry: dict[str, Any]) -> dict[str, Any]:
    config = dict(entry.get("config") or {})
    if "lr" in config:
        config["learning_rate"] = config.pop("lr")
    kept = {key: value for key, value in config.items() if key in _OPTIMIZER_ARGUMENTS and value is not None}
    return {"class_name": entry.get("class_name"), "config": kept}


def _measure(value: Any, *, metric: bool) -> Any:
    """A loss or metric, in any nesting of lists and dicts."""
    if isinstance(value, list):
        return [_measure(item, metric=metric) for item in value]
    if isinstance(value, str):
        return _named(value, metric=metric)
    if not isinstance(value, dict):
        return value
    if "class_name" in value:
        return _object(value, metric=metric)
    return {key: _measure(item, metric=metric) for key, item in value.items()}


def _named(name: str, *, metric: bool) -> Any:
    function = _FUNCTIONS.get(name, name)
    if metric and function in _CLASSES:
        return {"class_name": _CLASSES[function], "config": {"name": name}}
    return function


def _object(entry: dict[str, Any], *, metric: bool) -> Any:
    config = dict(entry.get("config") or {})
    if entry["class_name"] in _WRAPPERS and isinstance(config.get("fn"), str):
        return _named(config["fn"], metric=metric)
    if isinstance(config.get("fn"), dict):
        return (
            entry  # the functions of custom objects are written as objects, which Keras 3 reads as they are
        )
    if config.get("reduction") == "auto":
        config["reduction"] = "sum_over_batch_size"
    kept = {key: item for key, item in config.items() if key not in _DROPPED}
    return {"class_name": entry["class_name"], "config": kept}
