"""Converted files: clean, proved equal, readable by Keras alone where that can be, and never a half-written one."""

from pathlib import Path

import hostile
import keras
import numpy as np
import pytest

from service.errors import LoadError
from service.tools.convert import TOLERANCE, convert, run
from service.tools.doctor.examine import examine
from service.tools.doctor.report import Verdict

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "corpus"


@pytest.mark.parametrize("ending", ["h5", "keras"])
def test_a_model_is_written_without_its_optimiser_and_keras_alone_reads_it(tmp_path, ending):
    source = ROOT / "models/digits/1/model.h5"
    out = tmp_path / f"clean.{ending}"
    done = convert(source, out)
    assert done.plain
    assert done.difference <= TOLERANCE
    report = examine(out)
    assert (report.verdict, report.optimizer_bytes) == (Verdict.GOOD, 0)
    rows = np.random.default_rng(0).random((3, 28, 28, 1), "float32")
    ours = keras.saving.load_model(out)(rows)
    theirs = keras.saving.load_model(source, compile=False)(rows)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_custom_objects_that_keras_alone_needs_are_named(tmp_path):
    done = convert(
        ROOT / "models/pairs/1/model.h5", tmp_path / "pairs.keras", (ROOT / "models/pairs/custom_objects.py",)
    )
    assert not done.plain
    assert done.objects == ("LowRankProduct",)
    assert done.trouble


@pytest.mark.parametrize("name", ["out.onnx", "out", "there.h5", "no/folder.h5"])
def test_a_target_that_is_none_is_refused_before_anything_is_read(tmp_path, name):
    (tmp_path / "there.h5").write_text("mine")
    with pytest.raises(LoadError):
        convert(tmp_path / "nothing.h5", tmp_path / name)
    assert (tmp_path / "there.h5").read_text() == "mine"


def test_what_is_refused_leaves_nothing_behind(tmp_path, capsys):
    source = tmp_path / "model.h5"
    hostile.lambda_of_keras3(source, tmp_path / "marker")
    assert run(source, tmp_path / "out.keras", ()) == 3
    assert "Expected no Python code" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model.h5"]
