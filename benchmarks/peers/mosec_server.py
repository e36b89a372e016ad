"""Mosec: its Rust front end, one worker process an endpoint, a socket between them.

Settings: max_batch_size as the endpoint's, max_wait_time 1 ms (its default, 10 ms, only waits when 32 connections
do not fill a batch), capacity 1024 (its default), timeout 30 s (its default of 3 s would cut the slow endpoints;
the overload curve sets the clients' deadline),
max-request-size 64 MiB. Bodies are decoded in `deserialize`, as its documentation shows.
"""

from __future__ import annotations

import os
import sys

import inference  # imported once; the workers are forked before it computes anything
from endpoints import Endpoint, port, served
from mosec import Runtime, Server, Worker


def _worker(endpoint: Endpoint) -> type[Worker]:
    class Model(Worker):
        def __init__(self) -> None:
            self._run = inference.open_run(endpoint)
            self.resp_mime_type = inference.content_type(endpoint)

        def deserialize(self, data: bytes):  # noqa: ANN202 an array; numpy is not imported here
            return inference.decode(endpoint, data)[0]

        def forward(self, data: list):  # noqa: ANN202
            return list(self._run(inference.np.stack(data)))

        def serialize(self, data) -> bytes:  # noqa: ANN001
            return inference.encode(endpoint, data[None])

    return Model


if __name__ == "__main__":
    sys.argv += ["--port", str(port()), "--address", "127.0.0.1", "--log-level", "warning"]
    timeout_ms = 1000 * float(os.environ.get("PEER_DEADLINE_S", "30"))
    sys.argv += [
        "--timeout",
        f"{timeout_ms:.0f}",
        "--capacity",
        "1024",
        "--max-request-size",
        str(64 * 2**20),
    ]
    server = Server()
    server.register_runtime(
        {
            f"/{endpoint.name}": [
                Runtime(
                    _worker(endpoint), max_batch_size=endpoint.batch, max_wait_time=1, start_method="fork"
                )
            ]
            for endpoint in served()
        }
    )
    server.run()
