"""Owns layers of Keras of every kind, by the types of numbers that they take, and models of many of them at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

ROW, SEQUENCE, IMAGE, VOLUME = (4,), (6, 4), (6, 6, 3), (4, 4, 4, 2)
INPUTS = {"row": ROW, "other": ROW, "ids": ROW, "sequence": SEQUENCE, "image": IMAGE, "volume": VOLUME}
VOCABULARY = 2  # so that booleans are indices, too

ANY, NUMBERS, FLOATS = "biuf", "iuf", "f"
SINGLE = "s"  # float32 alone, of the floats


@dataclass(frozen=True)
class Kind:
    """A layer, and what it is called with.

    Args:
        make: makes one.
        inputs: names of INPUTS.
        takes: kinds of dtypes, as numpy abbreviates them, that Keras computes it with.
        moves: OpenVINO computes it for integers, too: it passes them on, or makes floats of them first.
        apart: it takes its inputs as arguments of their own, not as a list.
    """

    make: Callable[[], Any]
    inputs: tuple[str, ...]
    takes: str = ANY
    moves: bool = False
    apart: bool = False

    def suits(self, dtype: str) -> bool:
        """Whether Keras computes it with inputs of a dtype."""
        return np.dtype(dtype).kind in self.takes or (dtype == "float32" and SINGLE in self.takes)

    def __call__(self, tensors: dict[str, Any], name: str) -> Any:
        layer = self.make()
        layer.name = name
        wanted = [tensors[source] for source in self.inputs]
        if self.apart:
            return layer(*wanted)
        return layer(wanted if len(wanted) > 1 else wanted[0])


def merging(make: Callable[[], Any], takes: str = NUMBERS, *, moves: bool = False) -> Kind:
    return Kind(make, ("row", "other"), takes, moves)


def moving(make: Callable[[], Any], source: str, takes: str = ANY) -> Kind:
    return Kind(make, (source,), takes, moves=True)


def computing(make: Callable[[], Any], source: str, takes: str = ANY) -> Kind:
    return Kind(make, (source,), takes)


KINDS = {
    # merging
    "add": merging(layers.Add),
    "subtract": merging(layers.Subtract),
    "multiply": merging(layers.Multiply),
    "average": merging(layers.Average),
    "maximum": merging(layers.Maximum),
    "minimum": merging(layers.Minimum),
    "concatenate": merging(layers.Concatenate, ANY, moves=True),
    "dot": merging(lambda: layers.Dot(1), ANY),
    # the shape
    "flatten": moving(layers.Flatten, "sequence"),
    "reshape": moving(lambda: layers.Reshape((4, 6)), "sequence"),
    "permute": moving(lambda: layers.Permute((2, 1)), "sequence"),
    "repeat": moving(lambda: layers.RepeatVector(3), "row"),
    "pad1": moving(lambda: layers.ZeroPadding1D(1), "sequence"),
    "pad2": moving(lambda: layers.ZeroPadding2D(1), "image"),
    "pad3": moving(lambda: layers.ZeroPadding3D(1), "volume"),
    "crop1": moving(lambda: layers.Cropping1D(1), "sequence"),
    "crop2": moving(lambda: layers.Cropping2D(1), "image"),
    "crop3": moving(lambda: layers.Cropping3D(1), "volume"),
    "up1": moving(lambda: layers.UpSampling1D(2), "sequence"),
    "up2": moving(lambda: layers.UpSampling2D(2), "image"),
    "up2_bilinear": computing(lambda: layers.UpSampling2D(2, interpolation="bilinear"), "image", NUMBERS),
    "up3": moving(lambda: layers.UpSampling3D(2), "volume"),
    # what only training changes
    "identity": moving(layers.Identity, "row"),
    "dropout": moving(lambda: layers.Dropout(0.5), "row"),
    "dropout1": moving(lambda: layers.SpatialDropout1D(0.5), "sequence"),
    "dropout2": moving(lambda: layers.SpatialDropout2D(0.5), "image"),
    "dropout3": moving(lambda: layers.SpatialDropout3D(0.5), "volume"),
    "gaussian_dropout": moving(lambda: layers.GaussianDropout(0.5), "row"),
    "gaussian_noise": moving(lambda: layers.GaussianNoise(0.5), "row"),
    "alpha_dropout": moving(lambda: layers.AlphaDropout(0.5), "row"),
    "regularised": computing(layers.ActivityRegularization, "row"),
    "masking": moving(layers.Masking, "sequence"),
    # pooling
    "max1": computing(lambda: layers.MaxPooling1D(2), "sequence", NUMBERS),
    "max2": computing(lambda: layers.MaxPooling2D(2), "image", NUMBERS),
    "max3": computing(lambda: layers.MaxPooling3D(2), "volume", SINGLE),
    "average1": computing(lambda: layers.AveragePooling1D(2), "sequence", FLOATS),
    "average2": computing(lambda: layers.AveragePooling2D(2), "image", FLOATS),
    "average3": computing(lambda: layers.AveragePooling3D(2), "volume", SINGLE),
    "global_max1": computing(layers.GlobalMaxPooling1D, "sequence"),
    "global_max2": computing(layers.GlobalMaxPooling2D, "image"),
    "global_max3": computing(layers.GlobalMaxPooling3D, "volume"),
    "global_average1": moving(layers.GlobalAveragePooling1D, "sequence"),
    "global_average2": moving(layers.GlobalAveragePooling2D, "image"),
    "global_average3": moving(layers.GlobalAveragePooling3D, "volume"),
    "adaptive_max1": computing(lambda: layers.AdaptiveMaxPooling1D(2), "sequence", NUMBERS),
    "adaptive_max2": computing(lambda: layers.AdaptiveMaxPooling2D(2), "image", NUMBERS),
    "adaptive_max3": computing(lambda: layers.AdaptiveMaxPooling3D(2), "volume", SINGLE),
    "adaptive_average1": computing(lambda: layers.AdaptiveAveragePooling1D(2), "sequence", FLOATS),
    "adaptive_average2": computing(lambda: layers.AdaptiveAveragePooling2D(2), "image", FLOATS),
    "adaptive_average3": computing(lambda: layers.AdaptiveAveragePooling3D(2), "volume", SINGLE),
    # activations
    "linear": moving(lambda: layers.Activation("linear"), "row"),
    "relu": computing(lambda: layers.Activation("relu"), "row", NUMBERS),
    "relu_layer": computing(layers.ReLU, "row", NUMBERS),
    "relu6": computing(lambda: layers.ReLU(6.0), "row", NUMBERS),
    "leaky_relu": moving(layers.LeakyReLU, "row", NUMBERS),
    "sigmoid": computing(lambda: layers.Activation("sigmoid"), "row", FLOATS),
    "prelu": computing(layers.PReLU, "row", FLOATS),
    "elu": computing(layers.ELU, "row", FLOATS),
    "softmax": computing(layers.Softmax, "row", FLOATS),
    # weights
    "dense": moving(lambda: layers.Dense(3), "row"),
    "einsum": moving(lambda: layers.EinsumDense("ab,bc->ac", 3), "row"),
    "spectral": computing(lambda: layers.SpectralNormalization(layers.Dense(2)), "row"),
    "embedding": moving(lambda: layers.Embedding(VOCABULARY, 3), "ids"),
    "reversible": moving(lambda: layers.ReversibleEmbedding(VOCABULARY, 3), "ids"),
    "conv1": computing(lambda: layers.Conv1D(2, 2), "sequence", FLOATS),
    "conv2": computing(lambda: layers.Conv2D(2, 2), "image", FLOATS),
    "conv3": computing(lambda: layers.Conv3D(2, 2), "volume", FLOATS),
    "transposed1": computing(lambda: layers.Conv1DTranspose(2, 2), "sequence", FLOATS),
    "transposed2": computing(lambda: layers.Conv2DTranspose(2, 2), "image", FLOATS),
    "transposed3": computing(lambda: layers.Conv3DTranspose(2, 2), "volume", FLOATS),
    "depthwise1": computing(lambda: layers.DepthwiseConv1D(2), "sequence", FLOATS),
    "depthwise2": computing(lambda: layers.DepthwiseConv2D(2), "image", FLOATS),
    "separable1": computing(lambda: layers.SeparableConv1D(2, 2), "sequence", FLOATS),
    "separable2": computing(lambda: layers.SeparableConv2D(2, 2), "image", FLOATS),
    # normalising
    "batch_norm": moving(layers.BatchNormalization, "row"),
    "layer_norm": computing(layers.LayerNormalization, "row"),
    "group_norm": computing(lambda: layers.GroupNormalization(2), "row"),
    "rms_norm": computing(layers.RMSNormalization, "row"),
    "unit_norm": computing(layers.UnitNormalization, "row", FLOATS),
    "normalised": moving(lambda: layers.Normalization(mean=1.0, variance=2.0), "row"),
    "rescaled": moving(lambda: layers.Rescaling(1 / 255, offset=1), "row"),
    # pictures
    "resized": moving(lambda: layers.Resizing(3, 3), "image"),
    "centre": moving(lambda: layers.CenterCrop(3, 3), "image"),
    "flipped": moving(layers.RandomFlip, "image"),
    # categories
    "buckets": computing(lambda: layers.Discretization(bin_boundaries=[0.0, 1.0, 5.0]), "row"),
    "many_hot": computing(lambda: layers.CategoryEncoding(VOCABULARY), "ids", "biu" + SINGLE),
    "hashed": computing(lambda: layers.Hashing(5), "row"),
    "looked_up": computing(lambda: layers.IntegerLookup(vocabulary=[1, 2, 3]), "ids"),
    # time
    "lstm": moving(lambda: layers.LSTM(2), "sequence"),
    "gru": moving(lambda: layers.GRU(2), "sequence"),
    "rnn": moving(lambda: layers.SimpleRNN(2), "sequence"),
    "both_ways": moving(lambda: layers.Bidirectional(layers.LSTM(2)), "sequence"),
    "flat_steps": moving(lambda: layers.TimeDistributed(layers.Flatten()), "image"),
    "padded_steps": moving(lambda: layers.TimeDistributed(layers.ZeroPadding1D(1)), "image"),
    # attention
    "attention": Kind(layers.Attention, ("sequence", "sequence"), FLOATS),
    "additive": Kind(layers.AdditiveAttention, ("sequence", "sequence"), NUMBERS),
    "heads": Kind(lambda: layers.MultiHeadAttention(2, 2), ("sequence", "sequence"), moves=True, apart=True),
}


def model_of(dtype: str, names: Any) -> keras.Model:
    """A model whose outputs are these kinds of layers, each called as its kind."""
    keras.utils.set_random_seed(5)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype if np.dtype(dtype).kind == "f" else "float32")
    try:
        tensors = {name: keras.Input(shape, dtype=dtype, name=name) for name, shape in INPUTS.items()}
        return keras.Model(list(tensors.values()), [KINDS[name](tensors, name) for name in names])
    finally:
        keras.config.set_dtype_policy(policy)


def rows_of(dtype: str, count: int, largest: int) -> dict[str, Any]:
    """Input name -> rows of small numbers, and of one that is as large as the type allows, at most `largest`."""
    random = np.random.default_rng(7)
    kind = np.dtype(dtype).kind
    if kind == "b":
        largest = 1
    elif kind in "iu":
        largest = min(np.iinfo(dtype).max, largest)

    def values(name: str, shape: tuple[int, ...]) -> Any:
        if name == "ids":
            return random.integers(0, VOCABULARY, (count, *shape)).astype(dtype)
        if kind == "f":
            return random.normal(size=(count, *shape)).astype(dtype)
        array = random.integers(0, min(largest, 100), (count, *shape), endpoint=True).astype(dtype)
        array.flat[0] = largest
        return array

    return {name: values(name, shape) for name, shape in INPUTS.items()}
