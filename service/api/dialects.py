"""Owns the list of dialects that are served beside the native API."""

from __future__ import annotations

from service.api.endpoint import Dialect, Limits


def every_dialect(limits: Limits) -> tuple[Dialect, ...]:
    """The dialects, each under its own prefix.

    Args:
        limits: sizes, the same for every dialect.
    """
    del limits
    return ()
