"""Owns the bounds of connections, as the settings and the system give them."""

from __future__ import annotations

import dataclasses
import logging
import resource
from dataclasses import dataclass

from service.settings import Settings, drain_delay_s

_log = logging.getLogger("layertap.connections")

SPARE_FILES = 64
"""File descriptors that are left to everything else: the log, models that are loaded, and clients who are just coming."""
_MOST = 8192  # connections, where nobody says otherwise: more would cost a small container its memory
_LEAST = 16


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The part of the settings that connections need; each is described there."""

    keep_alive_s: float
    header_timeout_s: float
    body_timeout_s: float
    send_timeout_s: float
    linger_timeout_s: float
    min_rate_bytes_s: int
    max_connections: int
    max_unread_bytes: int
    max_head_bytes: int
    max_headers: int
    max_target_bytes: int
    drain_delay_s: float
    stop_timeout_s: float


def limits_of(settings: Settings) -> ConnectionLimits:
    """The limits that the settings say; there are never more connections than file descriptors for them."""
    said = {field.name: getattr(settings, field.name) for field in dataclasses.fields(ConnectionLimits)}
    return ConnectionLimits(
        **said
        | {
            "max_connections": _max_connections(settings.max_connections),
            "drain_delay_s": drain_delay_s(settings),
        }
    )


def _max_connections(said: int | None) -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = _MOST if files == resource.RLIM_INFINITY else max(_LEAST, files - SPARE_FILES)
    if said is None:
        return min(room, _MOST)
    if files != resource.RLIM_INFINITY and said > room:
        _log.warning(
            "max_connections is %d, for the process may open %d files only; ulimit -n raises that",
            room,
            files,
        )
        return room
    return said
