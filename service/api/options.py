"""Owns the query string and the Accept header of the native API: their names, values and messages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qsl

from service.api.http import encode_query, quality
from service.errors import InvalidParameter, NotAcceptable
from service.fields import nearest
from service.payloads.codecs import JSON, NPY, NPZ

SHARED = ("model", "version", "top", "dtype", "timeout_ms")
FEATURES_ONLY = ("layer", "pool", "normalize", "include")
REPEATABLE = ("layer",)
CHOICES = {
    "pool": ("avg", "max"),
    "normalize": ("l2",),
    "dtype": ("float16", "float32"),
    "include": ("predictions",),
}
_MAX_PARAMETERS = 256
_MAX_REMEMBERED_BYTES = 1024  # of a query or a header: what is longer is parsed every time, not kept
_MAX_COUNT = 10**9
_MAX_VERSION = 10**18
_FORMATS = (JSON, NPY, NPZ)


@dataclass(frozen=True, slots=True)
class Options:
    """What the query asks for; see `/docs` for each."""

    model: str | None = None
    version: int | None = None
    layers: tuple[str, ...] = ()
    top: int | None = None
    pool: str | None = None
    normalize: str | None = None
    dtype: str | None = None
    predictions: bool = False
    timeout_s: float | None = None


def parse_options(query: bytes, *, features: bool) -> Options:
    """The options of a raw query string.

    Args:
        query: as it came, percent-encoded.
        features: the route is `/features`, which takes more options than `/predict`.

    Raises:
        InvalidParameter: an unknown or repeated name, or an impossible value.
    """
    parse = _parse_options if len(query) <= _MAX_REMEMBERED_BYTES else _parse_options.__wrapped__
    return parse(query, features)


@lru_cache(maxsize=4096)
def _parse_options(query: bytes, features: bool) -> Options:
    known = (*SHARED, *FEATURES_ONLY) if features else SHARED
    values: dict[str, list[str]] = {}
    for name, value in _pairs(query):
        if name not in known:
            raise InvalidParameter(
                f"Expected query parameters out of {', '.join(known)}. Received: {name[:80]!r}.{nearest(name, known)}"
            )
        values.setdefault(name, []).append(value)
        if len(values[name]) > 1 and name not in REPEATABLE:
            raise InvalidParameter(f"Expected '{name}' once. Received: {len(values[name])} times.")
    one = {name: found[0] for name, found in values.items()}
    for name, choices in CHOICES.items():
        if name in one and one[name] not in choices:
            raise InvalidParameter(
                f"Expected '{name}' to be {' or '.join(choices)}. Received: {one[name][:80]!r}."
            )
    timeout_ms = _whole(one, "timeout_ms", 1, _MAX_COUNT)
    return Options(
        model=one.get("model"),
        version=_whole(one, "version", 0, _MAX_VERSION),
        layers=tuple(values.get("layer", ())),
        top=_whole(one, "top", 1, _MAX_COUNT),
        pool=one.get("pool"),
        normalize=one.get("normalize"),
        dtype=one.get("dtype"),
        predictions="include" in one or not features,
        timeout_s=None if timeout_ms is None else timeout_ms / 1000,
    )


def _pairs(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            encode_query(query).decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=_MAX_PARAMETERS,
        )
    except ValueError as error:
        raise InvalidParameter(
            f"Expected a query string of name=value pairs, percent-encoded UTF-8, at most {_MAX_PARAMETERS}. "
            f"Received: {error}."
        ) from error


def _whole(values: dict[str, str], name: str, low: int, high: int) -> int | None:
    if name not in values:
        return None
    text = values[name]
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and low <= int(text) <= high):
        raise InvalidParameter(
            f"Expected '{name}' to be a whole number from {low} to {high}. Received: {text[:80]!r}."
        )
    return int(text)


def parse_accept(accept: str) -> tuple[str, ...]:
    """The formats that the client takes, best first; JSON where it does not say.

    Raises:
        NotAcceptable: none of ours is among them.

    Source: RFC 9110, section 12.5.1. The most specific range decides about a format, so that one named with q=0
    is excluded whatever the wild-cards say; equal weights keep the header's order, and JSON comes first under a
    wild-card.
    """
    parse = _parse_accept if len(accept) <= _MAX_REMEMBERED_BYTES else _parse_accept.__wrapped__
    return parse(accept)


@lru_cache(maxsize=256)
def _parse_accept(accept: str) -> tuple[str, ...]:
    if not accept.strip():
        return (JSON,)
    ranges: dict[str, tuple[float, int]] = {}
    for place, part in enumerate(accept.split(",")):
        media, _, parameters = part.partition(";")
        ranges.setdefault(media.strip().lower(), (-quality(parameters), place))
    ranked = []
    for media in _FORMATS:
        weight, place = next(
            (ranges[name] for name in (media, "application/*", "*/*") if name in ranges), (0.0, 0)
        )
        if weight < 0:
            ranked.append((weight, place, media))
    if not ranked:
        raise NotAcceptable(f"Expected Accept to allow {JSON}, {NPY} or {NPZ}. Received: {accept[:200]!r}.")
    ranked.sort(key=lambda rank: rank[:2])  # stable: our own order decides between the rest
    return tuple(media for _, _, media in ranked)


def parse_version(query: bytes) -> int | None:
    """The `version` in the raw query string of a metadata route; other names mean nothing there.

    Raises:
        InvalidParameter: it is no version number, or the query no query.
    """
    return _whole(dict(_pairs(query)), "version", 0, _MAX_VERSION)
