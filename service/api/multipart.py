"""Owns the reading of `multipart/form-data` bodies: the parts in the order they were sent.

Source: RFC 7578; parsed by werkzeug's sans-IO decoder.
"""

from __future__ import annotations

from dataclasses import dataclass

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from service.errors import BodyTooLarge, InvalidRequest
from service.memory import pay

_COPIES = 3
_MAX_PARTS = 4096


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a form.

    Args:
        name: the field's name.
        filename: what the client calls the file; `None` for plain fields.
        data: the bytes.
    """

    name: str
    filename: str | None
    data: bytes


def read_parts(body: bytes, content_type: str) -> list[Part]:
    """The parts of a form, in order.

    Raises:
        InvalidRequest: no boundary, or the body does not follow it.
        BodyTooLarge: too many parts.
    """
    _, parameters = parse_options_header(content_type)
    boundary = parameters.get("boundary", "")
    if not boundary:
        raise InvalidRequest(
            "Expected a boundary in the Content-Type of multipart/form-data. Received: none. "
            "Let the HTTP client set this header."
        )
    pay(_COPIES * len(body), "the parts of a form")
    decoder = MultipartDecoder(boundary.encode("latin-1", "replace"), max_parts=_MAX_PARTS)
    try:
        return _collect(decoder, body)
    except RequestEntityTooLarge as error:
        raise BodyTooLarge(f"Expected at most {_MAX_PARTS} parts in a form. Received: more.") from error
    except (ValueError, KeyError, LookupError) as error:
        raise InvalidRequest(f"Expected a multipart/form-data body. Received: {error}.") from error


def _collect(decoder: MultipartDecoder, body: bytes) -> list[Part]:
    parts: list[Part] = []
    head: Field | File | None = None
    chunks: list[bytes] = []
    decoder.receive_data(body)
    decoder.receive_data(None)
    while True:
        event = decoder.next_event()
        if isinstance(event, Epilogue | NeedData):
            return parts
        if isinstance(event, Field | File):
            head, chunks = event, []
        elif isinstance(event, Data) and head is not None:
            chunks.append(event.data)
            if not event.more_data:
                filename = head.filename if isinstance(head, File) else None
                parts.append(Part(head.name or "", filename, b"".join(chunks)))
