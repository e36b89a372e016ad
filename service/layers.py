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

_PLACE = re.compile(r"-?[0-9]{1,9}")
_MAX_NAME = 256  # characters of a wild-card or of a name that suggestions are looked for
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
        if _PLACE.fullmatch(name):
            place = int(name)
            if -len(self._top_level) <= place < len(self._top_level):
                return [self._top_level[place]]
        if ("*" in name or "?" in name) and len(name) <= _MAX_NAME:
            pattern = _Glob(name)
            known = self._by_path if self._offered is None else self._offered
            found = [path for path in self._by_path if path in known and pattern.matches(path)]
            if found:
                return found
        raise self._not_found(name, self._by_path if self._offered is None else self._offered)

    def _not_found(self, name: str, known: Iterable[str]) -> LayerNotFound:
        close = difflib.get_close_matches(name[:_MAX_NAME], list(known), n=_SUGGESTIONS, cutoff=0.5)
        hint = f" Did you mean {' or '.join(repr(path) for path in close)}?" if close else ""
        return LayerNotFound(
            f"Expected a layer of model '{self._model}'. Received: {name[:200]!r}.{hint} "
            f"GET /models/{self._model}/layers lists them.",
            suggestions=close,
        )


class _Glob:
    """A wild-card pattern, stepped through all its readings at once.

    A regular expression would try them one after the other, and a pattern with many stars could hold up the
    service for hours. Bit `i` of a mask stands for the pattern's i-th part, the bit after the last for its end.
    """

    def __init__(self, pattern: str) -> None:
        self._exact: dict[str, int] = {}
        self._any_inside = self._stars = self._crossing_stars = 0
        parts = re.findall(r"\*+|[^*]", pattern, re.DOTALL)
        for place, text in enumerate(parts):
            bit = 1 << place
            if text.startswith("*"):
                self._stars |= bit
                self._crossing_stars |= bit if len(text) > 1 else 0
            elif text == "?":
                self._any_inside |= bit
            else:
                self._exact[text] = self._exact.get(text, 0) | bit
        self._end = 1 << len(parts)

    def matches(self, path: str) -> bool:
        """Whether the whole path fits the pattern."""
        places = self._past_stars(1)
        for character in path:
            inside = character != "/"
            staying = places & (self._stars if inside else self._crossing_stars)
            moving = places & (self._exact.get(character, 0) | (self._any_inside if inside else 0))
            places = self._past_stars(staying | moving << 1)
        return bool(places & self._end)

    def _past_stars(self, places: int) -> int:
        """A star may also stand for nothing; two never follow each other."""
        return places | (places & self._stars) << 1
