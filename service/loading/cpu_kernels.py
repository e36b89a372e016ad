"""Owns what TensorFlow computes on some processors only: channels first, and transposed convolutions with dilation.

Its own CPU kernels know neither; oneDNN's know both, but TensorFlow uses those only where the processor has AVX-512.
Here both are brought to what every kernel knows, so that a model gives the same on every processor. Operations on
`(N, C, H, W)` tensors run on `(N, H, W, C)` and give their result back in the layout that was asked for. OpenVINO's
converter cancels the transpositions. A dilated kernel is written out, with zeros between its weights.

The change is made where all of TensorFlow's Python comes by, so it holds for Keras, `tf_keras` and custom layers
alike. It is not used where there is a GPU, whose kernels know both.

Source: tensorflow/python/ops/gen_nn_ops.py and gen_array_ops.py of TensorFlow 2.21; the refusals stand in
tensorflow/core/kernels/conv_ops.cc and conv_grad_input_ops.h.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.ops import gen_array_ops, gen_nn_ops

Operation = Callable[..., Any]

_FIRST_TO_LAST = {"NCHW": "NHWC", "NCDHW": "NDHWC"}
_PER_AXIS = ("strides", "dilations", "ksize")
_TENSORS = {
    **dict.fromkeys(("conv2d", "conv3d", "depthwise_conv2d_native", "max_pool3d", "avg_pool3d"), "input"),
    **dict.fromkeys(("conv2d_backprop_input", "conv3d_backprop_input_v2"), "out_backprop"),
    **dict.fromkeys(("max_pool", "depth_to_space", "space_to_depth"), "input"),
    "avg_pool": "value",
    "fused_batch_norm_v3": "x",
}
"""Operation -> its argument that has a layout; what it returns first has the same."""

_TRANSPOSED = ("conv2d_backprop_input", "conv3d_backprop_input_v2")


def complete_cpu_kernels() -> None:
    """Puts the completed operations into TensorFlow, for this process and for good; once is enough."""
    for name, tensor in _TENSORS.items():
        module = gen_nn_ops if hasattr(gen_nn_ops, name) else gen_array_ops
        operation = getattr(module, name)
        if not hasattr(operation, "__wrapped__"):
            setattr(module, name, _completed(operation, tensor, transposed=name in _TRANSPOSED))


@functools.cache
def _is_on_cpu() -> bool:
    """Whether TensorFlow has no GPU. Asking sets its devices up, so `device.apply` comes before."""
    return all(device.device_type == "CPU" for device in tf.config.list_logical_devices())


def _completed(operation: Operation, tensor: str, *, transposed: bool) -> Operation:
    signature = inspect.signature(operation)

    @functools.wraps(operation)
    def completed(*args: Any, **kwargs: Any) -> Any:
        if not _is_on_cpu():
            return operation(*args, **kwargs)
        arguments = signature.bind(*args, **kwargs).arguments
        restored = None
        if arguments.get("data_format") in _FIRST_TO_LAST:
            arguments, restored = _with_channels_last(arguments, tensor)
        if transposed:
            arguments = _with_kernel_written_out(arguments)
        result = operation(**arguments)
        return result if restored is None else restored(result)

    return completed


def _with_channels_last(
    arguments: Mapping[str, Any], tensor: str
) -> tuple[dict[str, Any], Callable[[Any], Any]]:
    """The arguments for channels last, and what brings the operation's result back to channels first."""
    layout = arguments["data_format"]
    rank = len(layout)
    order, back = [0, *range(2, rank), 1], [0, rank - 1, *range(1, rank - 1)]
    changed = {**arguments, "data_format": _FIRST_TO_LAST[layout]}
    changed[tensor] = tf.transpose(arguments[tensor], order)
    for name in _PER_AXIS:
        if arguments.get(name) is not None:
            changed[name] = [arguments[name][axis] for axis in order]
    if paddings := list(arguments.get("explicit_paddings") or ()):
        changed["explicit_paddings"] = [paddings[2 * axis + side] for axis in order for side in (0, 1)]
    if "input_sizes" in arguments:
        sizes = arguments["input_sizes"]
        changed["input_sizes"] = tf.concat([sizes[:1], sizes[2:], sizes[1:2]], axis=0)

    def restored(result: Any) -> Any:
        if tf.is_tensor(result):
            return tf.transpose(result, back)
        first, *others = result  # a named tuple; only its first tensor has a layout
        return type(result)(tf.transpose(first, back), *others)

    return changed, restored


def _with_kernel_written_out(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a transposed convolution, its kernel `(*sizes, out, in)` dilated and its dilations ones.

    Args:
        arguments: for channels last.
    """
    dilations = list(arguments.get("dilations") or ())
    inner = dilations[1:-1]
    if all(size == 1 for size in inner):
        return dict(arguments)
    return {
        **arguments,
        "filter": _written_out(tf.convert_to_tensor(arguments["filter"]), inner),
        "dilations": [1] * len(dilations),
    }


def _written_out(kernel: Any, dilations: Sequence[int]) -> Any:
    for axis, dilation in enumerate(dilations):
        size = kernel.shape[axis]
        shape = kernel.shape.as_list()
        spaced = tf.expand_dims(kernel, axis + 1)
        gaps = [[0, 0] for _ in range(len(shape) + 1)]
        gaps[axis + 1][1] = dilation - 1
        shape[axis] = size * dilation
        kernel = tf.reshape(tf.pad(spaced, gaps), shape)
        kernel = tf.gather(kernel, tf.range((size - 1) * dilation + 1), axis=axis)
    return kernel
