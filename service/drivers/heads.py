"""Owns how large a request's head may be, and what stands between the chunks of a body.

httptools keeps what it has of a head until that is complete, whatever its size.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.drivers.limits import ConnectionLimits
from service.errors import HeadTooLarge, RequestError, TargetTooLong

_BESIDE_A_BYTE = 8  # bytes that a chunk of one byte takes, and a little more
_LINE = 4  # bytes of a header line beside its name and value

Headers = Sequence[tuple[bytes, bytes]]


def head_bytes(target: bytes, headers: Headers) -> int:
    """The size of a head, or of what was read of it, in bytes."""
    return len(target) + sum(len(name) + len(value) + _LINE for name, value in headers)


def fault_of_head(
    limits: ConnectionLimits, target: bytes, headers: Headers, size: int
) -> RequestError | None:
    """What is wrong with a head, or with what was read of it.

    Args:
        limits: how large it may be.
        target: of the request.
        headers: of the request.
        size: of the head, in bytes.
    """
    if len(target) > limits.max_target_bytes:
        return TargetTooLong(
            f"Expected a target of at most {limits.max_target_bytes} bytes (max_target_bytes). Received: more."
        )
    if len(headers) > limits.max_headers:
        return HeadTooLarge(f"Expected at most {limits.max_headers} headers (max_headers). Received: more.")
    if size > limits.max_head_bytes:
        return HeadTooLarge(
            f"Expected a head of at most {limits.max_head_bytes} bytes (max_head_bytes). Received: more."
        )
    return None


def fault_of_framing(limits: ConnectionLimits, fed: int, size: int) -> RequestError | None:
    """What is wrong with a body that goes on: extensions of chunks and trailers are bounded as heads are.

    Args:
        limits: how large a head may be.
        fed: bytes that were read of the body, more or less those of a head.
        size: bytes of it that are its own.
    """
    if fed - _BESIDE_A_BYTE * size > 2 * limits.max_head_bytes:
        return HeadTooLarge(
            f"Expected at most {limits.max_head_bytes} bytes beside the chunks of a body (max_head_bytes). "
            "Received: more."
        )
    return None
