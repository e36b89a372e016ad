"""Requests inside the bodies of others: what asks for another protocol, or is framed oddly, never becomes two requests."""

import itertools
import json
import shutil
import subprocess

import pytest
from drivers import open_site
from raw_http import JSON, LAST, ROW, connect, replies, rows, written
from serving import serve
from wire import Wire

V2 = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [5, 3, 1, 0]}]}
).encode()
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: hidden\r\n\r\n"
WISHES = {
    "java": ("Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAEAAEAAAAIAAAAB", "Upgrade: h2c"),
    "lower": ("upgrade: h2c", "connection: upgrade"),
    "websocket": (
        "Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
    "several": ("Connection: Upgrade", "Upgrade: TLS/1.0, h2c", "Upgrade: websocket"),
}  # fmt: skip
ROUTES = {
    "direct": ("POST", "/predict?model=iris", ROW, JSON),
    "large": ("POST", "/predict?model=iris", rows(3000), "Content-Type: application/x-npy"),
    "refused": ("POST", "/predict?model=iris", b"{", JSON),
    "v1": ("POST", "/v1/models/iris:predict", ROW, JSON),
    "v2": ("POST", "/v2/models/iris/infer", V2, JSON),
    "flask": ("POST", "/v2/models/iris/stats", HIDDEN, JSON),
    "nowhere": ("POST", "/nowhere", HIDDEN, JSON),
    "health": ("GET", "/healthz", HIDDEN, JSON),
    "no body": ("GET", "/models/iris", b"", JSON),
}


@pytest.fixture(scope="module")
def site():
    with open_site("iris") as site:
        yield site


def halves(data, place):
    return data[:place], data[place:]


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("wish", WISHES)
def test_a_wish_for_another_protocol_is_passed_over(site, wish, route, chunked):
    method, target, body, kind = ROUTES[route]
    address = site.direct.address
    plain, end = replies(address, written(method, target, body, kind, chunked=chunked) + LAST)
    assert end.headers["x-request-id"] == "last"
    sent = written(method, target, body, kind, *WISHES[wish], chunked=chunked)
    head = sent.index(b"\r\n\r\n") + 4
    for pieces in ((sent + LAST,), halves(sent + LAST, head), halves(sent + LAST, head - 1), (sent, LAST)):
        answer, end = replies(address, *pieces)
        assert (answer.status, answer.body) == (plain.status, plain.body)
        assert answer.headers["x-request-id"] == "first"
        assert end.headers["x-request-id"] == "last"


def test_a_wish_byte_by_byte(site):
    sent = written("POST", "/predict?model=iris", ROW, JSON, *WISHES["java"]) + LAST
    answer, end = replies(site.direct.address, *(sent[place : place + 1] for place in range(len(sent))))
    assert (answer.status, end.headers["x-request-id"]) == (200, "last")


def test_wishes_one_after_the_other(site):
    sent = written("POST", "/predict?model=iris", ROW, JSON, *WISHES["java"])
    *answers, end = replies(site.direct.address, sent * 20 + LAST)
    assert [answer.status for answer in answers] == [200] * 20
    assert end.headers["x-request-id"] == "last"


def test_a_wish_that_waits_for_leave_to_send_its_body(site):
    sent = written("POST", "/predict?model=iris", ROW, JSON, *WISHES["java"], "Expect: 100-continue")
    with connect(site.direct.address) as connection:
        connection.sendall(sent.removesuffix(ROW))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(ROW)
        assert Wire(connection).answer().status == 200


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize("target", ["localhost:443", "/predict?model=iris"])
def test_a_tunnel_is_refused_and_the_connection_ends(site, target, chunked):
    sent = written("CONNECT", target, HIDDEN, JSON, chunked=chunked)
    (answer,) = replies(site.direct.address, sent + LAST)
    assert (answer.status, answer.headers["connection"]) == (501, "close")


FRAMED_TWICE = {
    "length and chunks": b"Content-Length: 3\r\nTransfer-Encoding: chunked",
    "chunks and length": b"Transfer-Encoding: chunked\r\nContent-Length: 3",
    "two lengths": b"Content-Length: 3\r\nContent-Length: 60",
    "a list of lengths": b"Content-Length: 3, 3",
    "a sign": b"Content-Length: +3",
    "chunks that are not last": b"Transfer-Encoding: chunked, identity",
    "no chunks": b"Transfer-Encoding: identity",
    "not quite chunks": b"Transfer-Encoding: xchunked",
    "chunks in two lines": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "a space before the colon": b"Transfer-Encoding : chunked",
    "folded": b"Transfer-Encoding:\r\n chunked",
    "bare line feeds": b"Content-Length: 3\nX: y",
}


@pytest.mark.parametrize(
    ("framing", "wish"), [*itertools.product(FRAMED_TWICE, [b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"])]
)
def test_what_could_be_read_in_two_ways_is_refused_and_the_connection_ends(site, framing, wish):
    head = b"POST /predict?model=iris HTTP/1.1\r\nHost: localhost\r\n" + wish + FRAMED_TWICE[framing]
    (answer,) = replies(site.direct.address, head + b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + HIDDEN)
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert answer.headers["x-request-id"] != "hidden"


def test_nothing_is_read_after_a_request_that_ends_the_connection(site):
    for target in ("/predict?model=iris", "/v2/models/iris/stats"):
        (answer,) = replies(
            site.direct.address, written("POST", target, ROW, JSON, "Connection: close") + LAST
        )
        assert answer.headers["x-request-id"] == "first"


def test_chunks_of_an_old_client_end_its_connection(site):
    sent = written(
        "POST", "/predict?model=iris", ROW, JSON, "Connection: keep-alive", chunked=True, version="1.0"
    )
    (answer,) = replies(site.direct.address, sent + HIDDEN)
    assert (answer.status, answer.headers["connection"]) == (200, "close")


def test_what_stands_behind_a_body_is_no_header(site):
    sent = written("POST", "/v2/models/iris/stats", ROW, JSON, chunked=True)
    sent = (
        sent.removesuffix(b"\r\n").replace(b"X-Request-Id: first\r\n", b"") + b"X-Request-Id: hidden\r\n\r\n"
    )
    answer, _ = replies(site.direct.address, sent + LAST)
    assert answer.headers["x-request-id"] != "hidden"


# -- real clients, real server ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service():
    with serve(default_model="iris") as service:
        yield service.until_ready()


def test_curl_that_wishes_for_http_2(service, tmp_path):
    base = f"http://127.0.0.1:{service.port}"
    body = tmp_path / "body"
    for count in (1, 5000):
        body.write_text(json.dumps({"instances": json.loads(ROW)["instances"] * count}))
        asked = ["--data-binary", f"@{body}", f"{base}/predict", "--next", f"{base}/models/iris"]
        got = subprocess.run(
            ["curl", "-sS", "--http2", "-w", "%{http_code} %{num_connects}\n", "-o", tmp_path / "first", *asked],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert got.stdout.startswith("200 1\n")
        assert len(json.loads((tmp_path / "first").read_text())["predictions"]) == count


JAVA = """
import java.net.URI;
import java.net.http.*;

public class Ask {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int i = 0; i < 3; i++) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0]))
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(arguments[1])).build();
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body());
        }
    }
}
"""


@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java: apt-get install default-jdk-headless")
def test_javas_own_client(service, tmp_path):
    source = tmp_path / "Ask.java"
    source.write_text(JAVA)
    url = f"http://127.0.0.1:{service.port}/predict"
    got = subprocess.run(
        ["java", source, url, ROW.decode()], check=False, capture_output=True, text=True, timeout=120
    )
    assert [line[:4] for line in got.stdout.splitlines()] == ["200 "] * 3, got.stderr
