"""Owns the judgement of a saved config before anything is built from it: stored code, and classes from elsewhere.

A config is JSON that names classes and functions. Only Keras' own modelling modules and the custom objects may
be named; Python code stored in it (Lambda bytecode) and layers that load programs from paths are refused unless
the operator allows that very file. It builds nothing and knows no Keras.

Source: keras/src/saving/serialization_lib.py (`_retrieve_class_or_fn`), keras/src/legacy/saving/saving_utils.py
and keras/src/layers/core/lambda_layer.py of Keras 3.15.1.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from service.errors import LoadError

_MODULES = frozenset(
    [
        "activations",
        "constraints",
        "dtype_policies",
        "engine",  # where Keras 2 had its models
        "initializers",
        "layers",
        "losses",
        "metrics",
        "mixed_precision",
        "models",
        "ops",
        "optimizers",
        "quantizers",
        "random",
        "regularizers",
        "src",  # Keras takes only its own serialisable classes from there
    ]
)
_PROGRAM_LAYERS = frozenset(["TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"])
_LAYER_KEYS = frozenset(["", "layers", "layer", "cell", "cells", "forward_layer", "backward_layer"])
_VALUES = frozenset(
    [
        "__bytes__",
        "__ellipsis__",
        "__keras_tensor__",
        "__lambda__",  # `stored_code` judges it
        "__numpy__",
        "__slice__",
        "__tensor__",
        "__tuple__",
        "__typespec__",  # Keras finds no class outside its own modules for it
    ]
)
_LAMBDA_PARTS = ("function", "output_shape", "mask")

Place = tuple[str, dict[str, Any]]


def stored_code(config: Any) -> list[str]:
    """The layers and objects whose Python code lies in the config itself, for messages."""
    found = []
    for key, entry in _objects(config):
        kind, inner = entry["class_name"], entry["config"]
        if not isinstance(kind, str):
            continue  # `refuse_strangers` does
        if kind == "__lambda__":
            found.append(f"a Python lambda at '{key}'")
        elif kind in _PROGRAM_LAYERS:
            found.append(f"a {kind}")
        elif (
            kind == "Lambda"
            and isinstance(inner, dict)
            and any(_is_code(inner, part) for part in _LAMBDA_PARTS)
        ):
            found.append(f"the Lambda layer '{inner.get('name')}'")
    return list(dict.fromkeys(found))


def _is_code(inner: dict[str, Any], part: str) -> bool:
    """Whether this part of a Lambda is bytecode, in one of the forms of Keras 1 to 3, and not a name."""
    value = inner.get(part)
    if isinstance(value, dict):
        return value.get("class_name") == "__lambda__"
    by_name = inner.get(f"{part}_type") == "function"
    if part == "function":
        return not (isinstance(value, str) and by_name)
    return inner.get(f"{part}_type") == "lambda"


def refuse_strangers(config: Any, *, layers: Collection[str], offered: Collection[str]) -> None:
    """Checks that everything the config names is Keras' own or a custom object.

    Args:
        config: as it stands in the file.
        layers: the class names of Keras' layers and models.
        offered: the names of the custom objects, as they are and as `package>Name`.

    Raises:
        LoadError: names every class and function that is neither.
    """
    found = [
        name
        for key, entry in _objects(config)
        if (name := _stranger(key, entry, layers, offered)) is not None
    ]
    if found:
        raise strangers(found)


def strangers(found: Sequence[str]) -> LoadError:
    """The error that names classes and functions which nobody defines."""
    listed = list(dict.fromkeys(found))
    plain = ", ".join(name.split(" ")[0].rpartition(">")[2] for name in listed)
    return LoadError(
        f"Expected classes and functions of Keras or of a custom_objects.py. Received: {', '.join(listed)}.",
        mend=f"Define {plain} in custom_objects.py beside the model, or in the one shared by all models.",
    )


def names(config: Any) -> set[str]:
    """Every class and function name in a config, plain and as `package>Name`."""
    found: list[Any] = []
    for _, entry in _objects(config):
        found += [entry["class_name"], entry.get("registered_name")]
        if entry["class_name"] == "function":
            found.append(entry["config"])
    return {name for name in found if isinstance(name, str)} - {"function"}


def _stranger(
    key: str, entry: dict[str, Any], layers: Collection[str], offered: Collection[str]
) -> str | None:
    kind, module = entry["class_name"], entry.get("module", "")
    is_function = kind == "function"
    name = entry["config"] if is_function else kind
    if not isinstance(name, str):
        return repr(name)
    known = (name, "" if is_function else entry.get("registered_name"))
    is_value = name in _VALUES and not is_function
    if is_value or any(isinstance(word, str) and word in offered for word in known):
        return None
    if module == "":  # the dialect of Keras 1 and 2, and of .h5 files: layers by name alone
        is_layer = key in _LAYER_KEYS or "__passive_serialization__" in entry
        return name if is_layer and name not in layers else None
    if _is_keras(module) and name.isidentifier():
        return None
    if module == "builtins" and is_function:
        return None  # Keras looks such a name up among its own functions only
    return f"{name} (saved from module {module})" if module else name


def _is_keras(module: Any) -> bool:
    if not isinstance(module, str):
        return False
    root, *inner = module.split(".")
    return root == "keras" and (not inner or inner[0] in _MODULES)


def without_compilation(config: Any) -> Any:
    """A copy without the losses, metrics and optimisers of the model and of models nested in it."""
    if isinstance(config, dict):
        return {key: without_compilation(value) for key, value in config.items() if key != "compile_config"}
    if isinstance(config, list):
        return [without_compilation(value) for value in config]
    return config


def _objects(config: Any) -> Iterator[Place]:
    """Every serialised object in a config with the key that it stands under, in file order."""
    waiting: list[tuple[str, Any]] = [("", config)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            if "class_name" in value and "config" in value:
                yield key, value
            waiting += [(str(name), item) for name, item in reversed(value.items())]
        elif isinstance(value, list):
            waiting += [(key, item) for item in reversed(value)]
