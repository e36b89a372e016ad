"""keras_contrib's CRF: its arithmetic written again in numpy, and what its own files hold."""

import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from service.loading.builtin_objects import builtin_objects

CORPUS = Path(__file__).parents[1] / "corpus" / "keras"
CRF = builtin_objects()["CRF"]
LABELS, FEATURES, STEPS = 4, 3, 6
MASKS = {
    "none": None,
    "padded behind": [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]],
    "padded in front": [[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]],
    "with a gap": [[1, 1, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0], [0, 1, 1, 0, 0, 1], [1, 1, 1, 1, 1, 0]],
}


def one_row(energies, chain, left, right, mask, *, viterbi):
    """The source's `call` for one row, one step at a time; energies (T, F), mask (T,) or None."""
    steps = len(energies)
    energies = energies.copy()
    if mask is None:
        energies[0] += left
        energies[-1] += right
    else:
        padded = np.concatenate([[0], mask, [0]])
        for t in range(steps):
            energies[t] += left * (padded[t + 1] > padded[t]) + right * (padded[t + 2] > padded[t + 1])
        energies *= mask[:, None]

    def recursion(energies, mask, combine):
        before, found = np.zeros(energies.shape[1]), []
        for t, energy in enumerate(energies):
            following = 0 if mask is None or t + 1 == steps else mask[t + 1]
            link = 1 if mask is None else mask[t] * following
            before, result = combine(chain * link, energy, before)
            found.append(result)
        return np.array(found)

    def summed(chain, energy, before):
        cost = chain + (energy - before)[:, None]
        after = np.log(np.sum(np.exp(-cost), axis=0))
        return after, after

    def smallest(chain, energy, before):
        cost = chain + (energy + before)[:, None]
        return cost.min(axis=0), cost.argmin(axis=0)

    if viterbi:
        tables = recursion(energies, mask, smallest)
        label, path = tables[-1][0], []
        for table in tables[::-1]:
            label = table[label]
            path.append(label)
        return np.eye(energies.shape[1])[path[::-1]]
    forward = recursion(energies, mask, summed)
    backward = recursion(energies[::-1], None if mask is None else mask[::-1], summed)[::-1]
    nothing = np.zeros((1, energies.shape[1]))
    margin = -(np.concatenate([nothing, forward[:-1]]) + energies + np.concatenate([backward[1:], nothing]))
    return np.exp(margin) / np.exp(margin).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("learn_mode", ["join", "marginal"])
@pytest.mark.parametrize("test_mode", ["viterbi", "marginal"])
@pytest.mark.parametrize("plain", [False, True])
def test_layer_equals_its_source_step_by_step(mask, learn_mode, test_mode, plain):
    random = np.random.default_rng(7)
    layer = CRF(
        LABELS, learn_mode=learn_mode, test_mode=test_mode, use_bias=not plain, use_boundary=not plain
    )
    layer.build((None, STEPS, FEATURES))
    kernel, chain, bias, left, right = (
        random.normal(size=shape)
        for shape in [(FEATURES, LABELS), (LABELS, LABELS), (LABELS,), (LABELS,), (LABELS,)]
    )
    layer.set_weights([kernel, chain] if plain else [kernel, chain, bias, left, right])
    rows = random.normal(size=(4, STEPS, FEATURES))
    given = None if MASKS[mask] is None else np.array(MASKS[mask], dtype=bool)
    result = np.asarray(layer(rows.astype("float32"), mask=given))
    nothing = np.zeros(LABELS)
    expected = [
        one_row(
            row @ kernel + (nothing if plain else bias),
            chain,
            nothing if plain else left,
            nothing if plain else right,
            None if given is None else given[place].astype(float),
            viterbi=test_mode == "viterbi",
        )
        for place, row in enumerate(rows)
    ]
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_the_mode_follows_from_what_it_was_trained_for():
    assert CRF(2).test_mode == "viterbi"
    assert CRF(2, learn_mode="marginal").test_mode == "marginal"
    with pytest.raises(ValueError, match="Expected learn_mode join or marginal"):
        CRF(2, learn_mode="other")


def test_masks_end_where_labels_were_joined():
    mask = np.array(MASKS["padded behind"], dtype=bool)
    np.testing.assert_array_equal(CRF(2).compute_mask(None, mask), [True, True, True, False])
    np.testing.assert_array_equal(CRF(2, learn_mode="marginal").compute_mask(None, mask), mask)


@pytest.mark.parametrize("name", ["2.2.4_crf_marginal", "2.2.4_crf_viterbi_mask"])
def test_layer_takes_the_config_and_weights_of_its_files(name):
    with h5py.File(CORPUS / f"{name}.h5") as file:
        config = json.loads(file.attrs["model_config"])["config"]["layers"][-1]["config"]
        saved = file["model_weights/crf_1"]
        names = list(saved.attrs["weight_names"])
        arrays = [np.asarray(saved[weight]) for weight in names]
    layer = CRF.from_config(config)
    layer.build((None, None, config["input_dim"]))
    assert [f"crf_1/{weight.name}:0" for weight in layer.weights] == names
    layer.set_weights(arrays)
    again = CRF.from_config(layer.get_config())
    assert (again.units, again.learn_mode, again.test_mode) == (5, config["learn_mode"], config["test_mode"])
    assert isinstance(layer(keras.Input((None, config["input_dim"]))), keras.KerasTensor)
