"""More than a slow model can answer: whoever is let in gets an answer in time, all others are told when to come back."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from serving import serve

pytestmark = pytest.mark.alone

CLIENTS = 60
REQUESTS_EACH = 25
ROWS = 32  # of a long request; a whole batch


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A service with `slow`: four numbers a row, and milliseconds of convolutions."""
    models = tmp_path_factory.mktemp("slow")
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Conv2D(96, 3, padding="same", activation="relu") for _ in range(8)]
    model = keras.Sequential([
        keras.Input((4,)),
        keras.layers.Dense(48 * 48 * 4),
        keras.layers.Reshape((48, 48, 4)),
        *layers,
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3, activation="softmax"),
    ])  # fmt: skip
    model.save(models / "slow.h5")
    with serve(models, default_model="slow", max_queue_rows=100_000) as service:
        service.until_ready()
        for rows in (1, 4, ROWS, 2, 16, 8) * 2:  # what it costs is learnt from these
            assert service.post("/predict", body(rows)).status == 200
        yield service


def body(rows):
    return json.dumps({"instances": np.ones((rows, 4)).tolist()})


def test_a_flood_of_impatient_clients_is_answered_in_time_or_refused(slow):
    def insist(_):
        with slow.connect() as connection:
            return [
                connection.post("/predict?timeout_ms=2000", body(5 + turn % 4))
                for turn in range(REQUESTS_EACH)
            ]

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = [answer for answers in pool.map(insist, range(CLIENTS)) for answer in answers]
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) <= {200, 429, 504}
    assert len(answers) == CLIENTS * REQUESTS_EACH
    assert statuses[429] > CLIENTS
    assert statuses[504] <= 0.1 * statuses[200]  # nearly nobody was let in for nothing
    for answer in answers:
        if answer.status == 429:
            assert int(answer.headers["retry-after"]) == answer.json["retry_after_s"] <= 2
            assert answer.json["code"] == "queue_full"
    assert slow.post("/predict?timeout_ms=2000", body(1)).status == 200


def test_retry_after_tells_how_long_the_queue_is(slow):
    """With eight seconds each may wait for four of work by others, so whoever is refused is told that or more."""

    def ask(_):
        return slow.post("/predict?timeout_ms=8000", body(3 * ROWS))

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(ask, range(CLIENTS)))
    assert {answer.status for answer in answers} == {200, 429}
    told = [int(answer.headers["retry-after"]) for answer in answers if answer.status == 429]
    assert 4 <= min(told) <= max(told) <= 60
    assert slow.post("/predict?timeout_ms=2000", body(1)).status == 200
    assert slow.metric("layertap_queue_rows") == 0
