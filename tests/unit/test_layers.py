import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import LayerNotFound
from service.layers import LayerIndex, _Glob
from service.tensors import LayerSpec, ModelSpec, OutputSpec

PATHS = (
    "image",
    "base/conv1",
    "base/conv2",
    "base/deep/conv3",
    "base",
    "conv5_a",
    "conv5_b",
    "dense:0",
    "dense:1",
    "7",
    "probs",
)
SPEC = ModelSpec(
    inputs=(),
    outputs=(OutputSpec("out", (None, 3), "float32", path="probs"),),
    layers=tuple(LayerSpec(path, "Dense", (None, 3), "float32", 0, 0.0) for path in PATHS),
    aliases={"dense": "dense:0", "out": "probs", "flattened/conv1": "base/conv1"},
)


@pytest.fixture
def layers():
    return LayerIndex("digits", SPEC)


def refused(index, *names):
    with pytest.raises(LayerNotFound) as caught:
        index.resolve(names)
    return caught.value


@pytest.mark.parametrize(
    ("names", "paths"),
    [
        (["base/conv1"], ["base/conv1"]),
        (["dense"], ["dense:0"]),
        (["flattened/conv1"], ["base/conv1"]),
        (["-1"], ["probs"]),
        (["-2"], ["7"]),
        (["0"], ["image"]),
        (["1"], ["base"]),
        (["-8"], ["image"]),
        (["7"], ["7"]),
        (["conv5_*"], ["conv5_a", "conv5_b"]),
        (["conv5_?"], ["conv5_a", "conv5_b"]),
        (["base/*"], ["base/conv1", "base/conv2"]),
        (["base/**"], ["base/conv1", "base/conv2", "base/deep/conv3"]),
        (["**conv*"], ["base/conv1", "base/conv2", "base/deep/conv3", "conv5_a", "conv5_b"]),
        (["**/conv?"], ["base/conv1", "base/conv2", "base/deep/conv3"]),
        (["*/*/conv3"], ["base/deep/conv3"]),
        (["b*e"], ["base"]),
        (["**"], list(PATHS)),
        (["probs", "conv5_*", "dense", "-1", "conv5_a"], ["probs", "conv5_a", "conv5_b", "dense:0"]),
        ([], []),
    ],
)
def test_names_lead_to_paths_in_the_order_asked_each_once(layers, names, paths):
    assert layers.resolve(names) == tuple(paths)
    assert layers.resolve(iter(names)) == tuple(paths)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "prob",
        "base/",
        "/base",
        "8",
        "-9",
        "1.0",
        "--1",
        "²",
        "٣",
        "99999999999",
        "conv9_*",
        "base?conv1",
        "[",
    ],
)
def test_what_leads_nowhere_is_refused_and_told(layers, name):
    error = refused(layers, "probs", name)
    assert error.message.startswith(f"Expected a layer of model 'digits'. Received: {name!r}.")
    assert "GET /models/digits/layers" in error.message


def test_the_nearest_names_are_suggested(layers):
    error = refused(layers, "conv5_c")
    assert error.details["suggestions"][:2] == ["conv5_b", "conv5_a"]
    assert "Did you mean 'conv5_b' or 'conv5_a'" in error.message
    assert "Did you mean" not in refused(layers, "zzzzzz").message


def test_a_mistake_is_not_remembered_as_an_answer(layers):
    refused(layers, "nothing")
    refused(layers, "nothing")
    assert layers.resolve(["dense"]) == layers.resolve(["dense"]) == ("dense:0",)


def test_an_endless_name_is_told_shortly(layers):
    assert len(refused(layers, "conv5_" * 10**5).message) < 600
    assert len(refused(layers, "*" * 10**5).message) < 600


def test_a_layer_is_found_by_its_path_and_ordered_as_in_the_model(layers):
    assert layers["base"].path == "base"
    assert layers.ordered(["probs", "base", "image", "base"]) == ("image", "base", "probs")


# -- layers = "listed" --------------------------------------------------------------------------------------


@pytest.fixture
def listed():
    return LayerIndex("digits", SPEC, ["dense", "conv5_*"])


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("dense:0", ["dense:0"]),
        ("dense", ["dense:0"]),
        ("conv5_b", ["conv5_b"]),
        ("probs", ["probs"]),
        ("-1", ["probs"]),
        ("**", ["conv5_a", "conv5_b", "dense:0", "probs"]),
    ],
)
def test_a_listed_layer_may_be_asked_for_by_any_spelling(listed, name, paths):
    assert listed.resolve([name]) == tuple(paths)


@pytest.mark.parametrize("name", ["base", "dense:1", "flattened/conv1", "0", "-2", "base/*"])
def test_other_layers_are_not_offered_and_not_suggested(listed, name):
    offered = {"dense:0", "conv5_a", "conv5_b", "probs"}
    assert set(refused(listed, name).details["suggestions"]) <= offered


def test_a_list_with_a_wrong_name_is_told_when_the_model_is_loaded():
    with pytest.raises(LayerNotFound):
        LayerIndex("digits", SPEC, ["dnse"])


def test_an_empty_list_offers_the_outputs_only():
    assert LayerIndex("digits", SPEC, []).resolve(["**"]) == ("probs",)


# -- wild-cards ---------------------------------------------------------------------------------------------


@given(st.text("ab/", max_size=8), st.text("ab/*?", max_size=8))
def test_a_pattern_matches_what_the_same_regular_expression_does(path, pattern):
    parts = {"*": "[^/]*", "?": "[^/]"}
    texts = re.split(r"(\*+|\?)", pattern)
    expression = "".join(
        ".*" if text.startswith("**") else parts.get(text, re.escape(text)) for text in texts
    )
    assert _Glob(pattern).matches(path) == (re.fullmatch(expression, path) is not None)


def test_no_pattern_is_slow():
    # A matcher that goes back and tries again would not end in a lifetime.
    assert not _Glob("*a" * 100 + "b").matches("a" * 200)
    assert not _Glob("**a?" * 60 + "b").matches("a" * 200)
