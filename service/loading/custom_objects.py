"""Owns the operator's own classes and functions: what is offered to a model, and that none of it outlives a load.

The public classes and functions of a `custom_objects.py` are offered by name, and as `package>Name` where they
are registered with Keras. A dict `CUSTOM_OBJECTS` (or `custom_objects`) in it adds to them and wins. What
`"package.module:attribute"` names is offered in the same way.

Source: keras/src/saving/object_registration.py of Keras 3.15.1; a registered class beats one that is passed to
`load_model`, so what is offered is put into the registry for as long as a load takes.
"""

from __future__ import annotations

import collections
import importlib
import inspect
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.saving import object_registration
from keras.src.saving.keras_saveable import KerasSaveable

from service.errors import LoadError
from service.loading.python_files import PREFIX, run_file
from service.threads import is_given_up

_DECLARED = ("CUSTOM_OBJECTS", "custom_objects")


def read_objects(
    files: Sequence[Path], references: Sequence[str] = (), run: Callable[[Path], types.ModuleType] = run_file
) -> dict[str, Any]:
    """What these files and packages define, by name; a later one wins over an earlier one.

    Args:
        files: Python files.
        references: `package.module:attribute`; the attribute is a class, a function, a dict of them, or a
            function without arguments that returns such a dict.
        run: how a file is run.

    Raises:
        LoadError: a file does not run, a reference leads nowhere, or what should be a dict of names is not.
    """
    objects: dict[str, Any] = {}
    for path in files:
        module = run(path)
        objects |= _public(module) | _declared(module, path)
    for reference in references:
        objects |= _referred(reference)
    return objects


def _referred(reference: str) -> dict[str, Any]:
    module_name, _, attribute = reference.partition(":")
    try:
        value: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            value = getattr(value, name)
        if inspect.isfunction(value) and not inspect.signature(value).parameters:
            value = value()
    except (Exception, SystemExit) as error:
        raise LoadError(
            f"Expected custom objects at {reference!r}. Received: {type(error).__name__}: {error}.",
            mend="Install the package where the service runs, and write package.module:attribute.",
        ) from error
    if isinstance(value, Mapping):
        return _named(value, reference)
    if not _is_definition(value):
        raise LoadError(
            f"Expected a class, a function or a dict at {reference!r}. Received: {type(value).__name__}.",
            mend='Write "package.module:attribute", where the attribute is what the model names.',
        )
    return {value.__name__: value, object_registration.get_registered_name(value): value}


def _public(module: types.ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        here = getattr(value, "__module__", None) == module.__name__
        if name.startswith("_") or not ((here and _is_definition(value)) or _is_imported_class(value)):
            continue
        found[name] = value
        found[object_registration.get_registered_name(value)] = value
    return found


def _is_definition(value: Any) -> bool:
    return inspect.isclass(value) or inspect.isfunction(value)


def _is_imported_class(value: Any) -> bool:
    """Whether `from somewhere import TheirLayer` put a class here that Keras does not know by itself."""
    if not inspect.isclass(value) or not issubclass(value, KerasSaveable):
        return False
    return value.__module__.split(".")[0] != "keras"


def _declared(module: types.ModuleType, path: Path) -> dict[str, Any]:
    for name in _DECLARED:
        if hasattr(module, name):
            return _named(getattr(module, name), f"{name} in {path.name}")
    return {}


def _named(declared: Any, where: str) -> dict[str, Any]:
    if not isinstance(declared, Mapping) or not all(isinstance(name, str) for name in declared):
        raise LoadError(
            f"Expected {where} to be a dict of names. Received: {type(declared).__name__}.",
            mend='Write CUSTOM_OBJECTS = {"MyLayer": MyLayer}.',
        )
    return dict(declared)


def refuse_foreign(objects: Mapping[str, Any], named: Collection[str]) -> None:
    """Checks that the classes which a config names are ones of this Keras.

    Raises:
        LoadError: one derives from a class of `tf_keras`; its layers do not work among those of Keras 3.
    """
    foreign = sorted(
        name
        for name in named
        if inspect.isclass(item := objects.get(name))
        and any(kind.__module__.partition(".")[0] == "tf_keras" for kind in item.__mro__)
    )
    if foreign:
        raise LoadError(
            f"Expected classes of Keras {keras.__version__}. Received: {', '.join(foreign)}, derived from tf_keras.",
            mend='Derive them from keras.layers.Layer of Keras 3, or set loader = "tf_keras" in model.toml.',
        )


@contextmanager
def isolated() -> Iterator[None]:
    """Undoes what a load changes in Keras' process-wide state: registry, defaults, counters of names.

    Packages that register their classes when first imported keep them: they will not be imported again.
    """
    registry, registered = object_registration.GLOBAL_CUSTOM_OBJECTS, object_registration.GLOBAL_CUSTOM_NAMES
    # What is ours and there already was left by a load that was given up.
    objects = {name: item for name, item in registry.items() if not _is_ours(item)}
    names = {item: name for item, name in registered.items() if not _is_ours(item)}
    config = keras.config
    floatx, image_format, policy = config.floatx(), config.image_data_format(), config.dtype_policy()
    counters = global_state.get_global_attribute("object_name_uids")
    global_state.set_global_attribute("object_name_uids", collections.defaultdict(int))
    try:
        yield
    finally:
        if not is_given_up():  # the state would be another load's by now
            _restore(
                registry, objects | {name: item for name, item in registry.items() if not _is_ours(item)}
            )
            _restore(
                registered, names | {item: name for item, name in registered.items() if not _is_ours(item)}
            )
            config.set_floatx(floatx)
            config.set_image_data_format(image_format)
        config.set_dtype_policy(policy)
        global_state.set_global_attribute("object_name_uids", counters)


@contextmanager
def offered(objects: Mapping[str, Any]) -> Iterator[None]:
    """Lets Keras find these objects, before anything else of the same name."""
    registry = object_registration.GLOBAL_CUSTOM_OBJECTS
    before = dict(registry)
    registry.update(objects)
    try:
        with keras.saving.custom_object_scope(dict(objects)):
            yield
    finally:
        if not is_given_up():
            _restore(registry, before)


def registered_names() -> set[str]:
    """The names that packages and files have registered with Keras."""
    return set(object_registration.GLOBAL_CUSTOM_OBJECTS)


def _is_ours(item: Any) -> bool:
    return str(getattr(item, "__module__", "")).startswith(PREFIX)


def _restore(target: dict[Any, Any], content: dict[Any, Any]) -> None:
    target.clear()
    target.update(content)
