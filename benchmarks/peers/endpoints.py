"""Owns what every peer serves: which model, which layer, and in which form a row arrives.

Standard library only: the peers' own environments and the benchmark both read this.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

# On one core, image batches over 8 are slower: they leave its cache (benchmarks/limits.py prints the rates).
_SMALL_BATCH, _IMAGE_BATCH = 32, 8


@dataclass(frozen=True)
class Endpoint:
    """One thing that is asked of every server.

    Args:
        name: its name in URLs.
        model: the model, `<models>/<model>/model.h5`.
        form: how a row arrives: "json" or "npy" (as the model takes it), or "jpeg" (decoded by the server).
        shape: a row of the model's input, (H, W, 3) float32 where it is a picture.
        layer: the layer that answers; `None` for the model's output.
        pooled: average the layer over height and width, (H, W, C) -> (C,).
        batch: rows of the largest batch.
        mode: how pixels 0..255 are scaled, in the words of keras.applications: "tf" or "caffe".
    """

    name: str
    model: str
    form: str
    shape: tuple[int, ...]
    layer: str | None = None
    pooled: bool = False
    batch: int = _IMAGE_BATCH
    mode: str = "tf"


_PICTURE = (224, 224, 3)
_POOL = "global_average_pooling2d"

ENDPOINTS = {
    endpoint.name: endpoint
    for endpoint in (
        Endpoint("iris", "iris", "json", (4,), batch=_SMALL_BATCH),
        Endpoint("digits", "digits", "json", (28, 28, 1), batch=_SMALL_BATCH),
        Endpoint("pooling", "pooling", "json", _PICTURE),
        Endpoint("pooling-npy", "pooling", "npy", _PICTURE),
        Endpoint("mobilenet", "mobilenet", "json", _PICTURE, _POOL),
        Endpoint("mobilenet-npy", "mobilenet", "npy", _PICTURE, _POOL),
        Endpoint("mobilenet-output", "mobilenet", "npy", _PICTURE),
        Endpoint("mobilenet-jpeg", "mobilenet", "jpeg", _PICTURE, _POOL),
        Endpoint("resnet-jpeg", "resnet", "jpeg", _PICTURE, "avg_pool", mode="caffe"),
        Endpoint("labels-jpeg", "mobilenet", "jpeg", _PICTURE),
        Endpoint("early-jpeg", "mobilenet", "jpeg", _PICTURE, "block_2_add", pooled=True),
    )
}


def served() -> list[Endpoint]:
    """The endpoints that this process was started for: PEER_ENDPOINTS, separated by commas; unset: all."""
    names = os.environ.get("PEER_ENDPOINTS")
    return [ENDPOINTS[name] for name in names.split(",")] if names else list(ENDPOINTS.values())


def model_file(endpoint: Endpoint) -> Path:
    """The endpoint's model, below the folder PEER_MODELS."""
    found = sorted((Path(os.environ["PEER_MODELS"]) / endpoint.model).rglob("model.h5"))
    return found[-1]


def port() -> int:
    """The port to listen on: PEER_PORT."""
    return int(os.environ["PEER_PORT"])
