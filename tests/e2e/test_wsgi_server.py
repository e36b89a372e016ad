"""The same service on a WSGI server, a thread for each request: the same bytes as the express lane's."""

import io
import json

import numpy as np
import pytest
from serving import JSON, MODELS, NPY, NPZ, serve

IRIS = json.dumps({"instances": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.1, 5.6, 2.4]]}).encode()
PICTURE = (MODELS / "digits" / "examples" / "7.png").read_bytes()


def npz(**arrays):
    body = io.BytesIO()
    np.savez(body, **arrays)
    return body.getvalue()


REQUESTS = {
    "json": ("/predict?model=iris&top=2", IRIS, JSON, JSON),
    "npy": ("/predict?model=iris", IRIS, JSON, NPY),
    "picture": ("/predict", PICTURE, "image/png", JSON),
    "default layer": ("/features?pool=avg&normalize=l2", PICTURE, "image/png", NPY),
    "two inputs": (
        "/features?model=pairs&layer=code:1&layer=base/product&include=predictions",
        npz(left=np.ones((2, 8, 8), "float32"), right=np.full((2, 8, 8), 16, "float32")),
        NPZ,
        NPZ,
    ),
    "unknown layer": ("/features?model=digits&layer=poool", PICTURE, "image/png", JSON),
    "no model": ("/predict?model=lily", IRIS, JSON, JSON),
    "wrong shape": ("/predict?model=iris", b'{"instances": [[1, 2]]}', JSON, JSON),
    "no JSON": ("/predict?model=iris", b"{", JSON, JSON),
    "no picture": ("/predict", b"not a picture", "image/png", JSON),
}


@pytest.fixture(scope="module")
def threaded():
    with serve(MODELS, "-k", "gthread", "--threads", "8", "service.wiring:wsgi()") as service:
        yield service.until_ready()


@pytest.mark.parametrize("name", REQUESTS)
def test_gthread_answers_the_same_bytes(shipped, threaded, name):
    here, there = shipped.post(*REQUESTS[name]), threaded.post(*REQUESTS[name])
    assert here.status == there.status
    assert here.headers["content-type"] == there.headers["content-type"]
    if here.status == 200 and here.headers["content-type"] == NPZ:  # a zip file holds the time it was made
        assert list(here.npz) == list(there.npz)
        assert all(np.array_equal(here.npz[key], there.npz[key]) for key in here.npz)
    else:
        assert here.body == there.body


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/models/iris/layers", "/openapi.json", "/docs"])
def test_gthread_answers_the_same_pages(shipped, threaded, path):
    here, there = shipped.get(path), threaded.get(path)
    assert (here.status, there.status) == (200, 200)
    assert here.headers["content-type"] == there.headers["content-type"]
    if path != "/models/iris/layers":  # tells which layers are compiled by now
        assert here.body == there.body


def test_a_request_without_a_route_gets_the_same_problem(shipped, threaded):
    here, there = shipped.get("/predicts"), threaded.get("/predicts")
    assert (here.status, here.body) == (there.status, there.body)
    assert here.json["code"] == "not_found"
