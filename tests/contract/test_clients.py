"""The client that contract tests speak through: how replies are cut on the way must not matter to it."""

import socket
import threading

import pytest
from drivers import ANSWER_WITHIN_S, Client

REPLIES = [
    (200, b"one", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"),
    (404, b"two", b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"),
    (200, b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
]
WHOLE = b"".join(data for _, _, data in REPLIES)


@pytest.mark.parametrize("size", [len(WHOLE), 1, 7, len(REPLIES[0][2]) + 1])
def test_replies_are_read_however_they_are_cut(size):
    ours, theirs = socket.socketpair()
    ours.settimeout(ANSWER_WITHIN_S)
    theirs.setblocking(True)

    def serve():
        with theirs:
            for start in range(0, len(WHOLE), size):
                theirs.sendall(WHOLE[start : start + size])

    sending = threading.Thread(target=serve)
    sending.start()
    with Client(ours) as client:
        for status, body, _ in REPLIES:
            answer = client.answer()
            assert (answer.status, answer.body) == (status, body)
        assert client.is_over()
    sending.join()
