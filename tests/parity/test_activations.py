"""What rows of any size need of the memory: foreseen from the graph, held against what TensorFlow then takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from service.engines.tensorflow import TensorFlowEngine
from service.surgery.cut import describe

ROOT = Path(__file__).parents[2]
MEASURE = Path(__file__).with_name("measure_activations.py")
MIB = 2**20


def engine_of(model):
    return TensorFlowEngine(model, describe(model))


def rows_of(*shape):
    return {"x": np.zeros((1, *shape), np.float32)}


@pytest.fixture(scope="module")
def segmenter():
    x = inputs = keras.Input((None, None, 3), name="x")
    for filters in (8, 16):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    return engine_of(keras.Model(inputs, keras.layers.Conv2D(1, 1)(x)))


def test_models_whose_rows_have_one_size_need_no_foresight():
    inputs = keras.Input((8,), name="x")
    assert engine_of(keras.Model(inputs, keras.layers.Dense(2)(inputs))).activations is None


def test_convolutions_need_memory_in_proportion(segmenter):
    foreseen = segmenter.activations
    small, large = (foreseen.bytes_of(rows_of(side, side, 3)) for side in (100, 1000))
    assert foreseen.power == pytest.approx(1.0, abs=0.01)
    assert large == pytest.approx(100 * small, rel=0.05)
    # Two tensors of 16 channels are alive at once, or one beside one of 8.
    assert 24 * 4 * 1_000_000 <= large <= 4 * 32 * 4 * 1_000_000


def test_rows_side_by_side_need_it_each(segmenter):
    one, many = (np.zeros((rows, 64, 64, 3), np.float32) for rows in (1, 8))
    foreseen = segmenter.activations
    assert foreseen.bytes_of({"x": many}) == 8 * foreseen.bytes_of({"x": one})


def test_attention_needs_it_by_the_square():
    inputs = keras.Input((None, 16), name="x")
    attended = keras.layers.MultiHeadAttention(4, 16)(inputs, inputs)
    foreseen = engine_of(keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(attended))).activations
    assert 1.5 < foreseen.power <= 2.05
    assert foreseen.bytes_of(rows_of(4096, 16)) > 4 * 4096**2 * 4  # the weights of four heads


def test_inputs_of_several_kinds_and_sizes_count_together():
    words = keras.Input((None,), dtype="int32", name="words")
    fixed = keras.Input((4,), name="fixed")
    embedded = keras.layers.GlobalMaxPooling1D()(keras.layers.Embedding(50, 32)(words))
    model = keras.Model([words, fixed], keras.layers.Concatenate()([embedded, fixed]))
    foreseen = engine_of(model).activations
    inputs = {"words": np.zeros((1, 10_000), np.int32), "fixed": np.zeros((1, 4), np.float32)}
    assert foreseen.bytes_of(inputs) > 10_000 * 32 * 4


@pytest.mark.parametrize("name", ["convolutions", "skips", "attention"])
def test_a_run_takes_about_what_was_foreseen(name):
    """In a process of its own, whose memory nobody else changes."""
    done = subprocess.run(
        [sys.executable, MEASURE, name],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    measured, foreseen = json.loads(done.stdout.splitlines()[-1])
    assert measured > 64 * MIB  # else it says little
    assert 0.8 * measured <= foreseen <= 4 * measured
