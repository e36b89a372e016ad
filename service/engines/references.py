"""Owns what an OpenVINO function is held against: TensorFlow's values for a few rows, and TensorFlow in reserve.

Where TensorFlow is at work anyway its own function gives both. Where the values come from an earlier process,
TensorFlow is imported and the model loaded only when a batch comes that OpenVINO does not compute. The requests that
need it wait for it in a lane of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from service.engines import Engine, Function
from service.engines.expectations import Expectation
from service.errors import InputRejected, LoadError
from service.scheduling.jobs import Deferred, Run
from service.tensors import Array

COMPARED_ROWS = 4


@dataclass(frozen=True, slots=True)
class Reference:
    """What a function of some outputs is held against.

    Args:
        expected: path -> what TensorFlow gives for the rows that are compared.
        reserve: gives TensorFlow's function of the same outputs; called on the engine thread, so it never waits, but
            raises `Deferred` where the function has to be made first.
    """

    expected: Mapping[str, Expectation]
    reserve: Callable[[], Function]


Refer: TypeAlias = Callable[[tuple[str, ...]], Reference]
"""Outputs -> their reference; raises LoadError where there is none."""


def refer_to(tensorflow: Engine, rows: Mapping[str, Array]) -> Refer:
    """References to an engine that is at work.

    Args:
        tensorflow: compiles a function for every set of outputs.
        rows: input name -> what is compared.
    """

    def refer(outputs: tuple[str, ...]) -> Reference:
        function = tensorflow.compile(outputs)
        try:
            values = function.run(rows)
        except InputRejected as error:
            raise LoadError(error.message) from error
        expected = {path: Expectation(array.shape[1:], array, None) for path, array in values.items()}
        return Reference(expected, lambda: function)

    return refer


def refer_to_kept(expectations: Mapping[str, Expectation], tensorflow: Engine) -> Refer:
    """References to what was kept.

    Args:
        expectations: path -> what TensorFlow gave.
        tensorflow: an engine whose `compile` may take long, since it loads the model first.
    """

    def refer(outputs: tuple[str, ...]) -> Reference:
        if missing := [path for path in outputs if path not in expectations]:
            raise LoadError(f"What TensorFlow gives is not known of {', '.join(missing)}.")
        expected = {path: expectations[path] for path in outputs}
        return Reference(expected, LateFunction(tensorflow, outputs))

    return refer


class LateFunction:
    """A function that nobody may ever need: made when first asked for, by whoever asks for that to be done.

    Args:
        engine: compiles it.
        outputs: what it yields.
    """

    def __init__(self, engine: Engine, outputs: tuple[str, ...]) -> None:
        self._engine = engine
        self._outputs = outputs
        self._function: Function | None = None

    def __call__(self) -> Function:
        """The function, once there is one.

        Raises:
            Deferred: there is none yet; it says how to make it.
        """
        if self._function is None:
            raise Deferred(self._make)
        return self._function

    def _make(self) -> Run:
        """Slow where the model has to be loaded first. Raises LoadError."""
        self._function = self._engine.compile(self._outputs)
        return self._function.run
