"""Owns what an OpenVINO function is held against: TensorFlow's values for a few rows, and TensorFlow in reserve.

Where TensorFlow is at work anyway its own function gives both. Where the values come from an earlier process,
TensorFlow is imported and the model loaded only when a batch comes that OpenVINO does not compute.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from service.engines import Engine, Function
from service.engines.expectations import Expectation
from service.errors import InputRejected, LayertapError, LoadError, ModelLoadFailed, ModelLoading
from service.tensors import Array

COMPARED_ROWS = 4
_log = logging.getLogger("layertap.engines")


@dataclass(frozen=True, slots=True)
class Reference:
    """What a function of some outputs is held against.

    Args:
        expected: path -> what TensorFlow gives for the rows that are compared.
        reserve: gives TensorFlow's function of the same outputs; called on the engine thread, so it never waits.
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
    """A function that nobody may ever need: made on a thread of its own when first asked for.

    Args:
        engine: compiles it.
        outputs: what it yields.
    """

    def __init__(self, engine: Engine, outputs: tuple[str, ...]) -> None:
        self._engine = engine
        self._outputs = outputs
        self._function: Function | None = None
        self._failure: LayertapError | None = None
        self._thread: threading.Thread | None = None

    def __call__(self) -> Function:
        """The function, once there is one; belongs to one thread, the engine's.

        Raises:
            ModelLoading: it is being made from now on.
            ModelLoadFailed: it could not be made; the next call begins anew.
        """
        if self._function is not None:
            return self._function
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._make, name="layertap-reserve", daemon=True)
            self._thread.start()
        raise ModelLoading(
            "These rows hold NaN, infinity, numbers beyond 2**30 or whole ones beyond 2**23, or lead to some. TensorFlow "
            "computes such rows and is being loaded for them: send the request again in some seconds."
        )

    def _make(self) -> None:
        try:
            self._function = self._engine.compile(self._outputs)
        except Exception as error:  # noqa: BLE001 whoever asks next is told
            _log.exception("%s: the function in reserve could not be made", ", ".join(self._outputs))
            self._failure = ModelLoadFailed(f"TensorFlow could not load the model for these rows: {error}.")
