"""Owns what a config may hold before `tf_keras` builds anything from it, and what is changed in it for that.

`tf_keras` looks classes up in any module that a config names and turns names of TensorFlow functions into calls,
writing files among them. So only an explicit list of modules, layers and functions passes here. Stored Python
code never does, not even with `allow_lambda`. It builds nothing and imports neither library.

Source: tf_keras/src/saving/serialization_lib.py (`_retrieve_class_or_fn`), tf_keras/src/layers/core/tf_op_layer.py
and tf_keras/src/saving/legacy/hdf5_format.py of tf_keras 2.21.0.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

from service.errors import LoadError
from service.loading.vetting import entries, stored_code

_MODULES = frozenset(
    [
        *[
            "builtins",
            "keras",
            "keras.activations",
            "keras.constraints",
            "keras.initializers",
            "keras.layers",
        ],
        *["keras.mixed_precision", "keras.models", "keras.regularizers"],
    ]
)
_GADGETS = frozenset(
    ["ClassMethod", "InstanceMethod", "InstanceProperty", "TensorFlowOpLayer", "AddLoss", "AddMetric"]
)
_LOOKUPS = frozenset(["IntegerLookup", "StringLookup", "TextVectorization"])
_FUNCTION_LAYERS = frozenset(["TFOpLambda", "SlicingOpLambda"])
_FUNCTION_MODULES = (
    "__operators__.",
    "linalg.",
    "math.",
    "nn.",
    "signal.",
    "compat.v1.math.",
    "compat.v1.nn.",
)
_FUNCTIONS = frozenset(
    [
        *[
            "argsort",
            "boolean_mask",
            "broadcast_to",
            "cast",
            "clip_by_norm",
            "clip_by_value",
            "concat",
            "cumsum",
        ],
        *["einsum", "expand_dims", "eye", "fill", "gather", "gather_nd", "identity", "image.resize", "norm"],
        *[
            "one_hot",
            "ones",
            "ones_like",
            "pad",
            "range",
            "rank",
            "repeat",
            "reshape",
            "reverse",
            "roll",
            "scan",
        ],
        *["sequence_mask", "shape", "size", "slice", "sort", "split", "squeeze", "stack", "stop_gradient"],
        *["strided_slice", "tensordot", "tile", "transpose", "unstack", "where", "zeros", "zeros_like"],
        *[
            "compat.v1.concat",
            "compat.v1.expand_dims",
            "compat.v1.gather",
            "compat.v1.shape",
            "compat.v1.size",
        ],
        *["compat.v1.squeeze", "compat.v1.transpose", "compat.v1.where", "compat.v1.pad", "compat.v1.tile"],
        *["image.resize_with_pad", "image.adjust_contrast", "image.per_image_standardization"],
        *["image.rgb_to_grayscale", "keras.activations.relu", "keras.backend.cast"],
    ]
) - {"scan"}  # it calls what it is given
_CUDNN = {"CuDNNLSTM": ("LSTM", {}), "CuDNNGRU": ("GRU", {"reset_after": True})}
_TRAINING_ONLY = ("_initializer", "_regularizer", "_constraint")


def refuse_for_tf_keras(config: Any, offered: Collection[str] = ()) -> None:
    """Checks that `tf_keras` would run nothing but layers on this config.

    Args:
        config: as it stands in the file.
        offered: the names of the operator's own classes and functions, which may be of any module.

    Raises:
        LoadError: it holds Python code, or names a module, layer or function that is not on the list.
    """
    found = stored_code(config)
    for entry in entries(config):
        kind, module = entry["class_name"], entry.get("module")
        inner = entry["config"] if isinstance(entry["config"], dict) else {}
        is_known = module is None or (isinstance(module, str) and module in _MODULES)
        if not is_known and not _is_offered(entry, offered):
            found.append(f"{kind} of module {module}")
        elif not isinstance(kind, str) or kind in _GADGETS:
            found.append(f"a layer that calls methods by name ({kind})")
        elif kind in _FUNCTION_LAYERS and not _is_listed(inner.get("function")):
            found.append(f"a call of TensorFlow's {inner.get('function')!r}")
        elif kind in _FUNCTION_LAYERS and not _waits(entry.get("inbound_nodes")):
            found.append(f"a {kind} that is computed while the model is built")
        elif kind in _LOOKUPS and not isinstance(inner.get("vocabulary"), list | None):
            found.append(f"a {kind} that reads a file")
    if found:
        raise LoadError(
            f"Expected layers and no code, as tf_keras may run it. Received: {', '.join(dict.fromkeys(found))}.",
            mend="Save the model without them where it was trained.",
        )


def _is_offered(entry: Mapping[str, Any], offered: Collection[str]) -> bool:
    """Whether `tf_keras` takes the operator's object for it before it looks into the module."""
    name = entry["config"] if entry["class_name"] == "function" else entry.get("registered_name")
    return isinstance(name, str) and name in offered


def _is_listed(function: Any) -> bool:
    return isinstance(function, str) and (function in _FUNCTIONS or function.startswith(_FUNCTION_MODULES))


def _waits(nodes: Any) -> bool:
    return nodes is None or (isinstance(nodes, list) and all(map(_takes_a_tensor, nodes)))


def _takes_a_tensor(node: Any) -> bool:
    """Whether a call waits for the model's input: on constants alone it would run at once, of any size.

    A tensor is `[layer, node, place, ...]`, a constant `["_CONSTANT_VALUE", -1, value, ...]`.
    """
    if isinstance(node, dict):
        return any(map(_takes_a_tensor, node.values()))
    if not isinstance(node, list):
        return False
    names = node[:1] if len(node) > 2 and isinstance(node[0], str) and isinstance(node[1], int) else []
    return any(name != "_CONSTANT_VALUE" for name in names) or any(map(_takes_a_tensor, node))


def as_keras2(config: Mapping[str, Any], layers: Collection[str]) -> dict[str, Any]:
    """A copy that `tf_keras` builds as Keras 2 built it, without what only training needs.

    GRU had no `reset_after` before Keras 2.1.5, and the layers that ran on cuDNN alone computed with sigmoid.

    Args:
        config: `{"class_name": ..., "config": ...}` of Keras 2 or tf.keras.
        layers: the class names of Keras' own layers; what others store is theirs.
    """
    changed = copy.deepcopy(dict(config))
    for entry in entries(changed):
        inner = entry["config"]
        if entry["class_name"] not in layers or not isinstance(inner, dict):
            continue
        if entry["class_name"] in _CUDNN:
            entry["class_name"], more = _CUDNN[entry["class_name"]]
            inner |= {"activation": "tanh", "recurrent_activation": "sigmoid", **more}
        if entry["class_name"] in {"GRU", "GRUCell"}:
            inner.setdefault("reset_after", False)
        if entry["class_name"] == "Lambda":
            inner |= {key: None for key in ("module", "output_shape_module", "mask_module") if key in inner}
        for key in inner:
            if key.endswith(_TRAINING_ONLY):
                inner[key] = "zeros" if key.endswith("_initializer") else None
    return changed
