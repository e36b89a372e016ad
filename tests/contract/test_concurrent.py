"""Three hundred clients at once on the express lane: each gets its own answer, to the last bit."""

import math
import threading

import numpy as np
from bodies import npy, npz
from drivers import Gate, open_site
from wire import ANSWER_WITHIN_S

from service.payloads.codecs import JSON, NPY, NPZ

CLIENTS = 300
MAX_BATCH_SIZE = 32
# Nobody is refused here, however busy the machine: who could not be answered in time would be.
PATIENT = {"max_queue_rows": 10**6, "max_decoding": CLIENTS, "request_timeout_s": 3600.0}


def request_of(client):
    """A client's own request: its model, route, size and format, with numbers that nobody else sends."""
    rng = np.random.default_rng(client)
    rows = int(rng.integers(1, 101))

    def draw(*options):
        return options[rng.integers(len(options))]

    model = draw("iris", "iris", "pairs", "shapes", "words")
    if model == "iris":
        content_type, body = NPY, npy(rng.normal(size=(rows, 4)).astype(np.float32))
        url = draw(("/predict", ""), ("/predict", "&top=2"), ("/features", ""),
                           ("/features", "&layer=hidden&layer=probs&normalize=l2"))  # fmt: skip
    elif model == "pairs":
        left, right = rng.normal(size=(rows, 3)), rng.normal(size=(rows, 2))
        content_type, body = NPZ, npz(left=left, right=right)
        url = draw(("/predict", ""), ("/features", "&include=predictions"))
    elif model == "shapes":
        content_type, body = NPY, npy(rng.random(size=(rows, 8, 8, 1)).astype(np.float32))
        url = draw(("/predict", ""), ("/features", "&layer=conv&pool=max"))
    else:
        content_type, body = NPY, npy(rng.integers(0, 10, (rows, 3)))
        url = draw(("/predict", ""), ("/features", "&dtype=float16"))
    headers = {"Content-Type": content_type, "Accept": draw(JSON, NPZ)}
    return rows, ("POST", url[0], f"model={model}{url[1]}", headers, body)


def test_everyone_gets_their_own_answer_to_the_last_bit():
    requests = [request_of(client) for client in range(CLIENTS)]
    gate = Gate()
    with open_site(gate=gate, max_batch_size=MAX_BATCH_SIZE, **PATIENT) as site:
        # All are in the queue before the first batch runs, so that as many as can share batches do.
        together = [site.express.start(*request) for _, request in requests]
        for connection in together:
            assert connection.watched.wait(ANSWER_WITHIN_S)
        gate.open()
        answers = [connection.answer() for connection in together]
        shared_runs = gate.runs
        alone = [site.express.send(*request) for _, request in requests]
    assert [answer.status for answer in alone] == [200] * CLIENTS
    strangers = [place for place, answer in enumerate(answers) if answer[::2] != alone[place][::2]]
    assert strangers == []
    assert len({answer.body for answer in answers}) == CLIENTS  # a mix-up could not go unseen
    assert shared_runs < sum(math.ceil(rows / MAX_BATCH_SIZE) for rows, _ in requests)


def test_everyone_gets_their_own_answer_while_others_come_and_go():
    requests = [request_of(client)[1] for client in range(CLIENTS)]
    with open_site(max_batch_size=MAX_BATCH_SIZE, **PATIENT) as site:
        alone = [site.flask.send(*request) for request in requests]
        wrong = []

        def ask(client):
            for turn in range(5):
                place = (client + 60 * turn) % CLIENTS
                answer = site.express.send(*requests[place])
                if answer[::2] != alone[place][::2]:
                    wrong.append((client, place, answer.status))

        clients = [threading.Thread(target=ask, args=(client,)) for client in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert wrong == []
        assert site.runtime.waiting_rows == 0
