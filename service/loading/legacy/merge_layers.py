"""Owns the merging layers as they were before Keras 3: masks met by `and`, values untouched by them.

In Keras 3 a step counts if it counts in any input, and `Maximum` and its like let masked values out of the
result. Before, a step counted if it counted in every input that has a mask, and values were merged as they are.

Source: keras-team/keras@2.2.4 `keras/layers/merge.py`; keras-team/keras@1.2.2 `keras/engine/topology.py`, Merge,
for the cosine; keras/src/layers/merging/ of Keras 3.15.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import keras
from keras import ops
from keras.src.layers.merging.base_merge import Merge
from keras.src.layers.merging.dot import batch_dot


def _merging(name: str, merge: Callable[[Sequence[Any]], Any]) -> type[Any]:
    """A class of Keras with this name, its masks met by `and`, its values merged by `merge`."""

    def compute_mask(self: Any, inputs: Any, mask: Any = None) -> Any:
        del self, inputs
        known = [item for item in mask or () if item is not None]
        return reduce(ops.logical_and, known) if known else None

    def merge_function(self: Any, inputs: Sequence[Any]) -> Any:
        del self
        return merge(inputs)

    base = getattr(keras.layers, name)
    methods = {"compute_mask": compute_mask, "_merge_function": merge_function, "__doc__": base.__doc__}
    return type(name, (base,), {**methods, "__module__": __name__})


Add = _merging("Add", lambda inputs: reduce(ops.add, inputs))
Subtract = _merging("Subtract", lambda inputs: ops.subtract(inputs[0], inputs[1]))
Multiply = _merging("Multiply", lambda inputs: reduce(ops.multiply, inputs))
Average = _merging("Average", lambda inputs: reduce(ops.add, inputs) / len(inputs))
Maximum = _merging("Maximum", lambda inputs: reduce(ops.maximum, inputs))
Minimum = _merging("Minimum", lambda inputs: reduce(ops.minimum, inputs))


class Concatenate(keras.layers.Concatenate):  # type: ignore[misc]  # Keras publishes no types
    """Inputs one after another along an axis; a step counts if it counts in every part."""

    def compute_mask(self, inputs: Sequence[Any], mask: Any = None) -> Any:
        """`(N, T)` bool, or `None` where no input has a mask."""
        if mask is None or all(item is None for item in mask):
            return None
        spread = [_spread(source, its_mask) for source, its_mask in zip(inputs, mask, strict=True)]
        return ops.all(ops.concatenate(spread, axis=self.axis), axis=-1)


def _spread(source: Any, mask: Any) -> Any:
    """A mask of the shape of its input."""
    if mask is None:
        return ops.ones_like(source, dtype="bool")
    if len(mask.shape) < len(source.shape):
        return ops.logical_or(ops.expand_dims(mask, -1), ops.zeros_like(source, dtype="bool"))
    return mask


class Cosine(Merge):  # type: ignore[misc]  # Keras publishes no types
    """Keras 1's mode `cos`: the cosine of two inputs along `axes`, with an axis of one added after the rows'."""

    def __init__(self, axes: Any = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axes = axes

    def build(self, input_shape: Any) -> None:
        """Any two inputs that can be multiplied."""

    def call(self, inputs: Sequence[Any]) -> Any:
        """Two of `(N, D)` in, `(N, 1, 1)` out; of more axes, as their product has."""
        left, right = inputs
        squares = batch_dot(left, left, self.axes) * batch_dot(right, right, self.axes)
        length = ops.maximum(ops.sqrt(squares), keras.config.epsilon())
        return ops.expand_dims(batch_dot(left, right, self.axes) / length, 1)

    def compute_output_spec(self, inputs: Sequence[Any]) -> Any:
        """What `call` yields."""
        return keras.src.backend.compute_output_spec(self.call, inputs)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """None: what is left has no steps."""
        del inputs, mask

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "axes": self.axes}
