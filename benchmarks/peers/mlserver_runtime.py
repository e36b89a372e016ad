"""MLServer: a custom runtime, KServe V2 in JSON, adaptive batching.

Settings: max_batch_size as the endpoint's, max_batch_time 1 ms, parallel_workers 0 (one process: on one core a
worker pool only adds hops), debug, metrics, tracing and gzip off. Its REST API has no binary tensors: npy and JPEG rows
travel as base64 in a BYTES tensor.
"""

from __future__ import annotations

import base64

from endpoints import ENDPOINTS, Endpoint
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class KerasRuntime(MLModel):
    """One endpoint."""

    async def load(self) -> bool:
        """Opens the model."""
        import inference  # noqa: PLC0415 TensorFlow belongs to the server, not to who writes the folder

        self._inference = inference
        self._endpoint: Endpoint = ENDPOINTS[self.name]
        self._run = inference.open_run(self._endpoint)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The outputs of a batch of requests that MLServer has merged into one."""
        tensor = payload.inputs[0]
        if tensor.datatype == "BYTES":
            bodies = [base64.b64decode(text) for text in tensor.data]
            rows = self._inference.np.concatenate([self._inference.decode(self._endpoint, b) for b in bodies])
        else:
            rows = NumpyCodec.decode_input(tensor)
        outputs = NumpyCodec.encode_output("predictions", self._run(rows))
        return InferenceResponse(model_name=self.name, outputs=[outputs])
