"""A models folder full of files made to do harm, with one good model: that one is served, the others are listed."""

import json

import hostile
import pytest
from odd_models import copy_shipped
from serving import serve


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    copy_shipped("iris", folder)
    for name, attack in hostile.ATTACKS.items():
        place = folder / name
        place.mkdir()
        attack(place / ("model.keras" if "archive" in name else "model.h5"), folder / "marker")
    return folder


def test_the_good_model_is_served_and_each_refusal_is_listed(models):
    with serve(models, default_model="iris") as service:
        service.until_ready()
        answer = service.post("/predict", json.dumps({"instances": [[5.1, 3.5, 1.4, 0.2]]}))
        assert answer.status == 200, answer.body
        listed = {model["name"]: model for model in json.loads(service.get("/models").body)["models"]}
        assert listed.keys() == {"iris", *hostile.ATTACKS}
        for name in hostile.ATTACKS:
            text = json.dumps(listed[name])
            assert "Expected" in text or "cannot be" in text, text
            assert service.post(f"/predict?model={name}", b'{"instances": [[1]]}').status == 503
    assert not (models / "marker").exists()
