"""Graphs that can be put together, and those that would be waited for for ever."""

import json
from pathlib import Path

import pytest

from service.errors import LoadError
from service.loading.node_order import refuse_endless_graphs

CORPUS = Path(__file__).parents[1] / "corpus"


def graph(**feeds):
    """A functional model; `name=[[...], ...]` gives a layer its nodes."""
    layers = [
        {
            "class_name": "InputLayer" if name == "a" else "Dense",
            "name": name,
            "config": {"name": name},
            "inbound_nodes": nodes,
        }
        for name, nodes in feeds.items()
    ]
    config = {"layers": layers, "input_layers": [["a", 0, 0]], "output_layers": [[layers[-1]["name"], 0, 0]]}
    return {"class_name": "Model", "config": config}


@pytest.mark.parametrize("path", sorted(CORPUS.rglob("*.json")), ids=lambda path: path.stem)
def test_every_graph_of_the_corpus_is_in_order(path):
    refuse_endless_graphs(json.loads(path.read_text()))


def test_layers_may_be_listed_in_any_order_and_used_twice():
    refuse_endless_graphs(graph(c=[[["b", 1, 0, {}]]], b=[[["a", 0, 0]], [["b", 0, 0]]], a=[]))


@pytest.mark.parametrize(
    "feeds",
    [
        {"a": [], "b": [[["b", 0, 0]]]},
        {"a": [], "b": [[["c", 0, 0]]], "c": [[["b", 0, 0]]]},
        {"a": [], "b": [[["a", 5, 0]]]},
        {"a": [], "b": [], "c": [[["b", 0, 0]]]},
        {"a": [], "b": [[["a", "../x", 0]]]},
        {"a": [], "b": [[["a", 0, -1]]]},
        {"a": [], "b": [[["a", 0, 0, {"mask": ["b", 0, 0]}]]]},
    ],
)
def test_circles_and_references_to_nothing_are_refused(feeds):
    with pytest.raises(LoadError) as caught:
        refuse_endless_graphs(graph(**feeds))
    assert caught.value.mend
    with pytest.raises(LoadError):
        refuse_endless_graphs({"class_name": "Sequential", "config": {"layers": [graph(**feeds)]}})
