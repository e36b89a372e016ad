"""Owns the judgement of a saved config before anything is built from it: stored code, and classes from elsewhere.

A config is JSON that names classes and functions. Only Keras' own modelling modules and the custom objects may
be named; Python code stored in it (Lambda bytecode) and layers that load programs from paths are refused unless
the operator allows that very file. It builds nothing and knows no Keras.

Source: keras/src/saving/serialization_lib.py (`_retrieve_class_or_fn`), keras/src/legacy/saving/saving_utils.py
and keras/src/layers/core/lambda_layer.py of Keras 3.15.1.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from types import MappingProxyType
from typing import Any

from service.errors import LoadError
from service.loading.stubs import FUNCTION, LAYER, OBJECT, Need, Weights, stub

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
    ]
)
_ARRAYS = ("__numpy__", "__tensor__")
_LOOKUPS = ("StringLookup", "IntegerLookup", "TextVectorization")
PROGRAM_LAYERS = frozenset(["TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"])
"""Layers that load a program from a path or from their config."""

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
_ACTIVATION_KEYS = ("activation", "recurrent_activation")
_PLACES = 5  # layers told for one name
_LAMBDA_PARTS = ("function", "output_shape", "mask")

Place = tuple[str, dict[str, Any], str | None]


def stored_code(config: Any) -> list[str]:
    """The layers and objects whose Python code lies in the config itself, for messages."""
    found = []
    for key, entry, _ in _objects(config):
        kind, inner = entry["class_name"], entry["config"]
        if not isinstance(kind, str):
            continue  # `refuse_strangers` does
        if kind == "__lambda__":
            found.append(f"a Python lambda at '{key}'")
        elif kind in PROGRAM_LAYERS:
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


def refuse_strangers(
    config: Any,
    *,
    layers: Collection[str],
    offered: Collection[str],
    activations: Collection[str] | None = None,
    weights: Weights = MappingProxyType({}),
) -> None:
    """Checks that everything the config names is Keras' own or a custom object.

    Args:
        config: as it stands in the file.
        layers: the class names of Keras' layers and models.
        offered: the names of the custom objects, as they are and as `package>Name`.
        activations: the names of Keras' activations; `None` leaves names of activations alone.
        weights: what the file holds for each layer, for the stub in the error.

    Raises:
        LoadError: names every class and function that is neither, with the layer that needs it and a stub.
    """
    if found := missing(config, layers=layers, offered=offered, activations=activations):
        raise strangers(found, weights)
    refuse_other_files(config)


def refuse_other_files(config: Any) -> None:
    """Checks that all values are in the config itself: numbers as numbers, and words as lists.

    A file of words would be read, and its lines come out as predictions. An array of Python objects is nothing that
    Keras writes.

    Raises:
        LoadError: names the layer and the file, or the value.
    """
    for key, entry, layer in _objects(config):
        inner = entry["config"]
        dtype = inner.get("dtype", "") if entry["class_name"] in _ARRAYS and isinstance(inner, dict) else ""
        if not isinstance(dtype, str) or dtype in {"object", "O", "|O"}:
            raise LoadError(
                f"Expected numbers at '{key}' of the layer '{layer}'. Received: an array of dtype {dtype!r:.80}.",
                mend="Give the layer numbers and save the model again.",
            )
        value = (
            inner.get("vocabulary") if isinstance(inner, dict) and entry["class_name"] in _LOOKUPS else None
        )
        if isinstance(value, str):
            raise LoadError(
                f"Expected a vocabulary in the file itself. Received: the {entry['class_name']} '{inner.get('name')}' "
                f"with the file {value[:200]!r}.",
                mend="Give the layer its vocabulary as a list and save the model again.",
            )


def missing(
    config: Any,
    *,
    layers: Collection[str],
    offered: Collection[str],
    activations: Collection[str] | None = None,
) -> list[Need]:
    """What the config names and neither Keras nor a custom object defines, in the file's order."""
    found = []
    for key, entry, layer in _objects(config):
        if (name := _stranger(key, entry, layers, offered)) is not None:
            found.append(_need(key, entry, name, layer))
        elif activations is not None and entry["class_name"] in layers:
            known = {*activations, *offered}
            unknown = [name for name in _activations(entry["config"]) if name not in known]
            found += [Need(name, name, FUNCTION, _name_of(entry) or layer) for name in unknown]
    return found


def strangers(found: Sequence[Need], weights: Weights = MappingProxyType({})) -> LoadError:
    """The error that names classes and functions which nobody defines."""
    shown: dict[str, list[str]] = {}
    for need in found:
        shown.setdefault(need.saved, []).extend([f"'{need.layer}'"] if need.layer else [])
    listed = [_with_places(saved, places) for saved, places in shown.items()]
    plain = ", ".join(dict.fromkeys(need.name for need in found))
    return LoadError(
        f"Expected classes and functions of Keras or of a custom_objects.py. Received: {', '.join(listed)}.",
        mend=f"Define {plain} in custom_objects.py beside the model, or in the one shared by all models. "
        f"To fill in:\n\n{stub(found, weights)}",
    )


def _with_places(saved: str, layers: Sequence[str]) -> str:
    unique = list(dict.fromkeys(layers))
    told = ", ".join(unique[:_PLACES]) + (", ..." if len(unique) > _PLACES else "")
    if not told:
        return saved
    return f"{saved[:-1]}; layer {told})" if saved.endswith(")") else f"{saved} (layer {told})"


def _need(key: str, entry: dict[str, Any], saved: str, layer: str | None) -> Need:
    plain = saved.split(" ", maxsplit=1)[0].rpartition(">")[2]
    if entry["class_name"] == "function":
        return Need(plain, saved, FUNCTION, layer)
    arguments = entry["config"] if isinstance(entry["config"], dict) else {}
    is_layer = key in _LAYER_KEYS
    return Need(
        plain, saved, LAYER if is_layer else OBJECT, _name_of(entry) if is_layer else layer, arguments
    )


def _name_of(entry: dict[str, Any]) -> str | None:
    inner = entry["config"]
    name = inner.get("name") if isinstance(inner, dict) else None
    return name if isinstance(name, str) else None


def _activations(inner: Any) -> list[str]:
    """The activations that a layer of Keras names; custom layers use such keys as they like."""
    found = [inner.get(key) for key in _ACTIVATION_KEYS] if isinstance(inner, dict) else []
    named = [
        value.get("config")
        if isinstance(value, dict)
        and value.get("class_name") == "function"
        and value.get("module") == "builtins"
        else value
        for value in found
    ]
    return [name for name in named if isinstance(name, str)]


def names(config: Any) -> set[str]:
    """Every class and function name in a config, plain and as `package>Name`."""
    found: list[Any] = []
    for _, entry, _ in _objects(config):
        found += [entry["class_name"], entry.get("registered_name")]
        if entry["class_name"] == "function":
            found.append(entry["config"])
    return {name for name in found if isinstance(name, str)} - {"function"}


def entries(config: Any) -> list[dict[str, Any]]:
    """Every serialised object in a config, in file order: `{"class_name": ..., "config": ..., ...}`."""
    return [entry for _, entry, _ in _objects(config)]


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
    if not is_function and _is_alias(entry):
        return f"{entry['registered_name']} (saved as {name})"
    is_own = _is_keras(module) and name.isidentifier() and (module != "keras.layers" or name in layers)
    if is_own or (module == "builtins" and is_function):
        return None  # Keras looks names of builtins up among its own functions only
    return f"{name} (saved from module {module})" if module else name


def _is_alias(entry: dict[str, Any]) -> bool:
    """Whether an object of Keras says that it is registered under another name than its class has."""
    registered = entry.get("registered_name")
    return isinstance(registered, str) and registered.rpartition(">")[2] != entry["class_name"]


def _is_keras(module: Any) -> bool:
    if not isinstance(module, str):
        return False
    root, *inner = module.removeprefix("keras.src.").split(".")
    if module.startswith("keras.src."):  # Keras takes only its own serialisable classes from there
        return root in _MODULES
    return root == "keras" and (not inner or inner[0] in _MODULES)


def without_compilation(config: Any) -> Any:
    """A copy without the losses, metrics and optimisers of the model and of models nested in it."""
    if isinstance(config, dict):
        return {key: without_compilation(value) for key, value in config.items() if key != "compile_config"}
    if isinstance(config, list):
        return [without_compilation(value) for value in config]
    return config


def _objects(config: Any) -> Iterator[Place]:
    """Every serialised object in a config with its key and the layer that it belongs to, in file order."""
    waiting: list[tuple[str, Any, str | None]] = [("", config, None)]
    while waiting:
        key, value, layer = waiting.pop()
        if isinstance(value, dict):
            if "class_name" in value and "config" in value:
                yield key, value, layer
                if key in _LAYER_KEYS:
                    layer = _name_of(value) or layer
            waiting += [(str(name), item, layer) for name, item in reversed(value.items())]
        elif isinstance(value, list):
            waiting += [(key, item, layer) for item in reversed(value)]
