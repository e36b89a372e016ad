"""Owns what browsers are told beside pages and errors: what may run there, that nobody frames them, what type they are.

Sources: https://www.w3.org/TR/CSP3/ and https://fetch.spec.whatwg.org/#x-content-type-options-header.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType

from service.api.http import Reply

POLICY = "content-security-policy"

GUARDS: Mapping[str, str] = MappingProxyType(
    {POLICY: "default-src 'none'; frame-ancestors 'none'", "x-content-type-options": "nosniff"}
)
"""The headers of what shall run nothing at all: every error, and everything else that is no page."""


def guarded(reply: Reply) -> Reply:
    """The reply with these headers."""
    reply.headers |= GUARDS
    return reply


def page_policy(page: str) -> str:
    """The policy under which a page runs its own script and style, asks this service, and can do nothing else.

    Args:
        page: HTML whose scripts and styles stand in it, as elements without attributes.
    """
    allowed = {name: " ".join(_hashes(page, name)) for name in ("script", "style")}
    return (
        f"default-src 'none'; script-src {allowed['script']}; style-src {allowed['style']}; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hashes(page: str, element: str) -> list[str]:
    texts = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    return [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
