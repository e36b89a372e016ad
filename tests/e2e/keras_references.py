"""What Keras itself answers: the shipped models loaded in this process, and any tensor of them."""

import importlib.util
from functools import cache

import keras
import numpy as np
from serving import MODELS

from service.loading.builtin_objects import builtin_objects

TOLERANCE = 1e-5  # of the tensor's scale, float32


@cache
def shipped(name):
    """A shipped model, as Keras loads it."""
    objects = builtin_objects()
    own = MODELS / name / "custom_objects.py"
    if own.is_file():
        spec = importlib.util.spec_from_file_location(f"objects_of_{name}", own)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        objects |= {"LowRankProduct": module.LowRankProduct}
    return keras.models.load_model(MODELS / name / "1" / "model.h5", custom_objects=objects, compile=False)


def predict(model, rows):
    """The model's outputs; `rows` as one array, or as a dict keyed by input."""
    given = [rows[spec.name] for spec in model.inputs] if isinstance(rows, dict) else rows
    return keras.tree.map_structure(np.asarray, model(given, training=False))


def tensor(model, path, rows):
    """A layer's output by Keras' own means: `pool`, `code:1` (its second use), `base/product` (nested)."""
    if isinstance(rows, dict):
        rows = [rows[spec.name] for spec in model.inputs]
    elif not isinstance(rows, list):
        rows = [rows]
    head, _, rest = path.partition("/")
    name, _, use = head.partition(":")
    inputs = [spec.name for spec in model.inputs]
    if name in inputs:
        return np.asarray(rows[inputs.index(name)])
    layer = model.get_layer(name)
    called = layer._inbound_nodes[int(use or 0)]
    if not rest:
        by_call = use or isinstance(layer, keras.Model)  # a model's `output` is that of its own graph
        output = called.output_tensors[0] if by_call else layer.output
        return np.asarray(keras.Model(model.inputs, output)(rows, training=False))
    entered = keras.Model(model.inputs, called.input_tensors)
    return tensor(layer, rest, entered(rows, training=False))


def assert_equal_to_keras(got, wanted, what):
    wanted = np.asarray(wanted)
    assert got.shape == wanted.shape, what
    assert got.dtype == wanted.dtype, what
    difference = np.abs(got - wanted).max() / np.abs(wanted).max()
    assert difference <= TOLERANCE, f"{what}: {difference:g} of its scale"
