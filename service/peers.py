"""Owns what workers of one service ask each other: each answers on a socket of its own, in a folder of the master's.

Questions and answers are JSON. The folder is open to the service's user only, so whoever asks is one of us.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from service.board import SLOTS, Slot, Stage
from service.errors import LayertapError
from service.threads import start_thread

_log = logging.getLogger("layertap.service")

_PATIENCE_S = 10.0  # for a question, which is sent at once

Answer = Callable[[Mapping[str, Any]], Any]


class Peers:
    """The other workers.

    Args:
        slot: this worker's.
        answers: by what is asked (`"ask"` in a question), on a thread of their own; the result is what JSON can hold.
    """

    def __init__(self, slot: Slot, answers: Mapping[str, Answer]) -> None:
        self._slot = slot
        self._answers = answers

    def start(self) -> None:
        """Answers from now on."""
        path = self._place(self._slot.number)
        path.unlink(missing_ok=True)  # of a worker that had the slot before
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(path))
        listening.listen(SLOTS)
        start_thread(partial(self._go, listening), "layertap-peers")

    def ask(self, question: Mapping[str, Any], stages: Collection[Stage], within_s: float) -> dict[int, Any]:
        """What the others say, by slot; whoever says nothing in time or has just gone is left out.

        Args:
            question: what JSON can hold.
            stages: who is asked.
            within_s: how long each may take, one after the other.

        Raises:
            PeerError: one of them cannot do it; those after it were not asked.
        """
        answers = {}
        for number in range(SLOTS):
            if number != self._slot.number and self._slot.board.stage(number) in stages:
                try:
                    answers[number] = self._ask(number, question, within_s)
                except (OSError, ValueError) as error:
                    _log.warning("worker %d did not answer %s: %s", number, question.get("ask"), error)
        return answers

    def _ask(self, number: int, question: Mapping[str, Any], within_s: float) -> Any:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(within_s)
            connection.connect(str(self._place(number)))
            connection.sendall(json.dumps(question).encode() + b"\n")
            with connection.makefile("rb") as reading:
                answer = json.loads(reading.read())
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer["answer"]

    def _place(self, number: int) -> Path:
        return self._slot.board.folder / str(number)

    def _go(self, listening: socket.socket) -> None:
        while True:
            connection, _ = listening.accept()
            start_thread(partial(self._answer, connection), "layertap-peer")

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reading:
            connection.settimeout(_PATIENCE_S)
            question = json.loads(reading.readline())
            try:
                answer = {"answer": self._answers[question["ask"]](question)}
            except LayertapError as error:
                answer = {"error": error.message}
            connection.sendall(json.dumps(answer).encode())


class PeerError(Exception):
    """Another worker cannot do what it was asked for; its text says why."""
