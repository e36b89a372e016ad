"""Ray Serve: its proxy, one replica an endpoint, `@serve.batch`.

Settings: max_batch_size as the endpoint's, batch_wait_timeout_s 1 ms, max_ongoing_requests 256 (its default of 5
would never fill a batch), num_cpus 0 (all replicas share the one core), the dashboard off.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

from endpoints import Endpoint, port, served
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


def _deployment(endpoint: Endpoint) -> Any:
    @serve.deployment(
        name=endpoint.name, num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0}
    )
    class Model:
        def __init__(self) -> None:
            import inference  # noqa: PLC0415 TensorFlow belongs to the replica

            self._inference = inference
            self._run = inference.open_run(endpoint)

        @serve.batch(max_batch_size=endpoint.batch, batch_wait_timeout_s=0.001)
        async def infer(self, rows: list[Any]) -> list[Any]:
            return list(self._run(self._inference.np.stack(rows)))

        async def __call__(self, request: Request) -> Response:
            row = self._inference.decode(endpoint, await request.body())[0]
            outputs = await self.infer(row)
            encoded = self._inference.encode(endpoint, outputs[None])
            return Response(encoded, media_type=self._inference.content_type(endpoint))

    return Model.bind()


def main() -> None:
    import ray  # noqa: PLC0415 starting it is an act of main

    ray.init(
        num_cpus=1, include_dashboard=False, configure_logging=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parent)}},
    )  # fmt: skip
    serve.start(http_options={"host": "127.0.0.1", "port": port()})
    for endpoint in served():
        serve.run(_deployment(endpoint), name=endpoint.name, route_prefix=f"/{endpoint.name}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that Ray's processes are stopped at exit
    signal.pause()


if __name__ == "__main__":
    main()
