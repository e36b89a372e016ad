"""What `doctor --compare` prints: both libraries agree on what is right, and the first layer that differs shows."""

from pathlib import Path

import pytest

from service.tools import compare as module
from service.tools.compare import compare

pytest.importorskip("tf_keras", reason="needs tf_keras: pip install --no-deps -r requirements-optional.txt")
CORPUS = Path(__file__).parents[1] / "corpus"


@pytest.mark.parametrize("name", ["keras/2.2.4_convlstm.h5", "tfkeras/conv1d.h5"])
def test_both_libraries_agree_on_every_layer_of_a_repaired_file(name):
    found = compare(CORPUS / name)
    assert found.trouble is None
    assert any(row.is_output for row in found.differences)
    assert len(found.differences) > 1
    assert all(row.largest <= 1e-5 * max(row.scale, 1) for row in found.differences)
    assert "output" in found.text


def test_a_layer_that_computes_something_else_shows(monkeypatch):
    path = CORPUS / "keras/2.2.4_convlstm.h5"
    calls = []

    def load(*arguments):
        loaded = real(*arguments)
        if not calls:  # the first of the two is Keras 3's
            weight = loaded.model.layers[-1].weights[0]
            weight.assign(weight + 0.5)
        calls.append(loaded)
        return loaded

    real = module.load
    monkeypatch.setattr(module, "load", load)
    rows = {row.path: row for row in compare(path).differences}
    assert max(row.largest for row in rows.values()) > 1e-3
    assert rows["input_1"].largest == 0


def test_a_file_that_only_one_library_reads_says_why(tmp_path):
    assert "not possible" in compare(CORPUS.parents[1] / "models/digits/1/model.h5").text
    assert "not possible" in compare(tmp_path / "nothing.h5").text
