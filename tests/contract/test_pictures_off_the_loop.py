"""No picture is decoded on an event loop, however a request spells that it brings one, and none for clients who left."""

import threading
from base64 import b64encode

import pytest
from bodies import PICTURES, png
from drivers import ANSWER_WITHIN_S, open_site

from service.api import intake
from service.payloads.codecs import JSON

SPELLINGS = [
    ("/predict", '{"instances": [{"b64": "PICTURE"}]}'),
    ("/predict", '{"instances": [{"b\\u00364": "PICTURE"}]}'),
    ("/predict", '{"inputs": {"image": [{"\\u0062\\u0036\\u0034": "PICTURE"}]}}'),
    ("/v1/models/shapes:predict", '{"instances": [{"b64": "PICTURE"}]}'),
    ("/v1/models/shapes:predict", '{"instances": [{"b6\\u0034": "PICTURE"}]}'),
    ("/v2/models/shapes/infer", '{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1, 1], "data": ["PICTURE"]}]}'),
    ("/v2/models/shapes/infer", '{"inputs": [{"name": "image", "datatype": "BYT\\u0045S", "shape": [1, 1], "data": ["PICTURE"]}]}'),
]  # fmt: skip


@pytest.fixture
def site():
    with open_site("shapes", "iris", default_model="shapes") as opened:
        yield opened


@pytest.mark.parametrize("name", ["express", "direct"])
@pytest.mark.parametrize(("path", "text"), SPELLINGS)
def test_every_spelling_is_decoded_on_a_thread_of_its_own(site, monkeypatch, name, path, text):
    threads = []
    prepare = intake.prepare

    def watched(*arguments, **named):
        threads.append(threading.current_thread().name)
        return prepare(*arguments, **named)

    monkeypatch.setattr(intake, "prepare", watched)
    body = text.replace("PICTURE", b64encode(png(PICTURES[0])).decode()).encode()
    answer = getattr(site, name).send("POST", path, "", {"Content-Type": JSON}, body)
    assert answer.status == 200, answer.body
    assert len(threads) == 1
    assert threads[0].startswith("layertap-decode")
    assert site.runtime.memory.held == 0 or name == "direct"


def test_a_picture_whose_client_has_left_is_not_decoded(site, monkeypatch):
    """It waits behind others, and they are held up."""
    held, go_on, decoded = threading.Barrier(3), threading.Event(), []
    prepare = intake.prepare

    def slow(data, *arguments, **named):
        decoded.append(len(data))
        if not go_on.is_set():
            held.wait(ANSWER_WITHIN_S)
        assert go_on.wait(ANSWER_WITHIN_S)
        return prepare(data, *arguments, **named)

    monkeypatch.setattr(intake, "prepare", slow)
    picture = png(PICTURES[0])
    request = ("POST", "/predict", "", {"Content-Type": "image/png"}, picture)
    first = [site.express.start(*request) for _ in range(2)]
    held.wait(ANSWER_WITHIN_S)  # both threads have one
    leaving = site.express.start(*request)
    assert leaving.watched.wait(ANSWER_WITHIN_S)
    leaving.leave()
    assert site.express.send("GET", "/healthz").status == 200  # its loop has come round since
    go_on.set()
    assert leaving.answer() is None
    assert [each.answer().status for each in first] == [200, 200]
    assert len(decoded) == 2
