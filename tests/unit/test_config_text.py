"""What a config's text may be, and which shapes no model has."""

import json

import pytest

from service.errors import LoadError
from service.loading.config_text import MAX_CHARACTERS, MAX_DEPTH, parse


def layer(**config):
    return {"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": config}]}}


def refusal(text):
    with pytest.raises(LoadError) as caught:
        parse(text, "model.h5")
    assert caught.value.mend
    return caught.value.message


def nested(levels):
    return '{"a":' + "[" * levels + "]" * levels + "}"


def test_an_ordinary_config_is_read():
    config = layer(units=3, batch_shape=[None, 512, 512, 3], seed=2**60, axis=-1)
    assert parse(json.dumps(config), "model.h5") == config


@pytest.mark.parametrize(
    "text", ["", "{", "nonsense", "\x00", '{"a": }', "[" * 10**6, nested(100_000), "1" * 5000]
)
def test_what_is_no_json_is_refused(text):
    assert "to be JSON" in refusal(text)


@pytest.mark.parametrize("text", ["[]", "1", '"config"', "null"])
def test_what_is_no_object_is_refused(text):
    assert "JSON object" in refusal(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (nested(MAX_DEPTH + 1), "levels"),
        ('{"a": [' + "0," * 1_000_001 + "0]}", "values"),
        (json.dumps(layer(batch_shape=[None, 10**60])), "'batch_shape' of 10^60"),
        (json.dumps(layer(batch_shape=[None, 10**5, 10**5, 3])), "'batch_shape' of 100000x100000x3"),
        (" " * MAX_CHARACTERS + "{}", "characters"),
    ],
)
def test_what_no_model_has_is_refused_with_its_reason(text, reason):
    assert reason in refusal(text)


def test_recurrent_layers_are_not_unrolled_and_others_keep_their_arguments():
    config = layer(unroll=True)
    config["config"]["layers"].append({"class_name": "LSTM", "config": {"units": 3, "unroll": True}})
    other, recurrent = parse(json.dumps(config), "model.h5")["config"]["layers"]
    assert other["config"] == {"unroll": True}
    assert recurrent["config"] == {"units": 3, "unroll": False}
