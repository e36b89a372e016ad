"""What a config may name, and what it may not hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import LoadError
from service.loading.vetting import names, refuse_strangers, stored_code, without_compilation

LAYERS = {"Sequential", "Dense", "Lambda", "TimeDistributed"}


def model_with(*layers):
    return {"class_name": "Sequential", "config": {"name": "m", "layers": list(layers)}}


def layer(class_name="Dense", module=None, **config):
    entry = {"class_name": class_name, "config": {"name": "this_one", **config}}
    return entry if module is None else {"module": module, **entry}


@pytest.mark.parametrize(
    "code",
    [
        layer("Lambda", function=["4wEA", None, None], function_type="lambda"),
        layer("Lambda", function="4wEA", function_type="lambda"),
        layer("Lambda", function="4wEA"),
        layer("Lambda", "keras.layers", function={"class_name": "__lambda__", "config": {"code": "4wEA"}}),
        layer(
            "Lambda",
            function="named",
            function_type="function",
            output_shape=["4w"],
            output_shape_type="lambda",
        ),
        layer("TimeDistributed", layer=layer("Lambda", function=["4wEA", None, None])),
        layer("Dense", activation={"class_name": "__lambda__", "config": {"value": "4wEA"}}),
        layer("TFSMLayer", "keras.layers", filepath="program"),
        layer("TorchModuleWrapper", "keras.layers", program="bytes"),
    ],
)
def test_stored_code_is_found_at_any_depth(code):
    assert stored_code(model_with(layer(), code))
    assert stored_code(model_with(model_with(code)))


@pytest.mark.parametrize(
    "plain",
    [
        layer(),
        layer("Lambda", function="named", function_type="function"),
        layer("Lambda", function={"class_name": "function", "config": "named", "module": "builtins"}),
    ],
)
def test_names_of_functions_are_no_code(plain):
    assert stored_code(model_with(plain)) == []


@pytest.mark.parametrize(
    "stranger",
    [
        layer("system", "os"),
        layer("eval", "builtins"),
        layer("__import__", "builtins"),
        layer("Dense", "kerasx"),
        layer("get_file", "keras.utils"),
        layer("utils.get_file", "keras"),
        layer("deserialize_keras_object", "keras.legacy.saving"),
        layer("Unheard"),
        layer("deserialize"),
        layer("Dense", kernel_regularizer={"class_name": "run", "module": "subprocess", "config": {}}),
        layer("Dense", activation={"class_name": "function", "module": "shutil", "config": "rmtree"}),
        layer("Dense", activation={"class_name": 3, "module": "keras.layers", "config": {}}),
        layer("Dense", activation={"class_name": "Dense", "module": 3, "config": {}}),
        layer("TimeDistributed", layer=layer("Unheard")),
    ],
)
def test_strangers_are_refused(stranger):
    with pytest.raises(LoadError) as caught:
        refuse_strangers(model_with(stranger), layers=LAYERS, offered=())
    assert "custom_objects.py" in caught.value.mend


@pytest.mark.parametrize(
    ("known", "offered"),
    [
        (layer(), ()),
        (layer("Dense", "keras.layers"), ()),
        (layer("Add", "keras.src.ops.numpy"), ()),
        (layer("Mine"), ("Mine",)),
        (layer("shop>Mine"), ("shop>Mine",)),
        ({**layer("Mine", "training_script"), "registered_name": "shop>Mine"}, ("shop>Mine",)),
        (layer(activation={"class_name": "function", "module": "builtins", "config": "relu"}), ()),
        (layer(activation={"class_name": "function", "module": "script", "config": "mine"}), ("mine",)),
        (layer(kernel_initializer={"class_name": "GlorotUniform", "config": {"seed": None}}), ()),
    ],
)
def test_keras_and_custom_objects_are_known(known, offered):
    refuse_strangers(model_with(known), layers=LAYERS, offered=offered)


def test_every_stranger_is_named_once():
    with pytest.raises(LoadError) as caught:
        refuse_strangers(
            model_with(layer("First"), layer("pack>Second", "script"), layer("First")),
            layers=LAYERS,
            offered=(),
        )
    assert (
        "Received: First (layer 'this_one'), pack>Second (saved from module script; layer 'this_one')."
        in caught.value.message
    )
    assert caught.value.mend.startswith("Define First, Second in")


def test_names_lists_classes_and_functions():
    config = model_with({**layer("Mine", "script"), "registered_name": "shop>Mine"})
    config["config"]["layers"].append(layer(activation={"class_name": "function", "config": "mine"}))
    assert names(config) == {"Sequential", "Dense", "Mine", "shop>Mine", "mine"}


def test_compilation_is_left_out_at_any_depth():
    inner = {**model_with(layer()), "compile_config": {"loss": "theirs"}}
    config = {**model_with(inner), "compile_config": {"loss": "ours"}}
    assert without_compilation(config) == model_with(model_with(layer()))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["class_name", "config", "module", "registered_name", "layers", "function"]),
            inner,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_no_json_raises_anything_else(value):
    names(value)
    stored_code(value)
    try:
        refuse_strangers(value, layers=LAYERS, offered=())
    except LoadError as error:
        assert error.message  # noqa: PT017 -- most values are fine and do not raise
