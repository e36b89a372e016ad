"""Owns an engine that is opened when it is first needed, which may be never."""

from __future__ import annotations

import threading
from collections.abc import Callable

from service.engines import Engine, Function
from service.errors import LoadError
from service.tensors import ModelSpec


class LateEngine:
    """TensorFlow's engine of a model that something else serves.

    Args:
        spec: what the model takes and gives.
        open_engine: loads the model; slow; raises LoadError.
        opened: called once the model is loaded.
    """

    name = "tensorflow"
    activations = None  # only models without free axes are served by something else

    def __init__(
        self, spec: ModelSpec, open_engine: Callable[[], Engine], opened: Callable[[], None] = lambda: None
    ) -> None:
        self.spec = spec
        self._open_engine = open_engine
        self._opened = opened
        self._engine: Engine | None = None
        self._lock = threading.Lock()

    def compile(self, outputs: tuple[str, ...]) -> Function:
        """A warm function; see `service.engines.Engine`. The first one has to wait for the model."""
        with self._lock:  # one at a time: models are traced on two threads otherwise
            if self._engine is None:
                engine = self._open_engine()
                if engine.spec != self.spec:
                    raise LoadError(
                        "Expected the model that is served. Received: another one from the same file.",
                        mend="Load the model again.",
                    )
                self._engine = engine
                self._opened()
            return self._engine.compile(outputs)
