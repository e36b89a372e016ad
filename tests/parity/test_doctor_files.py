"""What the doctor says of files, that it needs no Keras for it, and its exit statuses."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import hostile
import numpy as np
import pytest

from service.tools.doctor.examine import examine
from service.tools.doctor.report import SCHEMA, Verdict

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "corpus"
GOOD = hostile.sequential(hostile.input_layer(4), hostile.dense())

PROBE = """
import sys
from service.__main__ import main
try:
    main(["doctor", "--json", sys.argv[1]])
except SystemExit as end:
    heavy = {name.partition(".")[0] for name in sys.modules} & {"tensorflow", "keras", "tf_keras"}
    sys.exit(77 if heavy else end.code)
"""


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.h5"
    hostile.write_h5(path, GOOD)
    return path


def doctor(*arguments):
    command = [sys.executable, "-m", "service", "doctor", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_whole_model_is_described(good):
    report = examine(good)
    assert report.verdict is Verdict.GOOD
    assert (report.kind, report.keras_version, report.backend) == ("model", "3.15.1", "tensorflow")
    assert [(row.path, row.class_name, row.parameters, row.shape) for row in report.layers] == [
        ("input", "InputLayer", 0, (None, 4)),
        ("dense", "Dense", 15, (None, 3)),
    ]
    assert [(row.name, row.shape) for row in report.inputs] == [("input", (None, 4))]
    assert [(row.name, row.shape) for row in report.outputs] == [("dense", (None, 3))]
    assert report.parameters == 15


def test_an_archive_is_described_like_any_model(tmp_path):
    path = tmp_path / "model.keras"
    hostile.write_keras(path, GOOD)
    report = examine(path)
    assert (report.verdict, report.kind, report.keras_version) == (Verdict.GOOD, ".keras archive", "3.15.1")
    assert [row.parameters for row in report.layers] == [0, 15]


def test_the_optimisers_share_is_told(good):
    with h5py.File(good, "a") as file:
        file["optimizer_weights/adam/m"] = np.zeros(1000, "float32")
    report = examine(good)
    assert (report.optimizer_bytes, report.parameters) == (4000, 15)


def test_neither_keras_nor_tensorflow_is_imported(good):
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(good)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["verdict"] == "good"


@pytest.mark.parametrize(
    ("name", "kind", "version"),
    [
        ("keras/1.2.2_seq_lstm.h5", "model", "1.2.2"),
        ("keras/1.2.2_seq_lstm_w.h5", "legacy weights", None),
        ("keras/2.2.4_lam.h5", "model", "2.2.4"),
        ("tfkeras/conv1d_w.h5", "legacy weights", "2.21.0"),
    ],
)
def test_old_files_are_told_apart_by_their_contents(name, kind, version):
    report = examine(CORPUS / name)
    assert (report.kind, report.keras_version) == (kind, version)
    assert report.parameters > 0


def test_weights_alone_need_an_architecture_and_the_file_beside_them_is_named(tmp_path):
    path = tmp_path / "small.h5"
    path.write_bytes((CORPUS / "tfkeras/conv1d_w.h5").read_bytes())
    (tmp_path / "small.json").write_bytes((CORPUS / "tfkeras/conv1d.json").read_bytes())
    report = examine(path)
    assert report.verdict is Verdict.NEEDS
    assert 'architecture = "small.json"' in report.needs[0]
    (tmp_path / "model.toml").write_text('architecture = "small.json"\n')
    report = examine(path)
    assert report.verdict in {Verdict.GOOD, Verdict.REPAIRABLE}
    assert len(report.layers) > 1


def test_stored_code_is_summarised_and_needs_the_operators_word(tmp_path):
    path = tmp_path / "model.h5"
    hostile.lambda_of_keras2(path, tmp_path / "marker")
    report = examine(path)
    assert report.verdict is Verdict.NEEDS
    assert f"sha256:{report.sha256}" in report.needs[0]
    (row,) = report.code
    assert row.layer == "lambda"
    assert "open" in row.code.reaching_out
    (tmp_path / "model.toml").write_text(f'allow_lambda = "sha256:{report.sha256}"\n')
    assert examine(path).verdict is not Verdict.NEEDS
    assert not (tmp_path / "marker").exists()


def test_custom_objects_are_looked_for_in_text_and_not_run(tmp_path):
    path = tmp_path / "model.h5"
    mine = hostile.layer("Mine", module="training_script")
    hostile.write_h5(path, hostile.sequential(hostile.input_layer(4), hostile.dense(), mine))
    report = examine(path)
    assert [(row.name, row.layer, row.found_in) for row in report.custom_objects] == [("Mine", "mine", None)]
    assert "define Mine" in report.needs[0]
    objects = tmp_path / "custom_objects.py"
    objects.write_text("raise SystemExit('it ran')\n\nclass Mine:\n    pass\n")
    report = examine(path)
    assert report.verdict is Verdict.GOOD
    assert [row.found_in for row in report.custom_objects] == [str(objects)]
    elsewhere = tmp_path / "given.py"
    objects.rename(elsewhere)
    assert examine(path).verdict is Verdict.NEEDS
    assert examine(path, (elsewhere,)).verdict is Verdict.GOOD


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04 no archive"])
def test_what_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "model.h5"
    path.write_bytes(content)
    report = examine(path)
    assert report.verdict is Verdict.REFUSED
    assert report.trouble
    assert report.mend


def test_a_missing_file_is_refused(tmp_path):
    assert "No such file" in examine(tmp_path / "nothing.h5").trouble


def test_a_damaged_file_that_crashes_libhdf5_is_refused():
    report = examine(ROOT / "tests/unit/damaged/crashes_libhdf5.h5")
    assert report.verdict is Verdict.REFUSED


def test_the_worst_file_is_the_exit_status_and_folders_are_walked(good, tmp_path):
    assert doctor(good).returncode == 0
    (tmp_path / "sub").mkdir()
    hostile.lambda_of_keras3(tmp_path / "sub" / "code.h5", tmp_path / "marker")
    done = doctor(tmp_path, "--json")
    assert done.returncode == 2
    reports = json.loads(done.stdout)
    assert [Path(report["file"]).name for report in reports] == ["good.h5", "code.h5"]
    assert [report["status"] for report in reports] == [0, 2]
    assert {report["schema"] for report in reports} == {SCHEMA}
    (tmp_path / "sub" / "broken.h5").write_bytes(b"broken")
    assert doctor(tmp_path).returncode == 3


def test_the_text_shows_the_table_and_moves_no_cursor(tmp_path):
    path = tmp_path / "model.h5"
    hostile.write_h5(path, hostile.sequential(hostile.input_layer(4), hostile.dense(name="\x1b[2Jx")))
    text = doctor(path).stdout
    assert "\x1b" not in text
    assert "Dense" in text
    assert "(None, 3)" in text


def test_a_layer_that_only_shares_its_name_with_one_of_ours_needs_a_definition():
    report = examine(CORPUS / "keras/2.2.4_custom.h5")
    assert [(row.name, row.found_in) for row in report.custom_objects] == [("Scale", None)]
    assert report.verdict is Verdict.NEEDS


@pytest.mark.parametrize("name", ["1.0.8_highway", "1.2.2_act_layers", "2.2.4_local"])
def test_layers_that_keras_3_dropped_are_repaired_and_need_nothing(name):
    report = examine(CORPUS / f"keras/{name}.h5")
    assert report.verdict is Verdict.REPAIRABLE, report.sentence
    assert report.custom_objects == ()
