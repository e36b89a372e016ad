"""What is done to a config of Keras 1, 2 and tf.keras, and what is said of it; nothing here imports Keras."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import LoadError
from service.loading.legacy import Origin, repair

KERAS1, KERAS2, TF_KERAS = Origin("1.2.2"), Origin("2.2.2", "tensorflow"), Origin("2.4.0", "tensorflow")


def sequential(*layers, as_list=False):
    layers = [{"class_name": kind, "config": config} for kind, config in layers]
    return {"class_name": "Sequential", "config": layers if as_list else {"name": "s", "layers": layers}}


def functional(layers, outputs):
    entries = [
        {"class_name": kind, "name": config["name"], "config": config, "inbound_nodes": nodes}
        for kind, config, nodes in layers
    ]
    ends = {"input_layers": [[entries[0]["name"], 0, 0]], "output_layers": outputs}
    return {"class_name": "Model", "config": {"name": "m", "layers": entries, **ends}}


INPUT = ("InputLayer", {"name": "x", "batch_input_shape": [None, 4], "dtype": "float32"}, [])


def only_layer(kind, config, origin=TF_KERAS, **options):
    """The repaired entry of one layer after an input, and the words of the repairs."""
    whole = sequential(
        ("InputLayer", {"name": "x", "batch_input_shape": [None, 4]}), (kind, {"name": "a", **config})
    )
    repaired = repair(whole, origin, **options)
    return repaired.config["config"]["layers"][1], {
        sentence.partition(":")[0] for sentence in repaired.repairs
    }


def test_no_config_is_changed_in_place():
    whole = sequential(("LSTM", {"name": "a", "units": 2, "batch_input_shape": [None, 3, 4]}), as_list=True)
    before = copy.deepcopy(whole)
    repair(whole, KERAS2)
    assert whole == before


def test_a_bare_list_of_layers_gets_an_input_layer():
    repaired = repair(
        sequential(("Dense", {"name": "a", "units": 2, "batch_input_shape": [None, 3]}), as_list=True), KERAS2
    )
    first, second = repaired.config["config"]["layers"]
    assert (first["class_name"], first["config"]["batch_shape"]) == ("InputLayer", [None, 3])
    assert (second["module"], second["config"]) == (
        "keras.layers",
        {"name": "a", "units": 2, "kernel_initializer": "zeros", "bias_initializer": "zeros"},
    )
    assert [sentence.partition(":")[0] for sentence in repaired.repairs] == ["sequential-list", "input-layer"]


@pytest.mark.parametrize("origin", [KERAS1, KERAS2, TF_KERAS])
def test_hard_sigmoid_is_the_old_one(origin):
    layer, words = only_layer("Activation", {"activation": "hard_sigmoid"}, origin)
    assert layer["config"]["activation"]["config"] == "layertap>hard_sigmoid"
    assert "hard-sigmoid" in words


def test_keras_3_keeps_its_own_hard_sigmoid():
    whole = sequential(("Activation", {"name": "a", "activation": "hard_sigmoid"}))
    repaired = repair(whole, Origin("3.9.2", "tensorflow"))
    assert repaired.config["config"]["layers"][0]["config"]["activation"] == "hard_sigmoid"
    assert repaired.repairs == ()


def test_a_list_of_axes_is_kept():
    layer, _ = only_layer("Softmax", {"axis": [1, 2]})
    assert layer["config"]["axis"] == [1, 2]


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("GRU", {"units": 2}, {"reset_after": False}),
        ("LeakyReLU", {"alpha": 0.1}, {"negative_slope": 0.1}),
        ("BatchNormalization", {"axis": [3]}, {"axis": 3}),
        (
            "Dense",
            {"units": 1, "dtype": {"class_name": "Policy", "config": {"name": "mixed_float16"}}},
            {"dtype": "mixed_float16"},
        ),
        ("ReLU", {"max_value": {"type": "ndarray", "value": 6.0}}, {"max_value": 6.0}),
    ],
)
def test_arguments_mean_what_they_meant(kind, old, new):
    layer, _ = only_layer(kind, old)
    assert new.items() <= layer["config"].items()


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("BatchNormalization", {"axis": [1, 2]}),
        ("Dense", {"units": 1, "made_up": 3}),
        ("DepthwiseConv2D", {"kernel_size": 2, "groups": 2}),
        ("TFOpLambda", {"function": "io.write_file"}),
        ("TFOpLambda", {"function": "py_function"}),
        ("InstanceMethod", {"method": "x"}),
    ],
)
def test_what_would_be_computed_differently_is_refused(kind, config):
    with pytest.raises(LoadError, match="as it was trained"):
        only_layer(kind, config)


def test_batch_statistics_at_prediction_are_refused():
    with pytest.raises(LoadError, match="mode 2"):
        only_layer("BatchNormalization", {"mode": 2}, KERAS1)


def test_keras_1_words_become_those_of_today():
    old = {
        "nb_filter": 3,
        "nb_row": 2,
        "nb_col": 4,
        "border_mode": "same",
        "subsample": [1, 2],
        "dim_ordering": "th",
    }
    layer, words = only_layer(
        "Convolution2D", {**old, "init": "he_normal", "bias": False, "W_regularizer": {"name": "L2"}}, KERAS1
    )
    kept = {key: value for key, value in layer["config"].items() if not key.endswith("_initializer")}
    assert layer["class_name"] == "Conv2D"
    assert kept == {
        "name": "a",
        "filters": 3,
        "kernel_size": [2, 4],
        "padding": "same",
        "strides": [1, 2],
        "data_format": "channels_first",
        "use_bias": False,
    }
    assert words == {"keras1"}


def test_a_nested_models_own_call_is_not_counted():
    inner = functional([INPUT, ("Dense", {"name": "d", "units": 2}, [[["x", 0, 0, {}]]])], [["d", 0, 0]])
    inner["config"]["name"] = "inner"
    outer = functional(
        [
            INPUT,
            ("Model", inner["config"], [[["x", 0, 0, {}]]]),
            ("Dense", {"name": "e", "units": 1}, [[["inner", 1, 0, {}]]]),
        ],
        [["e", 0, 0]],
    )
    last = repair(outer, KERAS2).config["config"]["layers"][2]
    assert last["inbound_nodes"][0]["args"][0]["config"]["keras_history"] == ["inner", 0, 0]


def test_slashes_in_names_become_underscores_everywhere():
    whole = functional(
        [
            INPUT,
            ("Dense", {"name": "a/b", "units": 2}, [[["x", 0, 0, {}]]]),
            ("Dense", {"name": "a_b", "units": 1}, [[["a/b", 0, 0, {}]]]),
        ],
        [["a_b", 0, 0]],
    )
    repaired = repair(whole, KERAS2)
    assert [layer["name"] for layer in repaired.config["config"]["layers"]] == ["x", "a_b_", "a_b"]
    assert repaired.names == {"a_b_": "a/b"}


def test_masks_meet_as_they_did_only_where_there_are_masks():
    def merged(*extra):
        whole = functional(
            [INPUT, *extra, ("Add", {"name": "sum"}, [[["x", 0, 0, {}], ["x", 0, 0, {}]]])], [["sum", 0, 0]]
        )
        return repair(whole, TF_KERAS).config["config"]["layers"][-1]["registered_name"]

    assert merged() is None
    assert merged(("Masking", {"name": "mask"}, [[["x", 0, 0, {}]]])) == "layertap>Add"


def test_a_registered_function_runs_in_place_of_stored_code():
    stored = {"function": ["code", None, None], "function_type": "lambda", "output_shape": None}
    layer, words = only_layer("Lambda", stored, custom=("a",))
    assert layer["config"]["function"]["config"] == "a"
    assert "lambda" in words
    untouched, _ = only_layer("Lambda", stored)
    assert untouched["config"]["function"]["class_name"] == "__lambda__"


def test_custom_layers_keep_their_arguments():
    layer, _ = only_layer("Mine", {"mode": "concatenate", "input_dtype": "float32"}, custom=("Mine",))
    assert layer == {
        "class_name": "Mine",
        "module": None,
        "registered_name": "Mine",
        "config": {"name": "a", "mode": "concatenate"},
    }


def test_a_fixed_number_of_rows_is_forgotten_unless_state_needs_it():
    def batch(stateful):
        layers = [
            ("InputLayer", {"name": "x", "batch_input_shape": [8, 3, 4]}),
            ("LSTM", {"name": "a", "units": 1, "stateful": stateful}),
        ]
        return repair(sequential(*layers), KERAS2).config["config"]["layers"][0]["config"]["batch_shape"][0]

    assert (batch(stateful=False), batch(stateful=True)) == (None, 8)


def test_repairing_imports_no_keras():
    code = "import sys; import service.loading.legacy; print(sorted({'keras', 'tensorflow', 'h5py'} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
