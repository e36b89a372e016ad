"""Owns the values inside configs that JSON has no words for: tuples, shapes, arrays, dtypes and their policies.

Source: keras-team/tf-keras@v2.21.0 `tf_keras/saving/legacy/saved_model/json_utils.py`; keras-team/keras@2.2.4
`keras/engine/saving.py`, get_json_type.
"""

from __future__ import annotations

from typing import Any

from service.loading.legacy.record import Entry, Record, layer_name

_POLICIES = {"Policy", "PolicyV1", "DTypePolicy", "FloatDTypePolicy"}


def plain(value: Any) -> Any:
    """A copy of a config with lists for tuples, shapes and arrays, which is what Keras 3 takes for all of them."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = str(value.get("class_name"))
    if kind in {"__tuple__", "TensorShape"} and isinstance(value.get("items"), list):
        return plain(value["items"])
    if value.get("type") == "ndarray" and "value" in value:
        return value["value"]
    if (
        isinstance(value.get("type"), str)
        and value.get("type", "").startswith("float")
        and set(value) == {"type", "value"}
    ):
        return value["value"]
    return {key: plain(item) for key, item in value.items()}


def dtype_policy(entry: Entry, record: Record) -> None:
    """tf.keras 2.1-2.15: a policy is an object in the config; Keras 3 takes its name."""
    dtype = entry["config"].get("dtype")
    if isinstance(dtype, dict) and dtype.get("class_name") in _POLICIES:
        name = (dtype.get("config") or {}).get("name")
        entry["config"]["dtype"] = name
        if name != "float32":
            record.changed("dtype-policy", f"computes in {name}, as its policy says", layer_name(entry))
    if entry["config"].get("dtype", "") in (None, "infer"):
        del entry["config"]["dtype"]


def dtype_of_input(entry: Entry, record: Record) -> None:
    """Before Keras 2.3: a layer's `dtype` was its input's; its own numbers were always float32."""
    origin = record.origin
    spoken_for = str(origin.version).endswith("-tf") or entry["class_name"] == "InputLayer"
    if origin.before(2, 3) and not spoken_for:
        entry["config"].pop("dtype", None)
