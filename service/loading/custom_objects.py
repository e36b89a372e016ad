"""Owns the operator's Python files: what they define for models, and that nothing of it outlives a load.

`custom_objects.py` is run as a module of its own; its public classes and functions are offered to the model by
name, and as `package>Name` where they are registered with Keras. A dict `CUSTOM_OBJECTS` in it adds to them and
wins. `builder.py` is run in the same way.

Source: keras/src/saving/object_registration.py of Keras 3.15.1; a registered class beats one that is passed to
`load_model`, so what is offered is put into the registry for as long as a load takes.
"""

from __future__ import annotations

import collections
import hashlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.saving import object_registration
from keras.src.saving.keras_saveable import KerasSaveable

from service.errors import LoadError

_PREFIX = "layertap_file_"


def read_objects(files: Sequence[Path]) -> dict[str, Any]:
    """What these files define, by name; a later file wins over an earlier one.

    Raises:
        LoadError: a file does not run, or its `CUSTOM_OBJECTS` is no dict of names.
    """
    objects: dict[str, Any] = {}
    for path in files:
        module = run_file(path)
        objects |= _public(module) | _declared(module, path)
    return objects


def run_file(path: Path) -> types.ModuleType:
    """The file, run as a module whose name no other file's module has.

    Raises:
        LoadError: it cannot be read, or raises.
    """
    name = _PREFIX + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadError(f"Expected a Python file. Received: {path.name}.", mend="Name it *.py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and get_type_hints look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise LoadError(
            f"Expected {path.name} to run. Received: {type(error).__name__}: {error}.",
            mend=f"Mend {path}; `python {path.name}` in its folder shows where it fails.",
        ) from error
    return module


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
    declared = getattr(module, "CUSTOM_OBJECTS", {})
    if not isinstance(declared, Mapping) or not all(isinstance(name, str) for name in declared):
        raise LoadError(
            f"Expected CUSTOM_OBJECTS in {path.name} to be a dict of names. Received: {type(declared).__name__}.",
            mend='Write CUSTOM_OBJECTS = {"MyLayer": MyLayer}.',
        )
    return dict(declared)


@contextmanager
def isolated() -> Iterator[None]:
    """Undoes what a load changes in Keras' process-wide state: registry, defaults, counters of names.

    Packages that register their classes when first imported keep them: they will not be imported again.
    """
    registry, registered = object_registration.GLOBAL_CUSTOM_OBJECTS, object_registration.GLOBAL_CUSTOM_NAMES
    objects, names = dict(registry), dict(registered)
    config = keras.config
    floatx, image_format, policy = config.floatx(), config.image_data_format(), config.dtype_policy()
    counters = global_state.get_global_attribute("object_name_uids")
    global_state.set_global_attribute("object_name_uids", collections.defaultdict(int))
    try:
        yield
    finally:
        _restore(registry, objects | {name: item for name, item in registry.items() if not _is_ours(item)})
        _restore(registered, names | {item: name for item, name in registered.items() if not _is_ours(item)})
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
        _restore(registry, before)


def registered_names() -> set[str]:
    """The names that packages and files have registered with Keras."""
    return set(object_registration.GLOBAL_CUSTOM_OBJECTS)


def _is_ours(item: Any) -> bool:
    return str(getattr(item, "__module__", "")).startswith(_PREFIX)


def _restore(target: dict[Any, Any], content: dict[Any, Any]) -> None:
    target.clear()
    target.update(content)
