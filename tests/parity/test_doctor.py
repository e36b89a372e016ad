"""The doctor's lists and shapes against Keras itself."""

import keras
import pytest
from keras.src import activations

from service.loading.building import _layer_names
from service.loading.builtin_objects import builtin_objects
from service.tools.doctor import known_names
from service.tools.doctor.examine import examine
from service.tools.doctor.report import Verdict

L = keras.layers


def test_the_names_that_need_no_definition_are_those_of_keras_and_ours():
    assert _layer_names() == known_names.LAYERS
    assert set(activations.ALL_OBJECTS_DICT) == known_names.ACTIVATIONS
    assert set(builtin_objects()) == known_names.BUILTIN_OBJECTS


def picture_model():
    inputs = keras.Input((32, 24, 3))
    x = L.Conv2D(8, 3, strides=2, padding="same")(inputs)
    x = L.BatchNormalization()(x)
    x = L.DepthwiseConv2D(3, depth_multiplier=2)(L.ZeroPadding2D(2)(x))
    x = L.Concatenate()([x, L.SeparableConv2D(4, 1)(x)])
    x = L.UpSampling2D(2)(L.MaxPooling2D(2)(x))
    x = L.GlobalAveragePooling2D(keepdims=True)(x)
    return keras.Model(inputs, L.Dense(5)(L.Flatten()(x)))


def text_model():
    inputs = keras.Input((None,))
    x = L.Embedding(50, 8)(inputs)
    x = L.Bidirectional(L.LSTM(6, return_sequences=True))(x)
    x = L.Conv1D(7, 3, padding="causal")(x)
    x = L.TimeDistributed(L.Dense(4))(x)
    return keras.Model(inputs, [L.GRU(3)(x), L.GlobalMaxPooling1D()(x)])


def nested_model():
    inner = keras.Sequential([keras.Input((4,)), L.Dense(6), L.Reshape((3, 2))], name="inner")
    inputs = keras.Input((4,))
    return keras.Model(inputs, L.Flatten()(inner(inputs)))


@pytest.mark.parametrize("ending", ["h5", "keras"])
@pytest.mark.parametrize("make", [picture_model, text_model, nested_model])
def test_shapes_and_parameters_are_those_of_keras(tmp_path, make, ending):
    model = make()
    path = tmp_path / f"model.{ending}"
    model.save(path)
    report = examine(path)
    assert report.verdict is Verdict.GOOD, report.sentence
    assert report.parameters == model.count_params()
    assert [row.shape for row in report.outputs] == [tuple(output.shape) for output in model.outputs]
    found = {row.path: (row.parameters, row.shape) for row in report.layers if "/" not in row.path}
    assert found == {layer.name: (layer.count_params(), tuple(layer.output.shape)) for layer in model.layers}
