"""The clients: wrk for throughput (closed loop, pinned), and one kept-alive connection for a lone request's time."""

from __future__ import annotations

import os
import re
import socket
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from servers import LOAD_CORE

CONNECTIONS = 32


@dataclass(frozen=True)
class Request:
    """What is sent, again and again."""

    path: str
    content_type: str
    body: bytes


def throughput(port: int, request: Request, seconds: int) -> float:
    """Replies a second with status 200; stops the run where any other reply or socket error came."""
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder, "body")
        body.write_bytes(request.body)
        script = Path(folder, "post.lua")
        script.write_text(
            f'local file = io.open("{body}", "rb")\n'
            'wrk.method = "POST"\n'
            'wrk.body = file:read("*a")\n'
            f'wrk.headers["Content-Type"] = "{request.content_type}"\n'
        )
        printed = subprocess.run(
            [
                "taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s",
                "-s", str(script), f"http://127.0.0.1:{port}{request.path}",
            ],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
    if "Non-2xx" in printed or "Socket errors" in printed:
        raise SystemExit(f"wrk met errors:\n{printed}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    if found is None:
        raise SystemExit(f"wrk printed no rate:\n{printed}")
    return float(found.group(1))


def lone_request_ms(port: int, request: Request, count: int) -> float:
    """The median time of one request at a time on a kept-alive connection, in milliseconds."""
    os.sched_setaffinity(0, {LOAD_CORE})
    head = (
        f"POST {request.path} HTTP/1.1\r\nHost: x\r\nContent-Type: {request.content_type}\r\n"
        f"Content-Length: {len(request.body)}\r\n\r\n"
    )
    message = head.encode() + request.body
    times = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count + count // 10):
            begun = time.perf_counter()
            connection.sendall(message)
            _read_reply(connection)
            times.append(time.perf_counter() - begun)
    return statistics.median(times[count // 10 :]) * 1e3


def _read_reply(connection: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, rest = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"expected 200, received {head[:200]!r}")
    found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    missing = int(found.group(1)) - len(rest) if found else 0
    while missing > 0:
        missing -= len(connection.recv(65536))
