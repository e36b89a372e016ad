"""An open loop: Poisson arrivals that do not wait for answers; times count from when a request was meant to leave.

Raw sockets and epoll in one thread, on the load's core, so that a request costs the client a few system calls. The
bytes are made beforehand; of a reply only status, length and `Retry-After` are looked at. The client spins while the
next arrival is near, because epoll's time-outs are whole milliseconds. Run as a program it reads one job as JSON.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from load import Request
from servers import LOAD_CORE

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RETRY = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_NEAR_S = 0.002
_BUFFER = 1 << 18
_AT_ONCE, _PAUSE_S = 100, 0.02  # new connections, and the time that a server has to accept them


@dataclass(frozen=True)
class OpenReading:
    """An open loop's result.

    Args:
        offered: arrivals a second, as planned.
        goodput: good replies a second that came before the deadline.
        p50_ms, p99_ms: of the good replies, from the intended send time; 0 where there was none.
        answered: how many good replies there were: what p99 rests on.
        statuses: other replies by status; `broken` for connections lost, `unanswered` for none by the deadline.
        retry_after_s: replies with 429 or 503 by the seconds of their Retry-After.
        late_ms: how late the client itself sent, 99th percentile: over a few ms, it was the limit.
        waited: requests that found all connections waiting for replies, and left late for that reason.
    """

    offered: float
    goodput: float
    p50_ms: float
    p99_ms: float
    answered: int
    statuses: dict[str, int]
    retry_after_s: dict[str, int]
    late_ms: float
    waited: int


def open_loop(
    port: int,
    requests: Sequence[Request],
    rate: float,
    seconds: float,
    *,
    deadline_s: float,
    connections: int = 4096,
) -> OpenReading:
    """Arrivals at `rate` a second for some seconds, from a process of its own on the load's core."""
    with TemporaryDirectory() as folder:
        paths = []
        for place, request in enumerate(requests):
            paths.append(str(Path(folder, str(place))))
            Path(paths[-1]).write_bytes(request.message())
        job = {"port": port, "messages": paths, "rate": rate, "seconds": seconds}
        job |= {"deadline_s": deadline_s, "connections": connections}
        command = ["taskset", "-c", str(LOAD_CORE), sys.executable, __file__]
        printed = subprocess.run(
            command, input=json.dumps(job), check=True, capture_output=True, text=True
        ).stdout
    return OpenReading(**json.loads(printed))


@dataclass(eq=False, slots=True)
class _Connection:
    socket: socket.socket
    busy: bool = False
    due: float = 0.0
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    received: bytearray = field(default_factory=bytearray)
    missing: int = -1  # bytes of the reply that are still to come; -1 before its head is whole
    chunked: bool = False


class _Loop:
    """The connections and what came back.

    Args:
        port: of the server.
        messages: whole requests, sent in turn.
        most: the largest number of connections.
    """

    def __init__(self, port: int, messages: list[bytes], most: int) -> None:
        self._address = ("127.0.0.1", port)
        self._messages = messages
        self._most = most
        self._poller = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._free: list[_Connection] = []
        self._busy = 0
        self.good: list[float] = []
        self.late: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.retry_after_s: Counter[str] = Counter()
        self.waited = 0
        self._sent = 0
        self._all_out = False

    def connect(self, count: int) -> None:
        """Opens connections before anything is timed: a server's clients are there already when too much comes.

        A few at a time, so that a backlog does not overflow: its clients would try again after a second.
        """
        for _ in range(count):
            connection = _Connection(socket.create_connection(self._address))
            connection.socket.setblocking(False)
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[connection.socket.fileno()] = connection
            self._poller.register(connection.socket.fileno(), select.EPOLLIN)
            self._free.append(connection)
            if len(self._free) % _AT_ONCE == 0:
                time.sleep(_PAUSE_S)

    def run(self, arrivals: list[float], deadline_s: float) -> None:
        """Sends at the given seconds from now on, then waits for what is still out until its deadline."""
        begun = time.perf_counter()
        due = deque(begun + arrival for arrival in arrivals)
        last = due[-1] + deadline_s
        while due or self._busy:
            now = time.perf_counter()
            if now > last:
                break
            while due and due[0] <= now and (self._free or len(self._connections) < self._most):
                self._send(due.popleft())
            self._all_out = bool(due) and due[0] <= now
            near = bool(due) and due[0] - now < _NEAR_S
            for handle, event in self._poller.poll(0 if near else 0.001, 256):
                self._advance(self._connections[handle], event)
        self.statuses["unanswered"] += self._busy + len(due)

    def _send(self, due: float) -> None:
        message = self._messages[self._sent % len(self._messages)]
        self._sent += 1
        self._busy += 1
        if self._all_out:
            self.waited += 1
        else:
            self.late.append(time.perf_counter() - due)
        if not self._free:
            self._connect(due, message)
            return
        connection = self._free.pop()
        connection.due, connection.busy = due, True
        try:
            sent = connection.socket.send(message)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._break(connection)
            return
        if sent < len(message):
            connection.unsent = memoryview(message)[sent:]
            self._poller.modify(connection.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _connect(self, due: float, message: bytes) -> None:
        """Begins a connection; the message leaves when it stands, so that a full backlog delays nobody else."""
        connection = _Connection(socket.socket(), busy=True, due=due, unsent=memoryview(message))
        connection.socket.setblocking(False)
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.socket.connect_ex(self._address)
        self._connections[connection.socket.fileno()] = connection
        self._poller.register(connection.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _advance(self, connection: _Connection, event: int) -> None:
        try:
            if event & select.EPOLLOUT and not event & select.EPOLLERR:
                self._send_rest(connection)
            if event & ~select.EPOLLOUT:
                data = connection.socket.recv(_BUFFER)
                if not data:
                    raise ConnectionResetError
                self._receive(connection, data)
        except BlockingIOError:
            return
        except OSError:
            self._break(connection)

    def _send_rest(self, connection: _Connection) -> None:
        connection.unsent = connection.unsent[connection.socket.send(connection.unsent) :]
        if not connection.unsent:
            self._poller.modify(connection.socket.fileno(), select.EPOLLIN)

    def _receive(self, connection: _Connection, data: bytes) -> None:
        received = connection.received
        received += data
        if connection.missing < 0 and not connection.chunked:
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(received, 0, end)
            connection.chunked = length is None
            connection.missing = end + 4 + int(length.group(1)) if length else -1
        if received.endswith(_LAST_CHUNK) if connection.chunked else len(received) >= connection.missing:
            self._finish(connection)

    def _finish(self, connection: _Connection) -> None:
        received = connection.received
        status = bytes(received[9:12])
        if status[:1] == b"2":
            self.good.append(time.perf_counter() - connection.due)
        else:
            self.statuses[status.decode(errors="replace")] += 1
            retry = _RETRY.search(received) if status in (b"429", b"503") else None
            if retry:
                self.retry_after_s[retry.group(1).decode()] += 1
        connection.busy = False
        self._busy -= 1
        # A reply that came before the request was out: what is left of it would be taken for the next one.
        closes = bool(connection.unsent) or b"\r\nconnection: close" in received[:1024].lower()
        connection.received, connection.missing, connection.chunked = bytearray(), -1, False
        if closes:
            self._close(connection)
        else:
            self._free.append(connection)

    def _break(self, connection: _Connection) -> None:
        if connection.busy:
            self.statuses["broken"] += 1
            self._busy -= 1
        else:  # the server closed an idle connection, as it may
            self._free.remove(connection)
        self._close(connection)

    def _close(self, connection: _Connection) -> None:
        del self._connections[connection.socket.fileno()]
        self._poller.unregister(connection.socket.fileno())
        connection.socket.close()


def main() -> None:
    job = json.load(sys.stdin)
    os.sched_setaffinity(0, {LOAD_CORE})
    messages = [Path(path).read_bytes() for path in job["messages"]]
    generator = np.random.default_rng()
    gaps = generator.exponential(1 / job["rate"], max(1, round(job["rate"] * job["seconds"])))
    loop = _Loop(job["port"], messages, job["connections"])
    loop.connect(min(job["connections"], round(job["rate"] * job["deadline_s"])))
    loop.run(np.cumsum(gaps).tolist(), job["deadline_s"])
    good = np.array(loop.good)
    within = int((good <= job["deadline_s"]).sum())
    p50, p99 = np.percentile(good, [50, 99]) * 1e3 if len(good) else (0.0, 0.0)
    reading = OpenReading(
        offered=len(gaps) / gaps.sum(),
        goodput=within / gaps.sum(),
        p50_ms=float(p50),
        p99_ms=float(p99),
        answered=len(good),
        statuses={status: count for status, count in loop.statuses.items() if count},
        retry_after_s=dict(loop.retry_after_s),
        late_ms=float(np.percentile(loop.late, 99) * 1e3) if loop.late else 0.0,
        waited=loop.waited,
    )
    print(json.dumps(asdict(reading)))


if __name__ == "__main__":
    main()
