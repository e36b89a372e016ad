"""Owns the repairs of configs that Keras 1 and 2 wrote, so that Keras 3 builds the same model from them.

The loader hands every config through `repair` before it is judged and built; a repair is a change to the config
and one sentence about it, which `/models` shows. There are none yet: files that Keras 3 reads as they are load,
others fail with Keras' own reason.
"""

from __future__ import annotations

from typing import Any


def repair(config: dict[str, Any], version: str | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The config as Keras 3 understands it, and what was changed, one sentence each.

    Args:
        config: `{"class_name": ..., "config": ...}` as it stands in the file.
        version: of the Keras that wrote it; `None` where the file does not say (Keras 1).
    """
    del version  # each repair will say which versions it is for
    return config, ()
