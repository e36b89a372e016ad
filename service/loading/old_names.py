"""Owns the tables of what old Keras and TensorFlow 1 called things, and what Keras 3 calls them.

A template takes the arguments of the call by position; where a call gives fewer, the name alone is replaced.

Source: keras-team/keras@2.2.4 `keras/backend/tensorflow_backend.py` and `keras/legacy/interfaces.py`,
keras-team/keras@1.2.2 `keras/engine/topology.py`, and keras/src/ops of Keras 3.15.1.
"""

from __future__ import annotations

from collections.abc import Mapping

BACKEND_KEPT = frozenset(
    [
        *["backend", "clear_session", "epsilon", "floatx", "get_uid", "image_data_format", "is_float_dtype"],
        *["is_int_dtype", "is_keras_tensor", "set_epsilon", "set_floatx", "set_image_data_format"],
    ]
)
"""What `keras.backend` still has in Keras 3."""

_SAME = (
    "abs all any arange argmax argmin batch_normalization binary_crossentropy cast categorical_crossentropy clip "
    "concatenate cos ctc_decode cumprod cumsum dot dtype elu equal exp expand_dims eye greater greater_equal "
    "in_top_k less less_equal log logsumexp max maximum mean min minimum ndim not_equal one_hot ones ones_like "
    "prod relu repeat reshape round shape sigmoid sign sin softmax softplus softsign "
    "sparse_categorical_crossentropy sqrt square squeeze stack std stop_gradient sum tanh tile transpose var "
    "zeros zeros_like"
)

BACKEND: Mapping[str, str] = {name: f"keras.ops.{name}" for name in _SAME.split()} | {
    "constant": "keras.ops.convert_to_tensor",
    "eval": "keras.ops.convert_to_numpy",
    "gather": "keras.ops.take",
    "get_value": "keras.ops.convert_to_numpy",
    "identity": "keras.ops.copy",
    "map_fn": "keras.ops.vectorized_map",
    "permute_dimensions": "keras.ops.transpose",
    "pow": "keras.ops.power",
    "repeat_elements": "keras.ops.repeat",
    "resize_images": "keras.ops.image.resize",
    "reverse": "keras.ops.flip",
    "switch": "keras.ops.where",
    "variable": "keras.Variable",
    "random_normal": "keras.random.normal",
    "random_uniform": "keras.random.uniform",
    "truncated_normal": "keras.random.truncated_normal",
    "dropout": "keras.random.dropout",
    "image_dim_ordering": "keras.config.image_data_format",
    "tf": "tensorflow",
}
"""Function of `keras.backend` -> where it is now."""

BACKEND_TEMPLATES: Mapping[str, str] = {
    "batch_dot": "keras.layers.dot([{0}, {1}], axes={2})",
    "batch_flatten": "keras.ops.reshape({0}, (keras.ops.shape({0})[0], -1))",
    "bias_add": "{0} + {1}",
    "cast_to_floatx": "keras.ops.cast({0}, keras.config.floatx())",
    "flatten": "keras.ops.reshape({0}, (-1,))",
    "hard_sigmoid": "keras.ops.clip(0.2 * {0} + 0.5, 0, 1)",
    "in_test_phase": "{1} if training else {0}",
    "in_train_phase": "{0} if training else {1}",
    "int_shape": "{0}.shape",
    "l2_normalize": "keras.ops.normalize({0}, axis={1}, epsilon=1e-12)",
    "learning_phase": "training",
    "ndim": "len({0}.shape)",
    "set_value": "{0}.assign({1})",
    "temporal_padding": "keras.ops.pad({0}, ((0, 0), {1}, (0, 0)))",
    "update": "{0}.assign({1})",
}
"""Function of `keras.backend` -> the expression that does the same."""

BACKEND_DEFAULTS: Mapping[str, tuple[int, str]] = {
    "argmax": (1, "axis=-1"),
    "argmin": (1, "axis=-1"),
    "concatenate": (1, "axis=-1"),
    "cumprod": (1, "axis=0"),
    "cumsum": (1, "axis=0"),
    "expand_dims": (1, "axis=-1"),
    "gather": (2, "axis=0"),
}
"""Function -> an argument whose default is another one now, and the position it may be given at."""

MODULES: Mapping[str, str] = {
    "keras.engine": "keras.layers",
    "keras.engine.base_layer": "keras.layers",
    "keras.engine.input_layer": "keras.layers",
    "keras.engine.network": "keras.models",
    "keras.engine.sequential": "keras.models",
    "keras.engine.topology": "keras.layers",
    "keras.engine.training": "keras.models",
    "keras.initializations": "keras.initializers",
    "keras.layers.advanced_activations": "keras.layers",
    "keras.layers.convolutional": "keras.layers",
    "keras.layers.core": "keras.layers",
    "keras.layers.embeddings": "keras.layers",
    "keras.layers.local": "keras.layers",
    "keras.layers.merge": "keras.layers",
    "keras.layers.noise": "keras.layers",
    "keras.layers.normalization": "keras.layers",
    "keras.layers.pooling": "keras.layers",
    "keras.layers.recurrent": "keras.layers",
    "keras.layers.wrappers": "keras.layers",
    "keras.objectives": "keras.losses",
    "keras.utils.generic_utils": "keras.saving",
    "keras.utils.np_utils": "keras.utils",
}
"""Module that is gone -> where its names are now."""

ATTRIBUTES: Mapping[str, str] = {"get_output_shape_for": "compute_output_shape"}
"""Method of layers -> its name now."""

KEYWORDS: Mapping[str, str] = {
    "b_constraint": "bias_constraint",
    "b_regularizer": "bias_regularizer",
    "bias": "use_bias",
    "border_mode": "padding",
    "filter_length": "kernel_size",
    "init": "kernel_initializer",
    "inner_activation": "recurrent_activation",
    "inner_init": "recurrent_initializer",
    "input": "inputs",
    "nb_filter": "filters",
    "output": "outputs",
    "output_dim": "units",
    "p": "rate",
    "subsample": "strides",
    "subsample_length": "strides",
    "U_regularizer": "recurrent_regularizer",
    "W_constraint": "kernel_constraint",
    "W_regularizer": "kernel_regularizer",
}
"""Argument of a Keras 1 layer or model -> its name now; `Embedding` kept its own."""

TENSORFLOW: Mapping[str, str] = {
    "ceil": "math.ceil",
    "cholesky": "linalg.cholesky",
    "depth_to_space": "nn.depth_to_space",
    "div": "math.divide",
    "erf": "math.erf",
    "invert_permutation": "math.invert_permutation",
    "is_finite": "math.is_finite",
    "is_inf": "math.is_inf",
    "is_nan": "math.is_nan",
    "lgamma": "math.lgamma",
    "log": "math.log",
    "log1p": "math.log1p",
    "log_sigmoid": "math.log_sigmoid",
    "matrix_band_part": "linalg.band_part",
    "matrix_diag": "linalg.diag",
    "matrix_inverse": "linalg.inv",
    "mod": "math.floormod",
    "random_normal": "random.normal",
    "random_uniform": "random.uniform",
    "reciprocal": "math.reciprocal",
    "rsqrt": "math.rsqrt",
    "segment_sum": "math.segment_sum",
    "space_to_depth": "nn.space_to_depth",
    "sparse_tensor_to_dense": "sparse.to_dense",
    "truncated_normal": "random.truncated_normal",
    "unsorted_segment_sum": "math.unsorted_segment_sum",
}
"""Function of TensorFlow 1 -> where it is now, below `tf`."""

TENSORFLOW_TEMPLATES: Mapping[str, str] = {
    "to_double": "{tf}.cast({0}, 'float64')",
    "to_float": "{tf}.cast({0}, 'float32')",
    "to_int32": "{tf}.cast({0}, 'int32')",
    "to_int64": "{tf}.cast({0}, 'int64')",
}
"""Function of TensorFlow 1 -> the expression that does the same."""

WEIGHT_ARGUMENTS = (
    ("shape", "initializer", "name", "trainable", "regularizer", "constraint"),  # Keras 1
    ("name", "shape", "dtype", "initializer", "regularizer", "trainable", "constraint"),  # Keras 2
)
"""What `Layer.add_weight` took by position; in Keras 2 the name came first."""
