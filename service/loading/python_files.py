"""Owns running the operator's Python files: `custom_objects.py` and `builder.py`, each as a module of its own.

A file is judged before it is run only by what it says of itself when it fails: then the lines that Keras 3 no
longer understands are named, with what to write instead. Nothing here knows Keras.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import types
from pathlib import Path

from service.errors import LoadError
from service.loading.old_code import old_lines

PREFIX = "layertap_file_"
"""What the names of these modules begin with."""


def run_file(path: Path) -> types.ModuleType:
    """The file, run as a module whose name no other file's module has.

    Raises:
        LoadError: it cannot be read, or raises; old Keras' lines are named with their replacements.
    """
    name = PREFIX + module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadError(f"Expected a Python file. Received: {path.name}.", mend="Name it *.py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and get_type_hints look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise failed(path, error) from error
    return module


def module_name(path: Path) -> str:
    """A name that no other file's module has."""
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]


def failed(path: Path, error: BaseException) -> LoadError:
    """What became of a file that did not run, with the lines to change where it is old Keras' code."""
    mend = f"Mend {path}; `python {path.name}` in its folder shows where it fails."
    return LoadError(
        f"Expected {path.name} to run. Received: {type(error).__name__}: {error}.",
        mend=old_lines(path) or mend,
    )
