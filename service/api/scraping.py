"""Owns `/metrics`: the format and the coding that a scraper asks for.

Sources: https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://prometheus.io/docs/specs/om/open_metrics_spec/.
"""

from __future__ import annotations

from service.api import compression
from service.api.http import Reply, quality
from service.telemetry import Telemetry

PLAIN, OPENMETRICS = "text/plain", "application/openmetrics-text"
_TYPES = {
    PLAIN: f"{PLAIN}; version=0.0.4; charset=utf-8",
    OPENMETRICS: f"{OPENMETRICS}; version=1.0.0; charset=utf-8",
}


def metrics(telemetry: Telemetry, accept: str, accept_encoding: str) -> Reply:
    """Every metric; OpenMetrics where that is named and liked as well as plain text, packed where that is accepted."""
    media = _choose(accept)
    reply = Reply(200, telemetry.render(openmetrics=media == OPENMETRICS), _TYPES[media])
    reply.headers["vary"] = "accept, accept-encoding"
    return compression.packed(reply, accept_encoding)


def _choose(accept: str) -> str:
    """The format; wild-cards mean plain text, which was there first. A scraper may name one with several versions."""
    weights = dict.fromkeys(_TYPES, 0.0)
    for part in accept.lower().split(","):
        media, _, parameters = part.partition(";")
        media = media.strip()
        if media in weights:
            weights[media] = max(weights[media], quality(parameters))
    return OPENMETRICS if 0 < weights[OPENMETRICS] >= weights[PLAIN] else PLAIN
