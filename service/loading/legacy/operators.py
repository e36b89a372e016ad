"""Owns tf.keras' operator layers: which of TensorFlow's functions a config may name, and how they are called.

A functional model of tf.keras records `x + 1` as a layer that names `__operators__.add`. A config is a
stranger's: only the functions below, which compute numbers from numbers, may be named.

Source: keras-team/tf-keras@v2.21.0 `tf_keras/layers/core/tf_op_layer.py`.
"""

from __future__ import annotations

from service.loading.legacy.record import Entry, Record, layer_name, unrepairable

_TOP = """
abs acos acosh add add_n argmax argmin argsort asin asinh atan atan2 atanh bitcast boolean_mask broadcast_to cast
clip_by_norm clip_by_value complex concat convert_to_tensor cos cosh cumsum divide einsum equal exp
expand_dims eye fill floor gather gather_nd greater greater_equal identity is_tensor less less_equal
linspace logical_and logical_not logical_or matmul maximum meshgrid minimum multiply negative norm not_equal one_hot ones ones_like pad pow range rank realdiv reduce_all reduce_any
reduce_logsumexp reduce_max reduce_mean reduce_min reduce_prod reduce_sum repeat reshape
reverse reverse_sequence roll round scalar_mul searchsorted sequence_mask shape sigmoid sign sin sinh size
slice sort split sqrt square squeeze stack stop_gradient strided_slice subtract tan tanh tensordot tensor_scatter_nd_update
tile transpose truediv truncatediv truncatemod unstack where zeros zeros_like
"""
_OPERATORS = """
add eq ne getitem """
_MATH = """
abs accumulate_n acos acosh add add_n angle argmax argmin asin asinh atan atan2 atanh bincount ceil conj
confusion_matrix cos cosh count_nonzero cumprod cumsum cumulative_logsumexp digamma divide divide_no_nan equal erf
erfc erfinv exp expm1 floor floordiv floormod greater greater_equal imag in_top_k invert_permutation is_finite
is_inf is_nan is_non_decreasing is_strictly_increasing l2_normalize less less_equal lgamma log log1p log_sigmoid
log_softmax logical_and logical_not logical_or logical_xor maximum minimum mod multiply multiply_no_nan ndtri
negative nextafter not_equal pow real reciprocal reciprocal_no_nan reduce_all reduce_any reduce_euclidean_norm
reduce_logsumexp reduce_max reduce_mean reduce_min reduce_prod reduce_std reduce_sum reduce_variance rint round
rsqrt scalar_mul segment_max segment_mean segment_min segment_prod segment_sum sigmoid sign sin sinh softmax
softplus softsign sqrt square squared_difference subtract tan tanh top_k truediv unsorted_segment_max
unsorted_segment_mean unsorted_segment_min unsorted_segment_prod unsorted_segment_sum xdivy xlog1py xlogy
zero_fraction
"""
_NN = """
atrous_conv2d avg_pool avg_pool1d avg_pool2d avg_pool3d batch_normalization bias_add conv1d conv1d_transpose conv2d
conv2d_transpose conv3d conv3d_transpose conv_transpose convolution crelu depth_to_space depthwise_conv2d dilation2d
elu embedding_lookup erosion2d gelu l2_loss l2_normalize leaky_relu local_response_normalization log_softmax lrn
max_pool max_pool1d max_pool2d max_pool3d max_pool_with_argmax moments pool relu relu6 selu
separable_conv2d sigmoid silu softmax softplus softsign space_to_batch space_to_depth swish tanh top_k
weighted_moments zero_fraction
"""
_LINALG = """
adjoint band_part cross diag diag_part einsum eye l2_normalize matmul matrix_transpose matvec norm normalize
set_diag tensordot trace
"""
_IMAGE = """
adjust_brightness adjust_contrast adjust_gamma adjust_hue adjust_saturation central_crop convert_image_dtype
crop_and_resize crop_to_bounding_box extract_patches flip_left_right flip_up_down grayscale_to_rgb hsv_to_rgb
image_gradients pad_to_bounding_box per_image_standardization resize resize_with_crop_or_pad resize_with_pad
rgb_to_grayscale rgb_to_hsv rgb_to_yiq rgb_to_yuv rot90 sobel_edges total_variation transpose yiq_to_rgb yuv_to_rgb
"""
_SIGNAL = "fft fft2d fft3d ifft ifft2d ifft3d rfft irfft stft inverse_stft frame overlap_and_add dct idct fftshift ifftshift"
_OLD = """
argmax argmin batch_to_space cast concat div expand_dims floor_div gather gather_nd image.resize
image.resize_bilinear image.resize_nearest_neighbor math.log_softmax math.reduce_max math.reduce_mean
math.reduce_min math.reduce_sum math.softmax nn.avg_pool nn.bias_add nn.conv1d nn.conv2d nn.depthwise_conv2d nn.max_pool
nn.softmax norm pad reduce_max reduce_mean reduce_min reduce_sum reverse_sequence shape size space_to_batch space_to_depth
split squeeze strided_slice to_float to_int32 transpose where zeros_like ones_like
"""

SYMBOLS = frozenset(
    [
        *_TOP.split(),
        *(f"__operators__.{name}" for name in _OPERATORS.split()),
        *(f"math.{name}" for name in _MATH.split()),
        *(f"nn.{name}" for name in _NN.split()),
        *(f"linalg.{name}" for name in _LINALG.split()),
        *(f"image.{name}" for name in _IMAGE.split()),
        *(f"signal.{name}" for name in _SIGNAL.split()),
        *(f"compat.v1.{name}" for name in _OLD.split()),
    ]
)
"""TensorFlow's functions that a config may name, without their `tf.`."""

_FUNCTIONS = {"TFOpLambda", "SlicingOpLambda"}
_METHODS = {"ClassMethod", "InstanceMethod", "InstanceProperty", "TensorFlowOpLayer"}


def operator(entry: Entry, record: Record) -> None:
    """tf.keras 2.4-2.15: an operator on tensors is a layer that names a function of TensorFlow.

    Raises:
        LoadError: the function is not one of those that may be named.
    """
    kind, config = entry["class_name"], entry["config"]
    if kind in _METHODS:
        raise unrepairable(
            entry, "a method of TensorFlow's own classes", "Write it as a layer, and save the model again."
        )
    if kind not in _FUNCTIONS:
        return
    symbol = config.get("function")
    if symbol not in SYMBOLS:
        raise unrepairable(
            entry,
            f"the function {symbol!r}, which is none that a file may name",
            "Define the step as a layer in custom_objects.py, and save the model again.",
        )
    entry["class_name"] = "layertap>TensorFlowOperator"
    entry["config"] = {"name": config.get("name"), "symbol": symbol}
    record.changed("operators", "operators of TensorFlow run as layers", layer_name(entry))
