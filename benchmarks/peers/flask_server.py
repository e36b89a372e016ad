"""Naive Flask with `model.predict` in the view, under gunicorn's gthread worker: what tutorials show.

Settings: one worker, 32 threads (as many as the load has connections). It has no batching.
"""

from __future__ import annotations

import threading

from endpoints import ENDPOINTS, served
from flask import Flask, Response, request
from inference import content_type, decode, encode, open_run

app = Flask(__name__)
_RUNS = {endpoint.name: open_run(endpoint) for endpoint in served()}
_LOCK = threading.Lock()  # Keras' `predict` is not safe to call from two threads


@app.post("/<name>")
def infer(name: str) -> Response:
    endpoint = ENDPOINTS[name]
    rows = decode(endpoint, request.get_data())
    with _LOCK:
        outputs = _RUNS[name](rows)
    return Response(encode(endpoint, outputs), mimetype=content_type(endpoint))
