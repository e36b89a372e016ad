"""FastAPI under uvicorn with `model(x)` in the endpoint, as its machine-learning tutorials show.

Settings: one worker, uvicorn[standard] (uvloop, httptools). JSON is read by pydantic; binary bodies from the
request. It has no batching, so the model is called in the event loop: a thread would only add hops on one core.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from endpoints import Endpoint, served
from fastapi import FastAPI, Request, Response
from inference import content_type, decode, encode, open_run
from pydantic import BaseModel

app = FastAPI()


class Rows(BaseModel):
    """The JSON body."""

    instances: list[Any]


def _mount(endpoint: Endpoint) -> None:
    run = open_run(endpoint)

    async def from_json(body: Rows) -> dict[str, Any]:
        return {"predictions": run(np.asarray(body.instances, np.float32)).tolist()}

    async def from_bytes(request: Request) -> Response:
        outputs = run(decode(endpoint, await request.body()))
        return Response(encode(endpoint, outputs), media_type=content_type(endpoint))

    # The annotations are strings here; FastAPI resolves them by the module's names.
    app.post(f"/{endpoint.name}")(from_json if endpoint.form == "json" else from_bytes)


for _endpoint in served():
    _mount(_endpoint)
