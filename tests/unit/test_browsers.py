"""The policy of the page allows what the page has, and nothing else; what is no page may run nothing."""

import base64
import hashlib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from service.api.http import Reply
from service.drivers.browsers import GUARDS, guarded, page_policy

PAGE = (Path(__file__).parents[2] / "service/drivers/pages/docs.html").read_text(encoding="utf-8")


class Inventory(HTMLParser):
    """What a page has that a policy must allow."""

    def __init__(self):
        super().__init__()
        self.inline = {"script": [], "style": []}
        self.attributes = []
        self._open = None

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, name, value) for name, value in attributes]
        self._open = tag

    def handle_endtag(self, _):
        self._open = None

    def handle_data(self, data):
        if self._open in self.inline:
            self.inline[self._open].append(data)


@pytest.fixture(scope="module")
def inventory():
    found = Inventory()
    found.feed(PAGE)
    return found


@pytest.fixture(scope="module")
def policy():
    return {part.split()[0]: part.split()[1:] for part in page_policy(PAGE).split("; ")}


@pytest.mark.parametrize("element", ["script", "style"])
def test_each_script_and_style_of_the_page_is_allowed_by_its_hash(inventory, policy, element):
    digests = [hashlib.sha256(text.encode()).digest() for text in inventory.inline[element]]
    assert len(digests) == 1
    assert policy[f"{element}-src"] == [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]


def test_the_page_needs_nothing_else(inventory, policy):
    assert not [
        attribute for attribute in inventory.attributes if attribute[1] == "style" or attribute[1][:2] == "on"
    ]
    loaded = [
        attribute for attribute in inventory.attributes if attribute[1] == "src" or attribute[0] == "link"
    ]
    assert {value for _, name, value in loaded if name in ("href", "src")} == {"data:,"}
    assert policy["img-src"] == ["data:"]
    assert policy["connect-src"] == ["'self'"]
    assert policy["default-src"] == policy["frame-ancestors"] == ["'none'"]


def test_a_reply_that_is_no_page_may_run_nothing():
    reply = guarded(Reply(400, b"{}", headers={"retry-after": "1"}))
    assert reply.headers == {"retry-after": "1", **GUARDS}
    assert "frame-ancestors 'none'" in GUARDS["content-security-policy"]
