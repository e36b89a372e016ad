"""The clients: wrk for throughput (closed loop, pinned), one connection for a lone request, one for an answer."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from servers import LOAD_CORE

CONNECTIONS = 32
_BUSY = (429, 503)
_END = (b"\r\n", b"")  # of a head, and of a connection
# Prints the run as JSON; several requests are sent in turn.
_SCRIPT = """
local messages = {}
local turn = 0
local function read(path)
  local file = io.open(path, "rb")
  local body = file:read("*a")
  file:close()
  return body
end
local wanted = %s
init = function()
  for _, one in ipairs(wanted) do
    table.insert(messages, wrk.format("POST", one.path, one.headers, read(one.file)))
  end
end
request = function()
  turn = turn %% #messages + 1
  return messages[turn]
end
done = function(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"requests": %%d, "us": %%d, "refused": %%d, "broken": %%d, "p50_us": %%d, "p99_us": %%d}',
    summary.requests, summary.duration, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Request:
    """What is sent, again and again."""

    path: str
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def message(self) -> bytes:
        """The bytes on the wire, HTTP/1.1."""
        headers = {"Host": "127.0.0.1", "Content-Type": self.content_type, "Content-Length": len(self.body)}
        lines = [f"{name}: {value}\r\n" for name, value in (headers | dict(self.headers)).items()]
        return f"POST {self.path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + self.body


@dataclass(frozen=True)
class Reading:
    """A closed loop's result.

    Args:
        rate: replies a second with a status below 400.
        failed: replies with other statuses, and broken connections.
    """

    rate: float
    failed: int
    p50_ms: float
    p99_ms: float


def closed_loop(
    port: int, requests: Sequence[Request], seconds: int, connections: int = CONNECTIONS
) -> Reading:
    """`connections` clients, each with one request at a time in flight; several requests are sent in turn."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = []
        for place, request in enumerate(requests):
            body = Path(folder, str(place))
            body.write_bytes(request.body)
            headers = {"Content-Type": request.content_type, **request.headers}
            pairs = ", ".join(
                f"[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()
            )
            wanted.append(
                f"{{path = {json.dumps(request.path)}, file = {json.dumps(str(body))}, headers = {{{pairs}}}}}"
            )
        script = Path(folder, "post.lua")
        script.write_text(_SCRIPT % f"{{{', '.join(wanted)}}}")
        command = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
        command += ["--timeout", "60s", "-s", str(script), f"http://127.0.0.1:{port}"]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(printed.strip().splitlines()[-1])
    good = found["requests"] - found["refused"]
    failed = found["refused"] + found["broken"]
    return Reading(good / found["us"] * 1e6, failed, found["p50_us"] / 1e3, found["p99_us"] / 1e3)


def throughput(port: int, request: Request, seconds: int) -> float:
    """Replies a second with status 200; stops the run where any other reply or socket error came."""
    reading = closed_loop(port, [request], seconds)
    if reading.failed:
        raise SystemExit(f"{reading.failed} requests to {request.path} failed")
    return reading.rate


def ask(port: int, request: Request, timeout_s: float = 60) -> tuple[int, Mapping[str, str], bytes]:
    """One answer: status, headers with lower-case names, body.

    Raises:
        OSError, http.client.HTTPException: nobody answers.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        headers = {"Content-Type": request.content_type, **request.headers}
        connection.request("POST", request.path, request.body, headers)
        reply = connection.getresponse()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
    finally:
        connection.close()


def drain(port: int, request: Request) -> None:
    """Returns when the server has answered one request: what a load before left behind is then done.

    Servers go on with requests whose client has gone; a slow one would spend the next measurement on them.
    """
    with contextlib.suppress(OSError, http.client.HTTPException):
        while ask(port, request)[0] in _BUSY:
            time.sleep(0.1)


def lone_request_ms(port: int, request: Request, count: int) -> float:
    """The median time of one request at a time on a kept-alive connection, in milliseconds."""
    os.sched_setaffinity(0, {LOAD_CORE})
    message = request.message()
    times = []
    with connected(port) as exchange:
        for _ in range(count + count // 10):
            begun = time.perf_counter()
            exchange(message)
            times.append(time.perf_counter() - begun)
    return statistics.median(times[count // 10 :]) * 1e3


@contextlib.contextmanager
def connected(port: int) -> Iterator[Callable[[bytes], None]]:
    """A kept-alive connection: what sends a whole request and returns at the end of its reply.

    It stops the run where the status is not 200, or the server closes. One reader serves all replies: what comes
    along with the end of one belongs to the next.
    """
    with (
        socket.create_connection(("127.0.0.1", port)) as connection,
        connection.makefile("rb", 65536) as replies,
    ):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def exchange(message: bytes) -> None:
            connection.sendall(message)
            read_reply(replies)

        yield exchange


def read_reply(replies: io.BufferedReader) -> None:
    """Reads the next reply to its end; stops the run where its status is not 200, or it is cut off."""
    status = replies.readline()
    if not status.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"expected 200, received {status[:200]!r}")
    length, chunked = 0, False
    while (line := replies.readline().lower()) not in _END:
        if line.startswith(b"content-length:"):
            length = int(line[15:])
        elif line.startswith(b"transfer-encoding:"):
            chunked = b"chunked" in line
    whole = bool(line) and (_skip_chunks(replies) if chunked else len(replies.read(length)) == length)
    if not whole:
        raise SystemExit("expected a whole reply, and the server closed the connection")


def _skip_chunks(replies: io.BufferedReader) -> bool:
    """Reads chunks, and the empty line after the last one; whether they are all there."""
    while line := replies.readline():
        if (size := int(line.partition(b";")[0], 16)) == 0:
            return replies.readline() == b"\r\n"
        replies.read(size + 2)
    return False
