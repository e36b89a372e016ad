"""What every config has, of whichever Keras: damage is told by its place, and no repair stumbles over it."""

import copy
import json
from pathlib import Path

import h5py
import pytest

from service.errors import LoadError
from service.loading.legacy import Origin, refuse_misshapen, repair

CORPUS = Path(__file__).parents[1] / "corpus"
GONE = object()
MODEL = {
    "class_name": "Model",
    "config": {
        "name": "m",
        "layers": [
            {
                "class_name": "InputLayer",
                "name": "in",
                "config": {"name": "in", "batch_input_shape": [None, 4]},
                "inbound_nodes": [],
            },
            {
                "class_name": "Dense",
                "name": "out",
                "config": {"name": "out", "units": 2},
                "inbound_nodes": [[["in", 0, 0, {}]]],
            },
        ],
        "input_layers": [["in", 0, 0]],
        "output_layers": [["out", 0, 0]],
    },
}


def changed(*path, to):
    """The model with another value at one place, or without it."""
    model = copy.deepcopy(MODEL)
    place = model
    for key in path[:-1]:
        place = place[key]
    if to is GONE:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return model


@pytest.mark.parametrize("path", sorted(CORPUS.rglob("*.h5")), ids=lambda path: path.stem)
def test_what_keras_wrote_has_the_outline(path):
    with h5py.File(path) as file:
        text = file.attrs.get("model_config")
    if text is not None:
        refuse_misshapen(json.loads(text))


LAYER = ("config", "layers", 1)


@pytest.mark.parametrize(
    ("path", "to", "words"),
    [
        (("class_name",), 5, "Expected a class_name for the model. Received: int 5."),
        (("config",), "text", "Expected a config for the Model ''. Received: str 'text'."),
        (("config", "layers"), 7, "Expected a list of layers in the Model 'm'. Received: int 7."),
        (LAYER, "Dense", "Expected a name for each layer of the Model 'm'. Received: str 'Dense'."),
        (
            (*LAYER, "class_name"),
            GONE,
            "Expected a class_name for layer 'out' of the Model 'm'. Received: nothing.",
        ),
        ((*LAYER, "config"), [], "Expected a config for the Dense 'out'. Received: list []."),
        (
            (*LAYER, "config", "name"),
            3,
            "Expected a word as the name of layer 'out' of the Model 'm'. Received: int 3.",
        ),
        ((*LAYER, "name"), GONE, "Expected a name for each layer of the Model 'm'. Received: dict "),
        ((*LAYER, "inbound_nodes"), "in", "as inbound_nodes of the Dense 'out'. Received: str 'in'."),
        ((*LAYER, "inbound_nodes", 0, 0, 2), "0", "[layer, node, tensor] in a call of the Dense 'out'."),
        ((*LAYER, "inbound_nodes", 0, 0, 3), [1], "[layer, node, tensor] in a call of the Dense 'out'."),
        (("config", "output_layers"), None, "[layer, node, tensor] in output_layers of the Model 'm'."),
        (("config", "output_layers", 0, 0), "else", "one of its layers in output_layers of the Model 'm'."),
        (("config", "input_layers", 0, 1), 9, "one of its layers in input_layers of the Model 'm'."),
        (
            ("config", "layers", 0, "config", "batch_input_shape"),
            {"a": 1},
            "a list of sizes as batch_input_shape of the InputLayer 'in'. Received: dict",
        ),
    ],
)
def test_damage_is_told_by_its_place(path, to, words):
    refuse_misshapen(MODEL)
    with pytest.raises(LoadError) as caught:
        repair(changed(*path, to=to), Origin("2.2.4"))
    assert words in caught.value.message


def test_layers_in_wrappers_are_looked_at():
    wrapper = {"class_name": "TimeDistributed", "config": {"name": "each", "layer": "Dense"}}
    with pytest.raises(LoadError, match="layer 1 of the TimeDistributed 'each' to be an object"):
        refuse_misshapen({"class_name": "Sequential", "config": [wrapper]})


def test_a_layer_that_a_repair_cannot_read_is_named_with_the_repair():
    wrong = {"class_name": "Dense", "config": {"name": "odd", "units": 2, "dtype": {"class_name": []}}}
    with pytest.raises(
        LoadError, match=r"the Dense 'odd' as Keras writes it.*repair dtype_policy cannot read \(TypeError: "
    ):
        repair({"class_name": "Sequential", "config": [wrong]}, Origin("2.15.0"))
