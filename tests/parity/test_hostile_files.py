"""Files made to do harm: the service and the doctor refuse each with a reason, and nothing of it runs."""

import hostile
import pytest

from service.errors import LoadError
from service.loading.loader import load
from service.model_config import ModelConfig
from service.repository import ModelEntry, ModelVersion
from service.serving.opening import open_model
from service.tools.doctor.examine import examine
from service.tools.doctor.report import Verdict

REASONS = {  # what the service says, each attack's own reason
    "archive_of_zeros": "268440320 bytes unpacked",
    "archive_that_climbs": "with a member 'assets/../../marker'",
    "archive_with_a_link": "with a member 'assets/link'",
    "class_below_keras": "Popen (saved from module keras.src.utils.io_utils.subprocess",
    "class_of_os": "system (saved from module os",
    "compressed_zeros": "arrays that declare 17179869184 bytes",
    "cut_in_half": "truncated file",
    "deep_config": "RecursionError",
    "endless_unrolling": "at most 100000 steps. Received: simplernn with 10000000",
    "function_of_builtins": "Received: eval (layer",
    "function_that_downloads": "get_file (saved from module keras.src.utils.file_utils",
    "graph_in_a_circle": "'dense', 'second', which wait for themselves",
    "graph_in_a_circle_of_keras2": "'dense', 'second', which wait for themselves",
    "group_in_itself": "a group that holds itself",
    "huge_input": "a 'batch_shape' of 1000000x1000000",
    "huge_picture": "at most 268435456 numbers a row. Received: upsampling2d",
    "huge_tensor": "at most 268435456 numbers a row. Received: repeatvector",
    "huge_weights": "one that asks for 100000060000000 weights",
    "huge_weights_in_an_archive": "one that asks for 100000060000000 weights",
    "huge_weights_of_keras2": "one that asks for 100000060000000 weights",
    "lambda_as_activation": "no Python code in the file. Received: a Python lambda at 'activation'",
    "lambda_as_output_shape": "a Python lambda at 'output_shape', which would run here",
    "lambda_in_a_wrapper": "no Python code in the file. Received: the Lambda layer 'lambda'",
    "lambda_in_an_archive": "no Python code in the file. Received: the Lambda layer 'lambda'",
    "lambda_of_keras1": "no Python code in the file. Received: the Lambda layer 'lambda'",
    "lambda_of_keras2": "no Python code in the file. Received: the Lambda layer 'lambda'",
    "lambda_of_keras3": "no Python code in the file. Received: the Lambda layer 'lambda'",
    "many_values": "over 1000000 values",
    "models_in_models": "more than 200 levels",
    "operation_that_writes": "the function 'io.write_file', which is none that a file may name",
    "pickle_as_config": "an attribute 'model_config' that is no text",
    "pickle_as_initial_value": "an array of dtype 'object'",
    "program_from_a_path": "a TFSMLayer, which would run here",
    "registered_as_another": "os>system (saved as Dense)",
    "vocabulary_of_another_file": "with the file '/etc/passwd'",
    "weights_by_a_soft_link": "a link out of its place (SoftLink)",
    "weights_of_another_file": "a link out of its place (ExternalLink)",
}


@pytest.fixture(params=sorted(hostile.ATTACKS))
def attack(request):
    return request.param


@pytest.fixture
def folder(tmp_path):
    """The file's own folder, so that a path that climbs out of it stays in the test's."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def written(attack, folder):
    path = folder / ("model.keras" if "archive" in attack else "model.h5")
    hostile.ATTACKS[attack](path, folder / "marker")
    return path


def open_file(path):
    version = ModelVersion(1, path)
    return open_model(
        ModelEntry("model", path.parent, (version,)),
        version,
        buckets_to=None,
        tolerance=1e-3,
        on_trace=lambda: None,
        on_padding=lambda _: None,
    )


def test_the_service_refuses_it_with_a_reason_and_runs_nothing(attack, folder):
    path = written(attack, folder)
    with pytest.raises(LoadError) as caught:
        open_file(path)
    assert REASONS[attack] in caught.value.message
    assert [item.name for item in folder.iterdir()] == [path.name]
    assert [item.name for item in folder.parent.iterdir()] == [folder.name]


def test_the_doctor_refuses_it_or_says_what_it_needs_and_runs_nothing(attack, folder):
    path = written(attack, folder)
    report = examine(path)
    assert report.verdict in {Verdict.NEEDS, Verdict.REFUSED}
    assert report.trouble or report.needs
    assert [item.name for item in folder.iterdir()] == [path.name]


def test_code_runs_once_its_very_file_is_allowed_and_not_after_a_change(folder):
    path = written("lambda_of_keras3", folder)
    allowed = ModelConfig(allow_lambda=f"sha256:{examine(path).sha256}")
    with path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(LoadError, match="Expected no Python code"):
        load(path, allowed)
    assert not (folder / "marker").exists()
