"""Owns the refusal of convolutions that Theano padded in another way than TensorFlow does.

For `padding="same"` Theano put half a kernel of zeros on both sides and cut off what was too much at the end;
TensorFlow pads as little as it can, and the odd zero at the end. The two agree for odd kernels that move by one.

Source: keras-team/keras@2.2.4 `keras/backend/theano_backend.py`, `_preprocess_padding` and
`_postprocess_conv2d_output`.
"""

from __future__ import annotations

from typing import Any

from service.errors import LoadError
from service.loading.vetting import entries

_CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "ConvLSTM2D", "SeparableConv2D")


def refuse_theano_padding(config: Any) -> None:
    """Checks that TensorFlow pads every convolution of a model as Theano did.

    Args:
        config: of a model that Theano trained, in the words of Keras 2 or later.

    Raises:
        LoadError: names the layers that would silently compute something else.
    """
    found = []
    for entry in entries(config):
        inner = entry["config"]
        if entry["class_name"] not in _CONVOLUTIONS or not isinstance(inner, dict):
            continue
        kernel, steps = _sizes(inner.get("kernel_size")), _sizes(inner.get("strides"))
        is_even = any(size % 2 == 0 for size in kernel)
        jumps = any(step > 1 for step in steps) and any(size > 1 for size in kernel)
        if inner.get("padding") == "same" and (is_even or jumps):
            found.append(f"'{inner.get('name')}' (kernel_size={kernel}, strides={steps})")
    if found:
        raise LoadError(
            'Expected padding="same" with odd kernels and strides of 1 in a model that Theano trained. '
            f"Received: {', '.join(found)}, which TensorFlow pads at other sides.",
            mend='If TensorFlow trained it, put kernels = "tensorflow" into model.toml; else train these layers '
            "again with TensorFlow.",
        )


def _sizes(value: Any) -> list[int]:
    return [size for size in (value if isinstance(value, list) else [value]) if type(size) is int]
