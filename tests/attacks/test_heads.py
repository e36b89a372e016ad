"""Heads without an end: targets, headers and their number are bounded, however they are cut on their way."""

import re

import pytest
from drivers import CONNECTION_LIMITS, open_site
from raw_http import LAST, ROW, replies, written

LIMITS = CONNECTION_LIMITS
CUTS = {"whole": 10**9, "pieces": 4000, "small pieces": 700}


@pytest.fixture(scope="module")
def site():
    with open_site("iris") as site:
        yield site


def cut(data, size):
    return [data[start : start + size] for start in range(0, len(data), size)]


def with_target(size):
    target = "/predict?model=iris&layer="
    return written("POST", target + "x" * (size - len(target)), ROW)


def with_head(size):
    """A head of that size; each header counts with the colon, the space and the end of its line."""
    sent = written("GET", "/models/iris", b"", "Long: ")
    names = sum(len(line) + 2 for line in sent.split(b"\r\n")[1:-2]) + len("/models/iris")
    return sent.replace(b"Long: ", b"Long: " + b"x" * (size - names))


def with_headers(count):
    given = len(written("GET", "/models/iris").split(b"\r\n")) - 3
    return written("GET", "/models/iris", b"", *(f"H{number}: x" for number in range(count - given)))


KINDS = {
    "target": (with_target, LIMITS.max_target_bytes, 400, 414, "target_too_long"),
    "bytes": (with_head, LIMITS.max_head_bytes, 200, 431, "head_too_large"),
    "headers": (with_headers, LIMITS.max_headers, 200, 431, "head_too_large"),
}


@pytest.mark.parametrize("size", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", [b"", written("POST", "/predict?model=iris", ROW)], ids=["first", "later"])
def test_a_head_may_be_so_large_and_no_larger(site, before, kind, size):
    request_of, most, fine, refused, code = KINDS[kind]
    *earlier, answer, end = replies(site.direct.address, *cut(before + request_of(most) + LAST, size))
    assert [each.status for each in earlier] == ([200] if before else [])
    assert (answer.status, end.headers["x-request-id"]) == (fine, "last")
    *earlier, answer = replies(site.direct.address, *cut(before + request_of(most + 1), size))
    assert [each.status for each in earlier] == ([200] if before else [])
    assert (answer.status, answer.headers["connection"]) == (refused, "close")
    assert answer.json()["code"] == code
    assert "Expected" in answer.json()["detail"]
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("wish", ["Upgrade: h2c", "X: y"])
def test_a_wish_for_another_protocol_makes_no_difference(site, wish):
    sent = with_head(LIMITS.max_head_bytes + 1).replace(
        b"Host:", f"Connection: Upgrade\r\n{wish}\r\nHost:".encode()
    )
    (answer,) = replies(site.direct.address, sent)
    assert answer.status == 431


def test_a_dialect_tells_it_in_its_own_words(site):
    sent = with_target(LIMITS.max_target_bytes + 1).replace(b"/predict?", b"/v2/models/iris/infer?")
    (answer,) = replies(site.direct.address, sent)
    assert (answer.status, list(answer.json())) == (414, ["error"])


def test_refusals_are_counted(site):
    def counted():
        told = site.telemetry.render().decode()
        return re.findall(r'rejected_total\{reason="head_too_large"\} (\S+)', told), re.findall(
            r'requests_total\{code="431",model="unknown",route="unknown"\} (\S+)', told
        )

    replies(site.direct.address, with_headers(LIMITS.max_headers + 1))
    before = counted()
    replies(site.direct.address, with_headers(LIMITS.max_headers + 1))
    assert [float(now) - float(then) for [now], [then] in zip(counted(), before, strict=True)] == [1, 1]
