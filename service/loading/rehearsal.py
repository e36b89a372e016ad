"""Owns the check of a model's weights against its file before any of them is allocated.

A config may ask for weights of any size; Keras allocates and fills them as it builds. In a stateless scope it
only notes what it would allocate: the model is built there once, counted, and thrown away.

Source: keras/src/backend/common/variables.py (`Variable.__init__`, `register_uninitialized_variable`) and
keras/src/backend/common/stateless_scope.py of Keras 3.15.1.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from keras.src.backend.common import global_state
from keras.src.backend.common.stateless_scope import StatelessScope

from service.errors import LoadError
from service.loading.building import Recipe, build
from service.loading.builtin_objects import builtin_objects
from service.loading.hdf5 import SavedArray
from service.loading.vetting import names, without_compilation

FREE_VALUES = 2**24
"""Weights a model may have beyond the file's: states of random generators, tables that are not saved."""

TIMES_STORED = 4
_OURS = "layertap>"
_UNINITIALIZED = "uninitialized_variables"
_COUNTERS = "object_name_uids"


def refuse_giants(recipe: Recipe, stored: Iterable[SavedArray]) -> None:
    """Builds a model without allocating, and compares what it asks for with what the file holds.

    Args:
        recipe: the model's config.
        stored: the file's arrays.

    Raises:
        LoadError: the config asks for far more weights than the file has.
        Exception: what building raises, unless custom objects take part, which need not build in this way.
    """
    stored_values = sum(math.prod(array.shape) for array in stored)
    with _noted() as variables:
        try:
            config = _without_states(without_compilation(recipe.config))
            build(dataclasses.replace(recipe, config=config))
        except Exception:
            if not _has_custom_objects(recipe) and not _are_giants(variables, stored_values):
                raise
    if _are_giants(variables, stored_values):
        asked = sum(math.prod(variable.shape) for variable in variables)
        raise LoadError(
            f"Expected a config that fits the {stored_values} numbers in the file. Received: one that asks for "
            f"{asked} weights.",
            mend="Save the model again with model.save and copy the whole file.",
        )


def _without_states(value: Any) -> Any:
    """The config without what layers remember between batches: they allocate that at once, in any scope."""
    if isinstance(value, dict):
        kept = {name: _without_states(item) for name, item in value.items()}
        return kept | {"stateful": False} if kept.get("stateful") is True else kept
    return [_without_states(item) for item in value] if isinstance(value, list) else value


def _has_custom_objects(recipe: Recipe) -> bool:
    theirs = recipe.objects.keys() - builtin_objects().keys()
    return any(not name.startswith(_OURS) for name in names(recipe.config) & theirs)


def _are_giants(variables: list[Any], stored_values: int) -> bool:
    asked: int = sum(math.prod(variable.shape) for variable in variables)
    return asked > FREE_VALUES + TIMES_STORED * stored_values


@contextmanager
def _noted() -> Iterator[list[Any]]:
    """The variables that are asked for meanwhile; names that Keras numbers are counted as before afterwards."""
    pending = global_state.get_global_attribute(_UNINITIALIZED, [], set_to_default=True)
    counters = global_state.get_global_attribute(_COUNTERS)
    noted: list[Any] = []
    global_state.set_global_attribute(_UNINITIALIZED, noted)
    global_state.set_global_attribute(_COUNTERS, collections.defaultdict(int, counters or {}))
    try:
        with StatelessScope(initialize_variables=False):
            yield noted
    finally:
        global_state.set_global_attribute(_UNINITIALIZED, pending)
        global_state.set_global_attribute(_COUNTERS, counters)
