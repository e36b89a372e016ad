"""Owns Content-Encoding: gzip and deflate, both ways, and never more bytes than a limit.

`deflate` is the zlib format, as HTTP means it. Source: RFC 9110, section 8.4.1.
"""

from __future__ import annotations

import zlib
from functools import lru_cache

from service.api.http import Reply, quality
from service.errors import BodyTooLarge, InvalidRequest, UnsupportedMedia
from service.memory import paid, pay

CODINGS = ("gzip", "deflate")

_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_LEVEL = 1  # numbers hardly get smaller at higher ones, and those take several times as long
_STEP_BYTES = 256 * 1024  # unpacked at a time, each charged before the next
_WORTH_BYTES = 1024  # below that the reply fits one packet anyway


def unpack(body: bytes, coding: str, max_bytes: int) -> bytes:
    """The bytes that a body stands for.

    Args:
        body: as it came.
        coding: the Content-Encoding header; empty or `identity` leaves the body as it is.
        max_bytes: how much it may unpack to; no more than that is ever unpacked.

    Raises:
        UnsupportedMedia: another coding, or several of them.
        InvalidRequest: the bytes are not of that coding, cut off, or more than one of its streams.
        BodyTooLarge: there is more in them than `max_bytes`, or than the request may hold.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return body
    coding = "gzip" if coding == "x-gzip" else coding  # RFC 9110, section 8.4.1.3
    if coding not in _WINDOW:
        raise UnsupportedMedia(
            f"Expected a body whose Content-Encoding is gzip or deflate, or without one. Received: {coding[:80]!r}."
        )
    stream = zlib.decompressobj(_WINDOW[coding])
    pieces: list[bytes] = []
    size = 0
    try:
        while size <= max_bytes and not stream.eof:
            pay(_STEP_BYTES, "an unpacked body")
            piece = stream.decompress(body, min(_STEP_BYTES, max_bytes + 1 - size))
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
            body = stream.unconsumed_tail
    except zlib.error as error:
        raise _broken(coding, str(error)) from error
    if size > max_bytes:
        raise BodyTooLarge(
            f"Expected a body that unpacks to at most {max_bytes} bytes. Received: one that holds more.",
            limit_bytes=max_bytes,
        )
    if not stream.eof:
        raise _broken(coding, "one that is cut off")
    if stream.unused_data:  # a second member, too: nobody sends them, and a million of them would take long
        raise _broken(coding, "more bytes behind its end")
    with paid(size, "an unpacked body"):
        return b"".join(pieces)


@lru_cache(maxsize=256)
def choose(accept_encoding: str) -> str:
    """The coding that a client likes best of ours, or an empty string; gzip where it likes both alike.

    Args:
        accept_encoding: the header, `gzip;q=0.5, deflate`. Source: RFC 9110, section 12.5.3.
    """
    weights = dict.fromkeys(CODINGS, 0.0)
    for part in accept_encoding.lower().split(","):
        coding, _, parameters = part.partition(";")
        if coding.strip() in weights:
            weights[coding.strip()] = quality(parameters)
    best = max(weights, key=weights.__getitem__)
    return best if weights[best] > 0 else ""


def pack(body: bytes, coding: str) -> bytes | None:
    """The body in a coding of ours; `None` where that would not make it smaller."""
    if len(body) < _WORTH_BYTES:
        return None
    stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW[coding])
    packed = stream.compress(body) + stream.flush()
    return packed if len(packed) < len(body) else None


def packed(reply: Reply, accept_encoding: str) -> Reply:
    """The reply, its body packed where the client takes that and it is worth it.

    Args:
        reply: not packed; it is changed.
        accept_encoding: the header.
    """
    coding = choose(accept_encoding) if accept_encoding else ""
    body = pack(reply.body, coding) if coding else None
    if body is not None:
        reply.body = body
        reply.headers["content-encoding"] = coding
        reply.headers.setdefault("vary", "accept-encoding")
    return reply


def _broken(coding: str, received: str) -> InvalidRequest:
    return InvalidRequest(f"Expected a whole body in {coding}. Received: {received}.")
