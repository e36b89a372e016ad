"""What clients of the native API see of models that are unloaded, loaded again, and named by labels."""

from pathlib import Path

import pytest
from drivers import open_site

from service.model_config import ModelConfig
from service.repository import ModelEntry, ModelVersion

IRIS = (
    "POST",
    "/predict",
    "model=iris",
    {"Content-Type": "application/json"},
    b'{"instances": [[1, 2, 3, 4]]}',
)
LINE = ("POST", "/predict", "model=line", {"Content-Type": "application/json"}, b'{"instances": [[1, 2]]}')


def problem_of(answer):
    return answer.status, answer.json()["code"]


@pytest.mark.parametrize("name", ["flask", "express"])
def test_an_unloaded_model_says_so_until_it_is_loaded_again(name):
    with open_site("iris", "line") as site:
        driver = getattr(site, name)
        answered = driver.send(*IRIS)
        assert answered.status == 200
        site.runtime.unload_model("iris")
        assert problem_of(driver.send(*IRIS)) == (503, "model_unloaded")
        assert driver.send(*LINE).status == 200
        document = driver.send("GET", "/models/iris").json()
        assert document == {"name": "iris", "state": "unavailable", "reason": "unloaded"}
        states = {"iris": "unavailable", "line": "ready"}
        ready = driver.send("GET", "/readyz")
        assert (ready.status, ready.json()["models"]) == (200, states)
        site.runtime.load_model("iris")
        assert driver.send(*IRIS).body == answered.body
        site.runtime.forget_model("iris")
        assert problem_of(driver.send(*IRIS)) == (404, "model_not_found")


@pytest.mark.parametrize("name", ["flask", "express"])
def test_the_only_model_left_answers_requests_that_name_none(name):
    with open_site("iris", "line") as site:
        driver = getattr(site, name)
        nameless = (*IRIS[:2], "", *IRIS[3:])
        assert problem_of(driver.send(*nameless)) == (400, "model_required")
        site.runtime.unload_model("line")
        assert driver.send(*nameless).status == 200


@pytest.mark.parametrize("name", ["flask", "express"])
def test_a_models_labels_are_listed(name):
    folder = Path("models") / "iris"
    versions = tuple(ModelVersion(number, folder / str(number) / "model.h5") for number in (3, 2, 1))
    entry = ModelEntry("iris", folder, versions, ModelConfig(labels={"stable": 1}))
    with open_site(scan=lambda: [entry]) as site:
        document = getattr(site, name).send("GET", "/models/iris").json()
        assert (document["version"], document["versions"]) == (3, [1, 3])
        assert document["labels"] == {"stable": 1}
