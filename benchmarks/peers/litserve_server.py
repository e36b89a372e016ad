"""LitServe: a FastAPI process, one worker process an endpoint, queues between them.

Settings: max_batch_size as the endpoint's, batch_timeout 1 ms, fast_queue (ZeroMQ instead of a managed queue),
one API server process, timeout 60 s. Binary rows travel as base64 in JSON, as its image examples do: it reads JSON
and forms only.
"""

from __future__ import annotations

import base64
from typing import Any

import litserve
from endpoints import Endpoint, port, served


class KerasAPI(litserve.LitAPI):
    """One endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(max_batch_size=endpoint.batch, batch_timeout=0.001, api_path=f"/{endpoint.name}")
        self._endpoint = endpoint

    def setup(self, device: str) -> None:  # noqa: ARG002 LitServe's signature
        """Opens the model, in the worker process."""
        import inference  # noqa: PLC0415 TensorFlow belongs to the worker process

        self._inference = inference
        self._run = inference.open_run(self._endpoint)

    def decode_request(self, request):  # noqa: ANN001, ANN201 see below
        """One row, (*shape) float32; no annotation, which would change how LitServe reads a body."""
        if "b64" in request:
            return self._inference.decode(self._endpoint, base64.b64decode(request["b64"]))[0]
        return self._inference.np.asarray(request["instances"], self._inference.np.float32)[0]

    def batch(self, inputs: list[Any]) -> Any:
        """Rows as one array, (N, *shape) float32."""
        return self._inference.np.stack(inputs)

    def predict(self, x: Any) -> Any:
        """The outputs of a batch, (N, ...) float32."""
        return self._run(x)

    def unbatch(self, output: Any) -> list[Any]:
        """One output a request."""
        return list(output)

    def encode_response(self, output):  # noqa: ANN001, ANN201
        """The JSON reply."""
        return {"predictions": [output.tolist()]}


if __name__ == "__main__":
    apis = [KerasAPI(endpoint) for endpoint in served()]
    server = litserve.LitServer(apis, accelerator="cpu", workers_per_device=1, timeout=60, fast_queue=True)
    server.run(
        host="127.0.0.1", port=port(), num_api_servers=1, generate_client_file=False, log_level="warning"
    )
