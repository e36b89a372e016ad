"""The tests' own end of a connection: no byte of a reply is lost, however what was sent is cut."""

import socket

import pytest
from wire import ANSWER_WITHIN_S, Wire

FIRST = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Number: 1\r\n\r\nfirst"
CHUNKED = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nsec\r\n3\r\nond\r\n0\r\n\r\n"
HEADS = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000


class Cut(socket.socket):
    """A socket that gives no more than so many bytes at a time."""

    most = 2**20

    def recv_into(self, buffer, nbytes=0, flags=0):
        return super().recv_into(memoryview(buffer)[: self.most], nbytes, flags)


@pytest.fixture
def ends():
    """The server's end, and the client's as a wire."""
    server, client = socket.socketpair()
    client.settimeout(ANSWER_WITHIN_S)
    cut = Cut(fileno=client.detach())
    cut.settimeout(ANSWER_WITHIN_S)
    with server, Wire(cut) as wire:
        yield server, wire, cut


def assert_all_come(wire, *, methods=("POST", "POST", "HEAD", "POST")):
    first, second, third, fourth = (wire.answer(method) for method in methods)
    assert (first.status, first.headers["x-number"], first.body) == (200, "1", b"first")
    assert (second.status, second.body) == (404, b"second")
    assert (third.status, third.body) == (200, b"")
    assert (fourth.status, fourth.body) == (204, b"")


def test_replies_that_come_in_one_piece_are_all_there(ends):
    server, wire, _ = ends
    server.sendall(FIRST + CHUNKED + HEADS + EMPTY)
    assert_all_come(wire)


@pytest.mark.parametrize("most", [1, 2, 7, 50])
def test_replies_that_come_in_small_pieces_are_whole(ends, most):
    server, wire, cut = ends
    cut.most = most
    server.sendall(FIRST + CHUNKED + HEADS + EMPTY)
    assert_all_come(wire)


def test_a_reply_that_is_longer_than_the_buffer_takes_nothing_of_the_next(ends):
    server, wire, _ = ends
    server.sendall(LONG + FIRST)
    assert (len(wire.answer().body), wire.answer().body) == (100_000, b"first")


def test_the_end_is_the_end_of_what_came_and_not_only_of_what_is_on_its_way(ends):
    server, wire, _ = ends
    server.sendall(FIRST + b"!")
    server.close()
    assert wire.answer().body == b"first"
    assert not wire.ended()
    assert wire.ended()


def test_a_request_leaves_as_it_is(ends):
    server, wire, _ = ends
    wire.send(b"POST / HTTP/1.1\r\n\r\n")
    assert server.recv(100) == b"POST / HTTP/1.1\r\n\r\n"
