"""Owns what is heavy: requests and replies that would hold up an event loop, and replies over the limit."""

from __future__ import annotations

import threading

from service.api.endpoint import Limits
from service.errors import ReplyTooLarge
from service.tensors import InferResult

_HEAVY_BODY_BYTES = 32 * 1024
_HEAVY_REPLY_NUMBERS = 8 * 1024


class HeavyAfterAll(Exception):
    """A request looked light and is not: it must be read elsewhere than on an event loop."""


class _Thread(threading.local):
    light = False


_thread = _Thread()


def stay_light() -> None:
    """From now on the calling thread, an event loop's, reads nothing heavy."""
    _thread.light = True


def refuse_on_loop() -> None:
    """Called before whatever takes long, however the request was spelt.

    Raises:
        HeavyAfterAll: this is an event loop's thread.
    """
    if _thread.light:
        raise HeavyAfterAll


def is_heavy_json(body: bytes) -> bool:
    """Whether parsing a JSON body takes long: large ones, and pictures.

    A name can be spelt with escapes: what is overlooked here is noticed by `refuse_on_loop`.
    """
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
