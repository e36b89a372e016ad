"""Prints what one large row takes of the memory in TensorFlow, and what was foreseen: two numbers of bytes as JSON."""

import json
import re
import sys
from pathlib import Path

import keras
import numpy as np

from service.engines.tensorflow import TensorFlowEngine
from service.memory import trim
from service.surgery.cut import describe

L = keras.layers


def convolutions():
    x = inputs = keras.Input((None, None, 3), name="x")
    for filters in (16, 32):
        x = L.MaxPooling2D()(L.Conv2D(filters, 3, padding="same", activation="relu")(x))
    return keras.Model(inputs, L.GlobalAveragePooling2D()(x)), (1024, 1024, 3)


def skips():
    inputs = keras.Input((None, None, 3), name="x")
    first = L.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    x = L.Conv2D(16, 3, padding="same", activation="relu")(L.MaxPooling2D()(first))
    x = L.Concatenate()([L.UpSampling2D()(x), first])
    return keras.Model(inputs, L.Conv2D(1, 1)(x)), (1024, 1024, 3)


def attention():
    inputs = keras.Input((None, 32), name="x")
    x = L.MultiHeadAttention(4, 16)(inputs, inputs)
    return keras.Model(inputs, L.GlobalAveragePooling1D()(x)), (3000, 32)


model, shape = {"convolutions": convolutions, "skips": skips, "attention": attention}[sys.argv[1]]()
engine = TensorFlowEngine(model, describe(model))
function = engine.compile(engine.spec.predictions)
batch = {"x": np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)}
trim()


def resident_bytes(line):
    found = re.search(rf"{line}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024


Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here. Source: proc(5)
before = resident_bytes("VmRSS")
function.run(batch)
print(json.dumps([resident_bytes("VmHWM") - before, engine.activations.bytes_of(batch)]))
