"""Owns the names of layers: what a request may write, and the canonical paths that it means.

A request names a layer by its path (`pool`, `base/conv5`), by an alias (`dense` for `dense:0`), by its place
(`-2` counts from the end, `3` from the start), or by a wild-card (`conv5_*`, where `*` stays inside one part
of the path and `**` crosses parts).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from service.errors import LayerNotFound
from service.tensors import LayerSpec, ModelSpec

_PLACE = re.compile(r"-?\d+")
_SUGGESTIONS = 3
_REMEMBERED = 1024


class LayerIndex:
    """The names of one model's layers.

    Args:
        model: the model's name, for messages.
        spec: its layers.
        offered: paths or patterns that may be asked for; `None` offers every layer.
    """

    def __init__(self, model: str, spec: ModelSpec, offered: Sequence[str] | None = None) -> None:
        self._model = model
        self._by_path = {layer.path: layer for layer in spec.layers}
        self._order = {path: place for place, path in enumerate(self._by_path)}
        self._aliases = spec.aliases
        self._top_level = [layer.path for layer in spec.layers if "/" not in layer.path]
        self._offered: set[str] | None = None
        self._resolved: dict[tuple[str, ...], tuple[str, ...]] = {}
        if offered is not None:
            outputs = [output.path for output in spec.outputs]
            self._offered = {*self.resolve(offered), *outputs}
            self._resolved.clear()

    def __getitem__(self, path: str) -> LayerSpec:
        """The layer of a canonical path."""
        return self._by_path[path]

    def resolve(self, names: Iterable[str]) -> tuple[str, ...]:
        """Canonical paths, in the order asked for, each once.

        Raises:
            LayerNotFound: a name that leads nowhere, or to a layer that is not offered; the message names
                the nearest ones.
        """
        key = tuple(names)
        if key in self._resolved:
            return self._resolved[key]
        paths: dict[str, None] = {}
        for name in key:
            for path in self._matches(name):
                if self._offered is not None and path not in self._offered:
                    raise self._not_found(name, self._offered)
                paths[path] = None
        if len(self._resolved) < _REMEMBERED:  # clients ask for the same few sets again and again
            self._resolved[key] = tuple(paths)
        return tuple(paths)

    def ordered(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Canonical paths in the model's own order, each once."""
        return tuple(sorted(set(paths), key=self._order.__getitem__))

    def _matches(self, name: str) -> list[str]:
        if name in self._by_path:
            return [name]
        if name in self._aliases:
            return [self._aliases[name]]
        if _PLACE.fullmatch(name) and len(name) < 10:
            place = int(name)
            if -len(self._top_level) <= place < len(self._top_level):
                return [self._top_level[place]]
        if "*" in name or "?" in name:
            pattern = _glob(name)
            found = [path for path in self._by_path if pattern.fullmatch(path)]
            if self._offered is not None:
                found = [path for path in found if path in self._offered]
            if found:
                return found
        raise self._not_found(name, self._by_path if self._offered is None else self._offered)

    def _not_found(self, name: str, known: Iterable[str]) -> LayerNotFound:
        names = list(known)
        close = difflib.get_close_matches(name, names, n=_SUGGESTIONS, cutoff=0.5)
        hint = f" Did you mean {' or '.join(repr(path) for path in close)}?" if close else ""
        return LayerNotFound(
            f"Expected a layer of model '{self._model}'. Received: {name[:200]!r}.{hint} "
            f"GET /models/{self._model}/layers lists them.",
            suggestions=close,
        )


def _glob(pattern: str) -> re.Pattern[str]:
    parts = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.split(r"(\*\*|\*|\?)", pattern)
    return re.compile("".join(parts.get(token, re.escape(token)) for token in tokens))
