"""Owns the workloads a to g: which endpoints are asked, with which picture, by how many connections."""

from __future__ import annotations

from dataclasses import dataclass

from inputs import LARGE, SMALL, body
from load import CONNECTIONS, Request
from peers.dialects import Dialect
from peers.endpoints import ENDPOINTS, Endpoint

_IMAGE_CONNECTIONS = 16  # two batches of the largest size: one computes while the other forms


@dataclass(frozen=True)
class Workload:
    """One line of the table.

    Args:
        name: its letter, and what tells it from others of that letter.
        title: what a request is.
        endpoints: what is asked, in turn.
        size: of the pictures, height and width.
        connections: clients of the closed loop.
        patience: how many times the usual duration it is measured for; slow answers need more.
    """

    name: str
    title: str
    endpoints: tuple[str, ...]
    size: tuple[int, int] = SMALL
    connections: int = _IMAGE_CONNECTIONS
    patience: int = 1

    def asked(self) -> list[Endpoint]:
        """The endpoints, in turn."""
        return [ENDPOINTS[name] for name in self.endpoints]

    def bodies(self) -> list[bytes]:
        """A row's body for each endpoint, as `inputs.body`."""
        return [body(endpoint, self.size) for endpoint in self.asked()]

    def requests(self, dialect: Dialect) -> list[Request]:
        """What a server of that dialect is asked."""
        return [dialect.ask(*pair) for pair in zip(self.asked(), self.bodies(), strict=True)]


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("a", "iris, JSON, 1 row", ("iris",), connections=CONNECTIONS),
        Workload("b", "28x28 digit, JSON, 1 row", ("digits",), connections=CONNECTIONS),
        Workload("c-pool", "1x224x224x3 JSON to a pooling layer", ("pooling",)),
        Workload("c-mobilenet", "1x224x224x3 JSON to MobileNetV2's features", ("mobilenet",)),
        Workload("d-pool", "1x224x224x3 npy or binary to a pooling layer", ("pooling-npy",)),
        Workload("d-mobilenet", "1x224x224x3 npy or binary to MobileNetV2's features", ("mobilenet-npy",)),
        Workload("e-mobilenet", "640x480 JPEG to MobileNetV2's pooled features", ("mobilenet-jpeg",)),
        Workload("e-resnet", "640x480 JPEG to ResNet50's pooled features", ("resnet-jpeg",), patience=2),
        Workload("f", "12-megapixel JPEG to MobileNetV2's features", ("mobilenet-jpeg",), LARGE, patience=2),
        Workload("g", "640x480 JPEG, half predictions, half an early layer", ("labels-jpeg", "early-jpeg")),
    )
}


def find_workloads(names: str) -> list[Workload]:
    """The workloads of a list such as `a,b,e-resnet`; a letter stands for all of that letter.

    Raises:
        KeyError: there is none of that name.
    """
    found = []
    for name in names.split(","):
        matching = [
            each for each in WORKLOADS.values() if each.name == name or each.name.split("-")[0] == name
        ]
        if not matching:
            raise KeyError(name)
        found += matching
    return found
