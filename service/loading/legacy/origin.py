"""Owns what a file says of its writer, and what a repair says of itself."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

_VERSION = re.compile(r"(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True)
class Origin:
    """What a file says of the Keras that wrote it.

    Args:
        version: `1.2.2`, `2.2.4-tf`, `3.9.2`; `None` where the file does not say, as weights of Keras 1.
        backend: `tensorflow`, `theano`, `cntk`; `None` where the file does not say, as all files of Keras 1.
    """

    version: str | None = None
    backend: str | None = None

    @property
    def major(self) -> int:
        """1, 2 or 3; files without a version are of Keras 1."""
        return self._numbers()[0]

    def before(self, major: int, minor: int) -> bool:
        """Whether the writer was older than Keras `major.minor`; tf.keras counts its own versions."""
        return self._numbers() < (major, minor)

    def _numbers(self) -> tuple[int, int]:
        found = _VERSION.match(self.version or "1.0")
        return (int(found[1]), int(found[2] or 0)) if found else (1, 0)


@dataclass(frozen=True, slots=True)
class Repaired:
    """A config that Keras 3 builds to the model that its writer meant.

    Args:
        config: in Keras 3's own serialisation, every object with its module.
        repairs: what was changed, one sentence each, that opens with a stable word: "hard-sigmoid: ...".
        names: a layer's name in the config -> its name in the file, where the two differ.
    """

    config: dict[str, Any]
    repairs: tuple[str, ...] = ()
    names: dict[str, str] = field(default_factory=dict)
