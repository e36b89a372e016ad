"""PyTriton: the real Triton server of its wheel in front of a Python function, KServe V2 with binary tensors.

Settings: dynamic batching with no queue delay (its default), no limit to the time in the queue (the overload curve sets
the clients' deadline, which Triton rejects requests by), max_batch_size as the endpoint's, preferred batch
size unset, two HTTP threads (eight by default; on one core fewer are faster). gRPC and metrics are off. A picture is a
BYTES tensor. It runs on Debian's python3.11, whose libpython its Python backend needs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from endpoints import Endpoint, port, served
from inference import decode_picture, open_run
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, QueuePolicy, Tensor
from pytriton.triton import Triton, TritonConfig, TritonSecurityConfig


def _function(endpoint: Endpoint) -> Callable[..., Any]:
    run = open_run(endpoint)

    @batch
    def infer(rows: np.ndarray) -> dict[str, np.ndarray]:
        if endpoint.form == "jpeg":
            rows = np.stack([decode_picture(endpoint, body) for body in rows[:, 0]])
        return {"predictions": run(rows)}

    return infer


def _bind(triton: Triton, endpoint: Endpoint) -> None:
    picture = endpoint.form == "jpeg"
    rows = Tensor(
        name="rows", dtype=bytes if picture else np.float32, shape=(1,) if picture else endpoint.shape
    )
    triton.bind(
        model_name=endpoint.name,
        infer_func=_function(endpoint),
        inputs=[rows],
        outputs=[Tensor(name="predictions", dtype=np.float32, shape=(-1,))],
        config=ModelConfig(
            max_batch_size=endpoint.batch, batcher=DynamicBatcher(default_queue_policy=_policy())
        ),
        strict=False,
    )


def _policy() -> QueuePolicy | None:
    deadline_s = float(os.environ.get("PEER_DEADLINE_S", "0"))
    return QueuePolicy(default_timeout_microseconds=int(deadline_s * 1e6)) if deadline_s else None


if __name__ == "__main__":
    config = TritonConfig(
        http_address="127.0.0.1", http_port=port(), http_thread_count=2, allow_grpc=False, allow_metrics=False
    )
    # perf_analyzer asks for statistics, which are behind a token otherwise.
    with Triton(config=config, security_config=TritonSecurityConfig(restricted_endpoints=[])) as server:
        for served_endpoint in served():
            _bind(server, served_endpoint)
        server.serve()
