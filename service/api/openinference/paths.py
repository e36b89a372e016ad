"""Owns the paths below `/v2/models/`: which model and version one names, and what is asked of it."""

from __future__ import annotations

import re

from service.errors import InvalidParameter

_MODEL = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?P<rest>/.*)?")
_VERSION = re.compile(r"[0-9]{1,18}")


def model_path(path: str) -> tuple[str, int | None]:
    """The model and the version that a path below `/v2/models/` names.

    Raises:
        InvalidParameter: the version is no whole number.
    """
    found = _MODEL.fullmatch(path)
    if found is None:
        raise InvalidParameter(f"Expected a path /v2/models/<model>. Received: {path[:200]!r}.")
    version = found["version"]
    if version is not None and not _VERSION.fullmatch(version):
        raise InvalidParameter(f"Expected a version in the path, a whole number. Received: {version[:80]!r}.")
    return found["model"], int(version) if version is not None else None


def model_route(path: str) -> str | None:
    """What a path asks of a model: `""` for its metadata, `infer`, `ready`, `config`, `stats`, ...

    `None` where it names no model.
    """
    found = _MODEL.fullmatch(path)
    return (found["rest"] or "")[1:] if found is not None else None
