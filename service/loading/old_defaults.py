"""Owns what layers did by default when a file was written, for builders that leave it to the default.

A builder is Python of today; the weights in its file were trained with the defaults of their day. Where these
differ, a model would be filled without complaint and compute something else. So a builder runs with the defaults
of the file's version; where the version does not tell them, it has to say what it means.

Source: keras-team/keras@2.2.4, @2.3.1 and tensorflow/tensorflow@v1.15.0 `python/keras/layers/recurrent.py`,
keras/src/layers/rnn of Keras 3.15.1.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
from keras.src import activations

from service.errors import LoadError
from service.loading.custom_objects import offered
from service.loading.legacy import Origin
from service.loading.legacy.replacements import replacements

Shapes = Sequence[tuple[int, ...]]

_HARD_SIGMOID = "layertap>hard_sigmoid"
_RECURRENT = ("LSTM", "LSTMCell", "GRU", "GRUCell")
_CONVOLUTIONAL = ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
_AMBIGUOUS = "2.2.4-tf"  # TensorFlow 1.13 to 1.15 and 2.0 to 2.1


@dataclass(frozen=True, slots=True)
class _Defaults:
    """What was the default: `None` where today's still holds."""

    gate: Callable[..., Any] | None = None
    convolutional_gate: Callable[..., Any] | None = None
    reset_after: bool | None = None


def run_as_of(
    origin: Origin, shapes: Sequence[Shapes], builder: Callable[[], Any]
) -> tuple[Any, tuple[str, ...]]:
    """What the builder returns when it runs with the defaults of the file's version, and what that changed.

    `recurrent_activation` was hard_sigmoid before Keras 2.3 and TensorFlow 2, that of ConvLSTM before Keras 3;
    GRU's `reset_after` was `False` before Keras 3 and in TensorFlow 1; and hard_sigmoid itself was
    `clip(0.2 x + 0.5, 0, 1)` before Keras 3. Layers that ran on cuDNN always had sigmoid and `reset_after`, and
    their biases tell them. What a builder says explicitly stays as it says.

    Args:
        origin: what the file says of its writer.
        shapes: of the arrays of each layer in the file.
        builder: makes a model.

    Raises:
        LoadError: the builder leaves to the default what the version does not tell.
    """
    if origin.major >= 3:
        return builder(), ()
    hard_sigmoid = replacements([_HARD_SIGMOID])[_HARD_SIGMOID]
    defaults = _defaults(origin.version, hard_sigmoid, _kinds(shapes))
    names = {"hard_sigmoid": hard_sigmoid, _unknown_gate.__name__: _unknown_gate}  # wrappers copy by name
    with offered(names), _holding(defaults), _named(hard_sigmoid):
        model = builder()
    return model, _noted(model, defaults, hard_sigmoid)


def _kinds(shapes: Sequence[Shapes]) -> set[str]:
    """`cudnn` or `plain`, for every layer whose arrays are those of an LSTM or a GRU."""
    found = set()
    for arrays in shapes:
        for kernel, recurrent, bias in zip(arrays, arrays[1:], arrays[2:], strict=False):
            if len(kernel) == len(recurrent) == 2 and kernel[1] == recurrent[1]:
                units, width = recurrent
                if width in (3 * units, 4 * units):
                    found.add("cudnn" if bias == (2 * width,) else "plain")
    return found


def _defaults(version: str | None, hard_sigmoid: Callable[..., Any], kinds: set[str]) -> _Defaults:
    if kinds == {"cudnn"}:
        return _Defaults(convolutional_gate=hard_sigmoid)
    numbers, _, dialect = (version or "1").partition("-")
    first = tuple(int(part) if part.isdecimal() else 0 for part in numbers.split(".")[:2])
    if version == _AMBIGUOUS or "cudnn" in kinds:
        return _Defaults(gate=_unknown_gate, convolutional_gate=hard_sigmoid)
    if first < (2, 3):
        return _Defaults(hard_sigmoid, hard_sigmoid, reset_after=False)
    is_keras_alone = dialect == "" and first == (2, 3)
    return _Defaults(None, hard_sigmoid, reset_after=False if is_keras_alone else None)


def _unknown_gate(x: Any) -> Any:
    """Stands where the default is not known; a model that holds it is refused."""
    return x


@contextmanager
def _named(hard_sigmoid: Callable[..., Any]) -> Iterator[None]:
    """Keras looks activations up by name in a table of its own before anything that is offered."""
    known = activations.ALL_OBJECTS_DICT
    before = known["hard_sigmoid"]
    known["hard_sigmoid"] = hard_sigmoid
    try:
        yield
    finally:
        known["hard_sigmoid"] = before


@contextmanager
def _holding(defaults: _Defaults) -> Iterator[None]:
    wanted = [(name, "recurrent_activation", defaults.gate) for name in _RECURRENT]
    wanted += [(name, "recurrent_activation", defaults.convolutional_gate) for name in _CONVOLUTIONAL]
    changes: list[tuple[str, str, Any]] = [change for change in wanted if change[2] is not None]
    if defaults.reset_after is not None:
        changes += [(name, "reset_after", defaults.reset_after) for name in ("GRU", "GRUCell")]
    before = {name: getattr(keras.layers, name).__init__.__defaults__ for name, _, _ in changes}
    try:
        for name, argument, value in changes:
            _set_default(getattr(keras.layers, name).__init__, argument, value)
        yield
    finally:
        for name, values in before.items():
            getattr(keras.layers, name).__init__.__defaults__ = values


def _set_default(function: Any, argument: str, value: Any) -> None:
    optional = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
        and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    values = list(function.__defaults__)
    values[optional.index(argument)] = value
    function.__defaults__ = tuple(values)


def _noted(model: Any, defaults: _Defaults, hard_sigmoid: Callable[..., Any]) -> tuple[str, ...]:
    layers = list(model._flatten_layers()) if isinstance(model, keras.Model) else []  # noqa: SLF001 as Keras lists them
    gates = {layer.name: getattr(layer, "recurrent_activation", None) for layer in layers}
    if unknown := [name for name, gate in gates.items() if gate is _unknown_gate]:
        raise LoadError(
            "Expected recurrent_activation to be said: the file does not tell whether it was hard_sigmoid "
            f"(TensorFlow 1) or sigmoid (TensorFlow 2, cuDNN). Received: {', '.join(unknown)} without it.",
            mend='Write recurrent_activation="hard_sigmoid" or "sigmoid" in the builder, as it was trained.',
        )
    named = {layer.name: getattr(layer, "activation", None) for layer in layers}
    today = keras.activations.hard_sigmoid
    if other := [name for name in gates if today in (gates[name], named[name])]:
        raise LoadError(
            "Expected the hard_sigmoid that the weights were trained with, clip(0.2 x + 0.5, 0, 1). Received: "
            f"keras.activations.hard_sigmoid of Keras 3 in {', '.join(other)}.",
            mend='Write "hard_sigmoid" in the builder, in quotes: here it is the one of the file\'s Keras.',
        )
    notes = []
    if hard := [name for name, gate in gates.items() if gate is hard_sigmoid]:
        notes.append(
            f"old-defaults: hard_sigmoid, clip(0.2 x + 0.5, 0, 1), gates as before Keras 3 ({', '.join(hard)})."
        )
    if defaults.reset_after is False:
        before = [layer.name for layer in layers if getattr(layer, "reset_after", None) is False]
        if before:
            notes.append(f"old-defaults: reset_after=False, GRU's default then ({', '.join(before)}).")
    return tuple(notes)
