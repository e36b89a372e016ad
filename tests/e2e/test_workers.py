"""Two workers as one service: what is asked of one holds for both, and both tell of both."""

import os
import signal

import odd_models
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import MODELS, serve

ROW = b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}'
GOOD = MODELS / "iris" / "1" / "model.h5"
ASKS = 60


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def service(tmp_path, cache):
    odd_models.copy_shipped("iris", tmp_path)
    odd_models.copy_shipped("digits", tmp_path)
    with serve(tmp_path, workers=2, admin=True, default_model="iris", cache_dir=cache) as running:
        running.models = tmp_path
        yield both_ready(running)


def both_ready(service, times=2):
    service.until(lambda: service.log.count("start, in seconds") == times, "both workers")
    return service


def answers(service, path="/predict"):
    """What new connections get, which both workers take: process -> statuses and versions."""
    seen = {}
    while sum(map(len, seen.values())) < ASKS or len(seen) < 2:
        reply = service.post(path, ROW)
        prefix = reply.headers["x-request-id"].partition("-")[0]
        seen.setdefault(prefix, []).append((reply.status, reply.json.get("version")))
    return [set(each) for each in seen.values()]


def test_what_is_loaded_and_unloaded_is_so_in_both_and_stays_so_when_one_is_replaced(service):
    assert answers(service) == [{(200, 1)}] * 2
    place = service.models / "iris" / "2" / "model.h5"
    place.parent.mkdir()
    place.write_bytes(GOOD.read_bytes())
    assert service.post("/v2/repository/models/iris/load", "{}").status == 200
    assert answers(service) == [{(200, 2)}] * 2
    place.write_bytes(b"no HDF5")
    assert service.post("/v2/repository/models/iris/load", "{}").status == 503
    assert answers(service) == [{(200, 2)}] * 2
    assert service.post("/v2/repository/models/digits/unload", "{}").status == 200
    assert answers(service, "/predict?model=digits") == [{(503, None)}] * 2
    place.write_bytes(GOOD.read_bytes())
    os.kill(service.workers()[0], signal.SIGKILL)
    both_ready(service, times=3)
    assert answers(service, "/predict?model=digits") == [{(503, None)}] * 2
    assert service.post("/v2/repository/models/digits/load", "{}").status == 200
    assert service.post("/predict?model=digits", ROW).status == 400  # of the wrong shape, but served


def counts(service):
    """Answered predictions, by worker."""
    text = service.get("/metrics").body.decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = families["layertap_requests"].samples
    return {each.labels["worker"]: each.value for each in samples if each.labels["route"] == "predict"}


def test_each_scrape_tells_of_both_and_no_counter_falls(service):
    answers(service)
    seen = counts(service)
    assert len(seen) == 2
    assert sum(seen.values()) >= ASKS
    for _ in range(20):
        assert counts(service) == seen


def test_readiness_is_the_same_from_both_while_one_loads(tmp_path):
    odd_models.copy_shipped("iris", tmp_path)
    gate = odd_models.write_slow(tmp_path)
    with serve(tmp_path, workers=2, default_model="iris") as service:
        service.until(lambda: service.log.count("start, in seconds") == 2, "both workers")
        with gate.shut():
            os.kill(service.workers()[0], signal.SIGKILL)
            service.until(gate.entered, "a load")
            for _ in range(ASKS):
                assert service.get("/readyz").status == 200
                assert service.post("/predict", ROW).status == 200
        service.until(lambda: service.log.count("start, in seconds") == 3, "another worker")
