"""Owns the order in which a config is repaired."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from service.loading.legacy.origin import Origin, Repaired


def repair(config: dict[str, Any], origin: Origin, custom: Collection[str] = ()) -> Repaired:
    """The config as Keras 3 reads it, and what was changed.

    Args:
        config: `{"class_name": ..., "config": ...}` as it stands in the file; it is not changed.
        origin: what the file says of its writer.
        custom: the names of custom objects; their configs are theirs and stay as they are.

    Raises:
        LoadError: the config asks for something that Keras 3 would silently compute differently.
    """
    del origin, custom
    return Repaired(config)
