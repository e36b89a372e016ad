"""Owns the names under which files refer to this package's own layers: `layertap>Highway`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import keras

from service.loading.legacy import keras1_layers, local_layers, merge_layers, tensorflow_layers

PACKAGE = "layertap"
_MODULES = (keras1_layers, local_layers, merge_layers, tensorflow_layers)


def replacements(names: Collection[str]) -> dict[str, Any]:
    """Those of this package's layers and functions that are named, registered with Keras for good.

    They stay registered so that a model which holds them can be saved again.

    Args:
        names: of any classes and functions.
    """
    found = {}
    for name in names:
        package, _, plain = name.rpartition(">")
        if package == PACKAGE and plain.isidentifier() and not plain.startswith("_"):
            for module in _MODULES:
                item = vars(module).get(plain)
                if item is not None and item.__module__ == module.__name__:
                    found[name] = keras.saving.register_keras_serializable(PACKAGE, plain)(item)
    return found
