"""Owns the way from a config's text to a model without weights: parse, repair, judge, build, compile.

It reads no files. What Keras raises on the way is put into words here.

Source: keras/src/legacy/saving/saving_utils.py, keras/src/saving/serialization_lib.py of Keras 3.15.1.
"""

from __future__ import annotations

import copy
import inspect
import json
import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import keras
from keras.src import activations, losses, metrics
from keras.src.backend.common import global_state
from keras.src.legacy.saving import json_utils, saving_utils
from keras.src.saving import serialization_lib

from service.errors import LoadError
from service.loading.builtin_objects import builtin_objects
from service.loading.config_text import parse
from service.loading.custom_objects import offered, refuse_foreign, registered_names
from service.loading.legacy import Origin, repair
from service.loading.legacy.replacements import replacements
from service.loading.legacy.training import training
from service.loading.stubs import FUNCTION, Need, Weights
from service.loading.vetting import entries, names, refuse_strangers, stored_code, strangers

_REASON_LENGTH = 600
_WORDS_OF_COMPILE = frozenset(
    ["accuracy", "acc", "crossentropy", "ce"]
)  # their meaning depends on the outputs
_NAMED = re.compile(
    r"Could not locate (?:class|function) '([^']+)'|Unknown [\w ]+: '?([^'.\s]+)|"
    r"Could not (?:interpret|deserialize) [\w ]+(?:identifier: | ')([^'.\s]+)|locate (?:class|function) '([^']+)'"
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A config that may be built.

    Args:
        config: repaired and judged.
        objects: custom objects by every name that the config uses for them.
        safe: `False` where the operator allowed the code that is stored in it.
        repairs: what was changed in the config, one sentence each.
        names: a layer's name in the config -> its name in the file, where the two differ.
    """

    config: dict[str, Any]
    objects: dict[str, Any]
    safe: bool
    repairs: tuple[str, ...]
    names: dict[str, str] = field(default_factory=dict)


def judge(
    config: dict[str, Any],
    *,
    origin: Origin,
    sha256: str,
    allow_lambda: str | None,
    objects: dict[str, Any],
    weights: Weights = MappingProxyType({}),
) -> Recipe:
    """The config, repaired, and found to name nothing but Keras and the custom objects.

    Args:
        config: as it stands in the file.
        origin: what the file says of its writer.
        sha256: of the file that holds the config.
        allow_lambda: the operator's "sha256:..." of the file whose stored code may run.
        objects: the custom objects.
        weights: what the file holds for each layer, for the stub of a class that nobody defines.

    Raises:
        LoadError: it holds code that is not allowed, or names what nobody defines.
    """
    repaired = repair(config, origin, objects.keys())
    config = repaired.config
    code, permission = stored_code(config), f"sha256:{sha256}"
    if code and allow_lambda != permission:
        raise LoadError(
            f"Expected no Python code in the file. Received: {', '.join(code)}, which would run here.",
            mend=f'If you trust this very file, add allow_lambda = "{permission}" to its model.toml.',
        )
    objects = objects | replacements(names(config)) | _other_spellings(config, objects)
    check_names(config, _fitting(config, objects), weights)
    refuse_foreign(objects, names(config))
    return Recipe(config, objects, safe=not code, repairs=repaired.repairs, names=repaired.names)


def check_names(config: Any, objects: dict[str, Any], weights: Weights = MappingProxyType({})) -> None:
    """Checks a config, of a model or of its training, against what is defined.

    Raises:
        LoadError: names every class and function that nobody defines.
    """
    refuse_strangers(
        config,
        layers=_layer_names(),
        offered=registered_names() | objects.keys(),
        activations=activations.ALL_OBJECTS_DICT.keys(),
        weights=weights,
    )


def _fitting(config: Any, objects: dict[str, Any]) -> dict[str, Any]:
    """Without layers of this package that only share their name with the ones that the config means."""
    own = builtin_objects()
    unfit = set()
    for entry in entries(config):
        name, inner = entry["class_name"], entry["config"]
        is_own = isinstance(name, str) and name in own and objects.get(name) is own[name]
        if is_own and inspect.isclass(own[name]) and isinstance(inner, dict):
            try:
                own[name].from_config(dict(inner))
            except (TypeError, ValueError):
                unfit.add(name)
    return {name: item for name, item in objects.items() if name not in unfit}


def _other_spellings(config: Any, objects: dict[str, Any]) -> dict[str, Any]:
    """A class may be saved as `package>Name` and defined in a file here without being registered.

    What this package brings never stands in for a class of another package that happens to have its name.
    """
    own = builtin_objects()
    defined = {name: item for name, item in objects.items() if own.get(name) is not item}
    return {
        name: defined[plain]
        for name in names(config)
        if name not in objects and (plain := name.rpartition(">")[2]) in defined
    }


def _layer_names() -> set[str]:
    return {
        name
        for module in (keras.layers, keras.models)
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, keras.Operation)
    } | {"Functional"}  # what keras.Model builds, and the one that is not exported


def build(recipe: Recipe) -> Any:
    """The model of a judged config, its weights as its initialisers make them.

    Raises:
        Exception: whatever Keras or a custom object raises; `explain` puts it into words.
    """
    _reserve_names(recipe.config)
    with offered(recipe.objects):
        return serialization_lib.deserialize_keras_object(
            copy.deepcopy(recipe.config), recipe.objects, safe_mode=recipe.safe
        )


def _reserve_names(config: Any) -> None:
    """Lets the names that Keras gives to operations of its own, as for masks, go on after the file's."""
    taken = global_state.get_global_attribute("object_name_uids")
    for entry in entries(config):
        name = entry["config"].get("name") if isinstance(entry["config"], dict) else None
        if taken is not None and isinstance(name, str):
            word, _, number = name.rpartition("_")
            word, number = (word, number) if word and number.isdecimal() and len(number) < 9 else (name, "0")
            taken[word] = max(taken[word], int(number) + 1)


def compile_as_saved(model: keras.Model, training_config: str, objects: dict[str, Any]) -> None:
    """Compiles with the loss, metrics and optimiser of a `.h5` file; the optimiser starts afresh.

    Raises:
        LoadError: it names what nobody defines.
        Exception: whatever Keras raises; `explain` puts it into words.
    """
    parsed = training(parse(training_config, "training_config"))
    check_names(parsed, objects)
    with offered(objects):
        saved = [parsed.get(key) for key in ("loss", "metrics", "weighted_metrics")]
        if unknown := [name for name in _measures(saved) if not _is_measure(name)]:
            raise strangers([Need(name, name, FUNCTION) for name in unknown])
        config = json_utils.decode(json.dumps(parsed))
        model.compile(**saving_utils.compile_args_from_training_config(config, objects))
        saving_utils.try_build_compiled_arguments(model)


def _measures(value: Any) -> list[str]:
    """The losses and metrics that are saved by name alone, in any nesting of lists and dicts."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict) and "class_name" not in value:
        value = list(value.values())
    return [name for item in value for name in _measures(item)] if isinstance(value, list) else []


def _is_measure(name: str) -> bool:
    known = (_WORDS_OF_COMPILE, registered_names(), losses.ALL_OBJECTS_DICT, metrics.ALL_OBJECTS_DICT)
    return any(name in place for place in known)  # what is offered is registered for now


def explain(error: BaseException) -> LoadError:
    """What Keras or a custom object raised, as an error for the model's owner."""
    reason = f"{type(error).__name__}: {error}"
    if len(reason) > _REASON_LENGTH:
        reason = reason[:_REASON_LENGTH] + "..."
    if found := _NAMED.search(str(error)):
        name = next(group for group in found.groups() if group)
        return LoadError(
            f"Expected a definition of '{name}', which the model names. Received: {reason}",
            mend=f"Define {name} in custom_objects.py beside the model, or in the one shared by all models.",
        )
    return LoadError(
        f"Expected a model that Keras {keras.__version__} can build. Received: {reason}",
        mend="Load it with keras.saving.load_model where it was trained, and save it again with a current Keras.",
    )
