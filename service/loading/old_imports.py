"""Owns running the operator's Python files as if Keras were still Keras 2: `keras` in them means `tf_keras`.

Only the file's own import statements are answered differently, also those inside its functions; no other module
sees anything of it. Modules that Keras 2 had and `tf_keras` has not (`keras.engine.topology`, `keras.layers.core`)
are answered with what took their place, and names of TensorFlow 1 with `tf.compat.v1`.
"""

from __future__ import annotations

import builtins
import importlib
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from service.loading.old_names import MODULES
from service.loading.python_files import PREFIX, failed, module_name

_ALIASES = ("tensorflow.python.keras", "tensorflow.keras")
_PACKAGES = {module.rpartition(".")[0] for module in MODULES} | {"keras.legacy"}


def run_with_tf_keras(path: Path) -> types.ModuleType:
    """The file, run with `tf_keras` in the place of Keras.

    Raises:
        LoadError: it cannot be read, or raises.
    """
    module = types.ModuleType(f"{PREFIX}tf_keras_{module_name(path)}")
    module.__file__ = str(path)
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": _import}
    sys.modules[module.__name__] = module  # dataclasses and get_type_hints look their module up there
    try:
        code = compile(path.read_bytes(), str(path), "exec")
        exec(code, vars(module))  # noqa: S102 the operator's own file, as an import would run it
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise failed(path, error) from error
    return module


def _import(
    name: str,
    globals: Mapping[str, Any] | None = None,  # noqa: A002 the names are those of __import__
    locals: Mapping[str, Any] | None = None,  # noqa: A002 the names are those of __import__
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> Any:
    if level == 0:
        if _is_in(name, "keras"):
            return _OldKeras(name if fromlist else "keras")
        for alias in _ALIASES:
            if _is_in(name, alias):
                return (
                    _OldKeras("keras" + name.removeprefix(alias))
                    if fromlist
                    else _OldTensorFlow("tensorflow")
                )
        if name == "tensorflow":
            return _OldTensorFlow(name)
    return builtins.__import__(name, globals, locals, fromlist or (), level)


def _is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


class _OldKeras(types.ModuleType):
    """A module of Keras 2: what `tf_keras` has of it, wherever that is now."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        inner = f"{self.__name__}.{name}"
        value = getattr(_counterpart(self.__name__), name, None)
        if inner in _PACKAGES or inner in MODULES or isinstance(value, types.ModuleType):
            return _OldKeras(inner)
        if value is None:
            raise AttributeError(f"module {self.__name__!r} of tf_keras has no attribute {name!r}", name=name)
        setattr(self, name, value)
        return value


class _OldTensorFlow(types.ModuleType):
    """TensorFlow, with what version 1 had besides."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "keras":
            return _OldKeras("keras")
        library = importlib.import_module("tensorflow")
        return getattr(library, name) if hasattr(library, name) else getattr(library.compat.v1, name)


def _counterpart(module: str) -> Any:
    """The module of `tf_keras` that has the names of a module of Keras 2, or `None`."""
    now = MODULES.get(module, module)
    try:
        return importlib.import_module("tf_keras" + now.removeprefix("keras"))
    except ImportError:
        return None
