"""Owns who is believed: the names that this service may be called by, and who may change what is served.

A page in somebody's browser can send requests to every address that this browser reaches, and reads the replies where
it lets a name of its own point there (DNS rebinding). So whoever administers must know a key, or be on this machine and
have called it by a local name, from no page of another origin. An address in place of a name cannot be rebound.

Sources: RFC 9110, section 7.2 (Host); RFC 6454, section 7 (Origin); RFC 6750, section 2.1 (Bearer).
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from service.api.http import HttpRequest
from service.errors import AdminRefused, HostNotAllowed

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+)(?::[0-9]*)?")
_MAX_HOST = 300  # characters; a name has at most 253
_LOCALHOST = "localhost"
_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via")  # a proxy's marks


class Hosts:
    """The names that requests may be sent to.

    Args:
        names: `models.example.com`, or `*.example.com` for every name below it; in lower case or not.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {name.lower().removesuffix(".") for name in names}

    def refusal(self, host: bytes) -> HostNotAllowed | None:
        """The error for a request to another name; `None` for one that may pass.

        Addresses and `localhost` always pass: no name of others can stand for them. So does a request without the
        header, which no browser sends.

        Args:
            host: the Host header, or nothing.
        """
        if not host or self._has(host):
            return None
        return HostNotAllowed(
            "Expected a Host that is one of allowed_hosts, an address or localhost. "
            f"Received: {host[:80].decode('latin-1')!r}."
        )

    def _has(self, host: bytes) -> bool:
        name = _name_of(host)
        if name is None:
            return False
        if name == _LOCALHOST or name in self._names or _address(name) is not None:
            return True
        return any(f"*.{parent}" in self._names for parent in _parents(name))


def check_administrator(request: HttpRequest, key: str | None) -> None:
    """Lets a request that would change what is served pass, or refuses it.

    Args:
        request: its headers and its client.
        key: the setting `admin_key`; where it is unset, only this machine is believed.

    Raises:
        AdminRefused: the key is missing or wrong; or there is none, and the request comes from elsewhere, through a
            proxy, by another name or from a page of another origin.
    """
    if key is not None:
        given = list(_keys(request))
        if not any(hmac.compare_digest(one, key.encode()) for one in given):
            received = "another one" if given else "none"
            raise AdminRefused(
                "Expected the admin_key, as 'Authorization: Bearer KEY' or 'X-Admin-Key: KEY'. "
                f"Received: {received}."
            )
        return
    strange = _strangeness(request)
    if strange is not None:
        raise AdminRefused(
            "Expected a request from this machine to localhost, and from no page of another origin; others need the "
            f"setting admin_key. Received: {strange}."
        )


def _keys(request: HttpRequest) -> Iterator[bytes]:
    """The keys that a request gives."""
    scheme, _, token = request.headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        yield token.strip()
    if b"x-admin-key" in request.headers:
        yield request.headers[b"x-admin-key"].strip()


def _strangeness(request: HttpRequest) -> str | None:
    """What makes a request one that another machine or another page may have caused; `None`: nothing."""
    client = _address(request.client)
    if client is None or not _is_loopback(client):
        return f"one from {request.client or 'an unknown address'}"
    passed_on = next((name for name in _FORWARDED if name in request.headers), None)
    if passed_on is not None:
        return f"one that a proxy passed on, with the header {passed_on.decode()}"
    host = request.headers.get(b"host", b"")
    name = _name_of(host)
    address = _address(name) if name is not None else None
    if name != _LOCALHOST and (address is None or not _is_loopback(address)):
        return f"Host: {host[:80].decode('latin-1')!r}"
    origin = request.headers.get(b"origin")
    if origin is not None and origin.lower().partition(b"://")[2] != host.lower():
        return f"Origin: {origin[:80].decode('latin-1')!r}"
    return None


@lru_cache(maxsize=256)
def _name_of(host: bytes) -> str | None:
    """The name in a Host header, in lower case and without its port; an IPv6 address without its brackets."""
    match = _HOST.fullmatch(host.decode("latin-1").strip()) if len(host) <= _MAX_HOST else None
    return match["name"].lower().strip("[]").removesuffix(".") if match is not None else None


@lru_cache(maxsize=256)
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _parents(name: str) -> Iterator[str]:
    """`a.b.c`: `b.c`, then `c`."""
    while "." in name:
        name = name.partition(".")[2]
        yield name
