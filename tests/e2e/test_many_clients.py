"""Hundreds of real clients at once: each checks that what it gets is the answer to what it sent."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from keras_references import TOLERANCE, predict, tensor
from serving import NPY, NPZ

CLIENTS = 300
REQUESTS_EACH = 3


def test_every_client_gets_its_own_answers(shipped, shipped_models):
    """Iris rows of all sizes, with the input asked back, which tells bit for bit whose rows they are."""
    random = np.random.default_rng(23)
    sent = [
        [
            random.uniform(0, 8, (1 + (client + turn) % 5, 4)).astype("float32")
            for turn in range(REQUESTS_EACH)
        ]
        for client in range(CLIENTS)
    ]
    expected = [[predict(shipped_models["iris"], rows) for rows in turns] for turns in sent]
    together = threading.Barrier(CLIENTS)
    before = shipped.metric("layertap_requests_total", route="features", model="iris", code="200")
    path = "/features?model=iris&layer=measurements&include=predictions"

    def converse(client):
        with shipped.connect() as connection:
            together.wait()
            return [connection.post(path, as_npy(rows), NPY, NPZ).npz for rows in sent[client]]

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(converse, range(CLIENTS)))
    for client in range(CLIENTS):
        for rows, wanted, got in zip(sent[client], expected[client], answers[client], strict=True):
            np.testing.assert_array_equal(got["measurements"], rows)
            np.testing.assert_allclose(got["species"], wanted, rtol=0, atol=TOLERANCE)
    after = shipped.metric("layertap_requests_total", route="features", model="iris", code="200")
    assert after - before == CLIENTS * REQUESTS_EACH


def test_clients_of_different_models_and_layers_do_not_mix(shipped, shipped_models):
    random = np.random.default_rng(29)
    wishes = [
        ("digits", "pool", (28, 28, 1)),
        ("digits", "dense", (28, 28, 1)),
        ("iris", "species", (4,)),
    ]
    sent = [
        (model, layer, random.uniform(0, 1, (1 + i % 3, *shape)).astype("float32"))
        for i in range(40)
        for model, layer, shape in wishes
    ]
    together = threading.Barrier(len(sent))

    def ask(wish):
        model, layer, rows = wish
        together.wait()
        return shipped.post_rows(f"/features?model={model}&layer={layer}", rows, NPY).npy

    with ThreadPoolExecutor(len(sent)) as pool:
        answers = list(pool.map(ask, sent))
    for (model, layer, rows), got in zip(sent, answers, strict=True):
        wanted = tensor(shipped_models[model], layer, rows)
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() <= TOLERANCE * np.abs(wanted).max()


def as_npy(rows):
    body = io.BytesIO()
    np.save(body, rows)
    return body.getvalue()
