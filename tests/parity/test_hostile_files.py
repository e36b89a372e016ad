"""Files made to do harm: the service and the doctor refuse each with a reason, and nothing of it runs."""

import hostile
import pytest

from service.errors import LoadError
from service.loading.loader import load
from service.model_config import ModelConfig
from service.opening import open_model
from service.repository import ModelEntry, ModelVersion
from service.tools.doctor.examine import examine
from service.tools.doctor.report import Verdict

MEANT_TO_BE_READ = {
    "pickle_as_initial_value",
    "graph_in_a_circle",
}  # a doctor without Keras sees nothing wrong


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
    assert "Received: " in caught.value.message or caught.value.mend
    assert [item.name for item in folder.iterdir()] == [path.name]
    assert [item.name for item in folder.parent.iterdir()] == [folder.name]


def test_the_doctor_refuses_it_or_says_what_it_needs_and_runs_nothing(attack, folder):
    path = written(attack, folder)
    report = examine(path)
    if attack not in MEANT_TO_BE_READ:
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
