"""Owns what is heavy: requests and replies that would hold up an event loop, and replies over the limit."""

from __future__ import annotations

from service.api.endpoint import Limits
from service.errors import ReplyTooLarge
from service.tensors import InferResult

_HEAVY_BODY_BYTES = 32 * 1024
_HEAVY_REPLY_NUMBERS = 8 * 1024


def is_heavy_json(body: bytes) -> bool:
    """Whether parsing a JSON body takes long: large ones, and pictures."""
    return len(body) > _HEAVY_BODY_BYTES or b'"b64"' in body


def is_heavy_result(result: InferResult) -> bool:
    """Whether printing a result takes long."""
    numbers = 0
    for array in result.outputs.values():
        numbers += array.size
    return numbers > _HEAVY_REPLY_NUMBERS


def check_reply(size: int, rows: int, limits: Limits, mend: str) -> None:
    """Refuses a reply over the limit, before the model runs where its size is known.

    Args:
        size: its bytes, exact or estimated.
        rows: how many rows it is for.
        limits: the limit.
        mend: what the client can do instead, a sentence.

    Raises:
        ReplyTooLarge: it has more than `max_reply_bytes`.
    """
    if size > limits.max_reply_bytes:
        raise ReplyTooLarge(
            f"Expected a reply of at most {limits.max_reply_bytes} bytes (max_reply_bytes). Received: a request for "
            f"{rows} rows that needs about {size}. {mend}",
            limit_bytes=limits.max_reply_bytes,
            reply_bytes=size,
        )
