"""Owns what every peer does with Keras: decoding a body, loading a model, calling it.

The call is the environment variable PEER_CALL:

- `predict`: `model.predict`, as tutorials do;
- `call`: `model(x)`, as Keras' documentation advises for small inputs;
- `predict_on_batch`: the documented path of a model whose batches come from a server;
- `compiled`: a concrete function with a free batch axis, as service/engines/tensorflow.py makes.
"""

from __future__ import annotations

import functools
import io
import json
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from endpoints import Endpoint, model_file
from PIL import Image

Run = Callable[[np.ndarray], np.ndarray]
_CAFFE_MEANS = np.array([103.939, 116.779, 123.68], np.float32)  # BGR, as keras.applications subtracts them


def open_run(endpoint: Endpoint) -> Run:
    """The warm model of an endpoint: (N, *shape) float32 -> (N, ...) float32."""
    model = _cut(endpoint)
    run = _CALLS[os.environ.get("PEER_CALL", "predict_on_batch")](model, endpoint)
    for rows in (1, 2, endpoint.batch):  # the first batch sizes are traced one by one
        run(np.zeros((rows, *endpoint.shape), np.float32))
    return run


def decode(endpoint: Endpoint, body: bytes) -> np.ndarray:
    """A request's rows: (N, *shape) float32."""
    if endpoint.form == "json":
        return np.asarray(json.loads(body)["instances"], np.float32)
    if endpoint.form == "npy":
        return np.load(io.BytesIO(body))
    return decode_picture(endpoint, body)[np.newaxis]


def decode_picture(endpoint: Endpoint, body: bytes) -> np.ndarray:
    """A JPEG as `load_img`, `img_to_array` and `preprocess_input` make it: (224, 224, 3) float32."""
    return scale(endpoint, Image.open(io.BytesIO(body)))


def scale(endpoint: Endpoint, image: Image.Image) -> np.ndarray:
    """A picture in the endpoint's size and range: (224, 224, 3) float32, RGB -1..1 or BGR less the means."""
    height, width = endpoint.shape[:2]
    small = image.convert("RGB").resize((width, height), Image.Resampling.NEAREST)
    pixels = np.asarray(small, np.float32)
    if endpoint.mode == "caffe":
        return pixels[..., ::-1] - _CAFFE_MEANS
    return pixels / 127.5 - 1.0


def encode(endpoint: Endpoint, outputs: np.ndarray) -> bytes:
    """The reply in the request's form: npy for npy, else `{"predictions": rows}`."""
    if endpoint.form == "npy":
        buffer = io.BytesIO()
        np.save(buffer, outputs)
        return buffer.getvalue()
    return json.dumps({"predictions": outputs.tolist()}).encode()


def content_type(endpoint: Endpoint) -> str:
    """Of the reply."""
    return "application/x-npy" if endpoint.form == "npy" else "application/json"


@functools.cache
def _load(path: str) -> Any:
    return keras.models.load_model(path, compile=False)


def _cut(endpoint: Endpoint) -> Any:
    model = _load(str(model_file(endpoint)))
    if endpoint.layer is None:
        return model
    tensor = model.get_layer(endpoint.layer).output
    if endpoint.pooled:
        tensor = keras.layers.GlobalAveragePooling2D()(tensor)
    return keras.Model(model.inputs, tensor)


def _predict(model: Any, _: Endpoint) -> Run:
    return lambda rows: model.predict(rows, verbose=0)


def _call(model: Any, _: Endpoint) -> Run:
    return lambda rows: model(rows, training=False).numpy()


def _predict_on_batch(model: Any, _: Endpoint) -> Run:
    return model.predict_on_batch


def _compiled(model: Any, endpoint: Endpoint) -> Run:
    signature = [tf.TensorSpec([None, *endpoint.shape], tf.float32)]
    traced = tf.function(lambda rows: model(rows, training=False), input_signature=signature, autograph=False)
    concrete = traced.get_concrete_function()
    return lambda rows: concrete(tf.constant(rows)).numpy()


_CALLS = {"predict": _predict, "call": _call, "predict_on_batch": _predict_on_batch, "compiled": _compiled}
