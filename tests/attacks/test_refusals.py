"""Clients that are refused while they still send: each comes to read why, and none is heard out for ever."""

import http.client
import io
import shutil
import socket
import subprocess
from dataclasses import replace

import pytest
from drivers import CONNECTION_LIMITS, MAX_BODY_BYTES, open_site
from raw_http import LAST, connect, replies, replies_on, written
from serving import serve

POURED = 4 * MAX_BODY_BYTES  # more than any socket holds
PIECE = b"x" * 65536


@pytest.fixture(scope="module")
def site():
    with open_site("iris") as site:
        yield site


def head(target, *lines, method="POST"):
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def chunk(size):
    return b"%x\r\n%b\r\n" % (size, b"x" * size)


REFUSED = {
    "too large": (head("/predict?model=iris", f"Content-Length: {POURED}"), PIECE, 413),
    "v1 too large": (head("/v1/models/iris:predict", f"Content-Length: {POURED}"), PIECE, 413),
    "v2 too large": (head("/v2/models/iris/infer", f"Content-Length: {POURED}"), PIECE, 413),
    "elsewhere too large": (head("/v2/models/iris/stats", f"Content-Length: {POURED}"), PIECE, 413),
    "chunks too large": (head("/predict?model=iris", "Transfer-Encoding: chunked"), chunk(65536), 413),
    "elsewhere chunks too large": (head("/v2/repository/index", "Transfer-Encoding: chunked"), chunk(65536), 413),
    "endless target": (b"GET /", PIECE, 414),
    "endless header": (b"GET / HTTP/1.1\r\nHost: ", PIECE, 431),
    "endless headers": (b"GET / HTTP/1.1\r\n", b"A: b\r\n" * 10_000, 431),
    "endless name": (b"GET / HTTP/1.1\r\n", PIECE, 431),
    "endless extension": (head("/predict", "Transfer-Encoding: chunked") + b"1;", PIECE, 431),
    "endless trailer": (head("/predict", "Transfer-Encoding: chunked") + b"0\r\nA: ", PIECE, 431),
    "endless trailers": (head("/predict", "Transfer-Encoding: chunked") + b"0\r\n", b"A: b\r\n" * 10_000, 431),
    "no request": (b"nonsense\r\n", PIECE, 400),
    "no chunk": (head("/predict", "Transfer-Encoding: chunked") + b"what\r\n", PIECE, 400),
    "no chunk elsewhere": (head("/nowhere", "Transfer-Encoding: chunked") + b"what\r\n", PIECE, 400),
    "tunnel": (head("localhost:443", method="CONNECT"), PIECE, 501),
    "after the end": (head("/healthz", "Connection: close", method="GET"), PIECE, 200),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_client_that_reads_only_once_it_has_sent_all_reads_its_refusal(site, case):
    begin, piece, status = REFUSED[case]
    with connect(site.direct.address) as connection:
        connection.sendall(begin)
        for _ in range(POURED // len(piece)):
            connection.sendall(piece)
        (answer,) = replies_on(connection)
    assert (answer.status, answer.headers["connection"]) == (status, "close")


def test_replies_before_the_refusal_come_first(site):
    earlier = written("POST", "/v2/models/iris/stats", b"{}")
    begin, piece, status = REFUSED["endless header"]
    with connect(site.direct.address) as connection:
        connection.sendall(earlier * 3 + begin)
        for _ in range(POURED // len(piece)):
            connection.sendall(piece)
        statuses = [answer.status for answer in replies_on(connection)]
    assert statuses == [405, 405, 405, status]


def test_who_waits_for_leave_to_send_a_body_is_refused_without_it(site):
    asked = head("/predict?model=iris", f"Content-Length: {POURED}", "Expect: 100-continue")
    (answer,) = replies(site.direct.address, asked)
    assert answer.status == 413


def test_a_body_that_nobody_waits_for_is_passed_over_and_the_connection_goes_on(site):
    with connect(site.direct.address) as connection:
        connection.sendall(head("/healthz", f"Content-Length: {len(PIECE)}", method="GET"))
        peeked = connection.recv(1, socket.MSG_PEEK)  # the reply is there, the body is not
        connection.sendall(PIECE + LAST)
        answers = replies_on(connection)
    assert peeked == b"H"
    assert [answer.status for answer in answers] == [200, 200]


def test_what_comes_after_such_a_body_goes_wrong_is_no_second_reply(site):
    with connect(site.direct.address) as connection:
        connection.sendall(head("/healthz", "Transfer-Encoding: chunked", method="GET"))
        connection.recv(1, socket.MSG_PEEK)
        connection.sendall(b"what\r\n")
        (answer,) = replies_on(connection)
    assert answer.status == 200


def test_a_refused_client_that_stays_is_heard_out_for_a_time_only():
    limits = replace(CONNECTION_LIMITS, linger_timeout_s=0.5)
    with open_site("iris", connection_limits=limits) as site, connect(site.direct.address) as connection:
        connection.sendall(b"nonsense\r\n")
        (answer,) = replies_on(connection)  # to the end: the server's side is closed
        assert answer.status == 400
        site.direct.until(lambda connections: not connections)


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_client_that_sends_on_is_heard_out_for_so_many_bytes_only(case):
    begin, piece, _ = REFUSED[case]
    limits = replace(CONNECTION_LIMITS, max_unread_bytes=100_000)
    with open_site("iris", connection_limits=limits) as site, connect(site.direct.address) as connection:
        connection.sendall(begin)
        with pytest.raises(ConnectionError):
            connection.sendall(piece * 2000)
        site.direct.until(lambda connections: not connections)


# -- real clients, real server ----------------------------------------------------------------------------

NODE = """
const http = require("node:http");
const [port, size] = process.argv.slice(2).map(Number);
const request = http.request({port, method: "POST", path: "/predict", headers: {"Content-Length": size}}, (answer) => {
  console.log(answer.statusCode);
  answer.resume();
});
request.on("error", (error) => console.log(error.code));
const piece = Buffer.alloc(65536);
let left = size;
(function pour() {
  while (left > 0) {
    left -= piece.length;
    if (!request.write(piece)) return request.once("drain", pour);
  }
  request.end();
})();
"""


@pytest.fixture(scope="module")
def service():
    with serve(default_model="iris", max_body_bytes=1_000_000) as service:
        yield service.until_ready()


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node: apt-get install nodejs")
def test_node_reads_the_refusal(service, tmp_path):
    script = tmp_path / "ask.js"
    script.write_text(NODE)
    for _ in range(3):
        asked = ["node", script, str(service.port), str(30 * 2**20)]
        got = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60)
        assert got.stdout == "413\n"


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
def test_pythons_own_client_reads_the_refusal(service, chunked):
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    body = io.BytesIO(bytes(30 * 2**20))
    headers = {} if chunked else {"Content-Length": str(30 * 2**20)}
    connection.request("POST", "/predict", body, headers, encode_chunked=chunked)
    assert connection.getresponse().status == 413
    connection.close()
