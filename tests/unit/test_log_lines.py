import io
import logging
import os

import pytest

from service import log_lines
from service.log_lines import LineWriter, PatientHandler


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb", buffering=0) as writer:
        yield reader, writer


def test_lines_are_written_in_their_order(pipe):
    reader, writing = pipe
    writer = LineWriter(writing.fileno(), 10_000)
    lines = [b"%d\n" % number for number in range(100)]
    assert all(map(writer.put, lines))
    writer.flush()
    assert [reader.readline() for _ in lines] == lines


def test_a_full_pipe_holds_up_neither_writers_nor_the_end(pipe):
    reader, writing = pipe
    writer = LineWriter(writing.fileno(), 10_000)
    line = b"x" * 999 + b"\n"
    taken = 0
    while writer.put(line):
        writer.flush(0.05)  # comes back, whether that was enough or not
        taken += 1
    assert taken > 10
    for _ in range(taken):  # or its thread would go on with a file that another test opens under this number
        assert reader.readline() == line
    writer.flush()


def test_a_line_that_is_longer_than_all_that_may_wait_is_written(pipe):
    reader, writing = pipe
    writer = LineWriter(writing.fileno(), 10)
    assert writer.put(b"x" * 100 + b"\n")
    assert reader.readline() == b"x" * 100 + b"\n"


def test_a_writer_that_was_closed_has_no_thread_until_it_is_used_again(pipe):
    reader, writing = pipe
    writer = LineWriter(writing.fileno(), 1000)
    for line in (b"first\n", b"second\n"):
        assert writer.put(line)
        thread = writer._thread
        writer.close()
        thread.join(30)
        assert not thread.is_alive()
        assert reader.readline() == line


def test_a_closed_pipe_is_nobodys_failure(pipe):
    reader, writing = pipe
    writer = LineWriter(writing.fileno(), 1000)
    reader.close()
    for _ in range(10):
        assert writer.put(b"x\n")
        writer.flush()


def test_a_file_that_does_not_block_gets_every_line(pipe):
    reader, writing = pipe
    os.set_blocking(writing.fileno(), False)
    writer = LineWriter(writing.fileno(), 10**6)
    assert all(writer.put(b"x" * 99 + b"\n") for _ in range(3000))
    assert [len(reader.readline()) for _ in range(3000)] == [100] * 3000


def test_what_was_dropped_is_counted_and_told(pipe, monkeypatch):
    reader, writing = pipe
    counted = []
    monkeypatch.setattr(log_lines._Open, "dropped", lambda: counted.append(1))
    handler = PatientHandler(io.TextIOWrapper(io.FileIO(writing.fileno(), "w", closefd=False)), 10_000)
    handler.setFormatter(logging.Formatter("%(message)s"))
    taken = 0
    while len(counted) < 3:
        handler.emit(logging.LogRecord("x", logging.INFO, "x.py", 1, "x" * 999, (), None))
        taken += 1 - bool(counted)
        handler._writer.flush(0.05)
    for _ in range(taken):
        assert len(reader.readline()) == 1000
    handler.flush()
    handler.emit(logging.LogRecord("x", logging.INFO, "x.py", 1, "\udcff again", (), None))
    assert reader.readline().startswith(b"3 log lines were dropped")
    assert reader.readline() == b"\\udcff again\n"


def test_a_forked_process_writes_its_own_lines_only(pipe):
    reader, writing = pipe
    handler = PatientHandler(io.TextIOWrapper(io.FileIO(writing.fileno(), "w", closefd=False)), 10**6)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for number in range(3):
        handler.emit(logging.LogRecord("x", logging.INFO, "x.py", 1, f"parent {number}", (), None))
    child = os.fork()
    if child == 0:
        handler.emit(logging.LogRecord("x", logging.INFO, "x.py", 1, "child", (), None))
        handler.flush()
        os._exit(0)
    os.waitpid(child, 0)
    handler.flush()
    assert sorted(reader.readline() for _ in range(4)) == [
        b"child\n", b"parent 0\n", b"parent 1\n", b"parent 2\n",
    ]  # fmt: skip
