"""Owns the correction of one fault of Keras 3.15.1 that makes models with channels first silently wrong.

`ops.add(x, bias)` guesses from the sizes which axis a bias `(1, C, 1, 1)` belongs to, and takes the last one if it
happens to have C places: a channels-first convolution whose output is as wide as it has filters adds its bias along
the width, LayerNormalization over an inner axis likewise. Which axis it is stands in the bias' own shape.

Source: keras/src/backend/tensorflow/numpy.py of Keras 3.15.1, `add`, "Special case of `tf.add`".
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from keras.src.backend.common import dtypes
from keras.src.backend.tensorflow import numpy as backend


def correct_add() -> None:
    """Puts the corrected function into Keras, for this process and for good; once is enough."""
    if backend.add is not _add:
        _KERAS.setdefault("add", backend.add)
        backend.add = _add


_KERAS: dict[str, Any] = {}


def _add(x1: Any, x2: Any) -> Any:
    """As Keras' own, save for a second argument whose one axis of several places is not `x1`'s last."""
    if tf.is_tensor(x2) or hasattr(x2, "shape"):
        first, second = getattr(x1, "shape", ()), getattr(x2, "shape", ())
        wide = [axis - len(second) for axis, size in enumerate(second) if size != 1]
        if len(wide) == 1 and wide[0] != -1 and len(first):
            return tf.add(*_of_one_type(x1, x2))
    return _KERAS["add"](x1, x2)


def _of_one_type(x1: Any, x2: Any) -> tuple[Any, Any]:
    """Both as tensors of the type that Keras gives their sum."""
    kind = dtypes.result_type(x1.dtype, x2.dtype)
    return backend.convert_to_tensor(x1, kind), backend.convert_to_tensor(x2, kind)
