"""What tf_keras may be given to build, and how it is written for it."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import LoadError
from service.loading.tf_keras_vetting import as_keras2, refuse_for_tf_keras

LAYERS = {"Sequential", "Dense", "GRU", "LSTM", "Lambda", "CuDNNGRU", "CuDNNLSTM"}
TENSOR = [["input_1", 0, 0, {}]]


def model_with(*layers):
    return {"class_name": "Functional", "config": {"name": "m", "layers": list(layers)}}


def layer(class_name, module=None, nodes=(), **config):
    entry = {"class_name": class_name, "config": {"name": "it", **config}, "inbound_nodes": list(nodes)}
    return entry if module is None else {"module": module, **entry}


@pytest.mark.parametrize(
    "harm",
    [
        layer("Lambda", function=["4wEA", None, None], function_type="lambda"),
        layer("Dense", "os"),
        layer("Dense", "keras.src.utils.file_utils"),
        layer("Dense", kernel_initializer={"class_name": "get_file", "module": "keras.utils", "config": {}}),
        layer("Dense", activation={"class_name": "function", "module": "shutil", "config": "rmtree"}),
        layer("ClassMethod", cls_symbol="io.gfile.GFile", method_name="write"),
        layer("InstanceMethod", attr_name="numpy"),
        layer("TensorFlowOpLayer", node_def="op: 'WriteFile'"),
        layer("TFOpLambda", nodes=[TENSOR], function="io.write_file"),
        layer("TFOpLambda", nodes=[TENSOR], function="py_function"),
        layer("TFOpLambda", nodes=[TENSOR], function=None),
        layer("TFOpLambda", nodes=[["_CONSTANT_VALUE", -1, [10**9], {}]], function="zeros"),
        layer("TFOpLambda", nodes=[["_CONSTANT_VALUE", -1, 5, {"value": [1, 2, 3]}]], function="fill"),
        layer("StringLookup", vocabulary="/etc/passwd"),
        layer("TimeDistributed", layer=layer("TextVectorization", vocabulary="words.txt")),
        layer(["Dense"]),
    ],
)
def test_what_would_run_or_read_is_refused(harm):
    with pytest.raises(LoadError, match="Expected layers and no code"):
        refuse_for_tf_keras(model_with(layer("Dense"), harm))


@pytest.mark.parametrize(
    "fine",
    [
        layer("Dense"),
        layer(
            "Dense", kernel_initializer={"class_name": "Zeros", "module": "keras.initializers", "config": {}}
        ),
        layer("Lambda", function="named", function_type="function"),
        layer("TFOpLambda", nodes=[TENSOR], function="math.reduce_mean"),
        layer("TFOpLambda", nodes=[["_CONSTANT_VALUE", -1, 1, {"y": ["x", 0, 0]}]], function="math.subtract"),
        layer("TFOpLambda", nodes=[["x", 0, 0, {"axis": 1}], ["y", 0, 0, {}]], function="concat"),
        layer(
            "SlicingOpLambda",
            nodes=[["x", 0, 0, {"slice_spec": [{"start": 0}]}]],
            function="__operators__.getitem",
        ),
        layer("StringLookup", vocabulary=["a", "b"]),
        layer("Hashing", num_bins=3),
    ],
)
def test_layers_and_listed_functions_pass(fine):
    refuse_for_tf_keras(model_with(fine))


def test_the_operators_objects_may_be_of_any_module():
    theirs = {**layer("Mine", "training_script"), "registered_name": "shop>Mine"}
    function = layer("Dense", activation={"class_name": "function", "module": "script", "config": "mine"})
    for config in (theirs, function):
        with pytest.raises(LoadError):
            refuse_for_tf_keras(model_with(config))
        refuse_for_tf_keras(model_with(config), {"shop>Mine", "mine"})


def test_training_is_left_out_of_kerass_own_layers_only():
    settings = {"kernel_initializer": {"class_name": "Theirs", "config": {}}, "kernel_regularizer": "l2"}
    config = model_with(layer("Dense", units=3, **settings), layer("Mine", **settings))
    before = copy.deepcopy(config)
    own, theirs = as_keras2(config, LAYERS)["config"]["layers"]
    assert own["config"] == {
        "name": "it",
        "units": 3,
        "kernel_initializer": "zeros",
        "kernel_regularizer": None,
    }
    assert theirs["config"] == {"name": "it", **settings}
    assert config == before


def test_recurrent_layers_get_the_defaults_that_their_files_do_not_store():
    stored = [layer("GRU"), layer("GRU", reset_after=True), layer("CuDNNGRU"), layer("CuDNNLSTM")]
    changed = as_keras2(model_with(*stored), LAYERS)["config"]["layers"]
    assert [entry["class_name"] for entry in changed] == ["GRU", "GRU", "GRU", "LSTM"]
    assert [entry["config"].get("reset_after") for entry in changed] == [False, True, True, None]
    assert [entry["config"].get("recurrent_activation") for entry in changed] == [
        None,
        None,
        "sigmoid",
        "sigmoid",
    ]


def test_a_lambdas_module_is_not_looked_into():
    config = model_with(layer("Lambda", function="named", function_type="function"))
    config["config"]["layers"][0]["config"]["module"] = "os"
    (entry,) = as_keras2(config, LAYERS)["config"]["layers"]
    assert entry["config"]["module"] is None


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["class_name", "config", "module", "function", "inbound_nodes", "layers"]), inner
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_no_json_raises_anything_else(value):
    try:
        refuse_for_tf_keras(value)
    except LoadError as error:
        assert error.message  # noqa: PT017 -- most values are fine and do not raise
    else:
        as_keras2({"class_name": "Functional", "config": value}, LAYERS)
