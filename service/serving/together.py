"""Owns what the workers of one service do together: what is asked of one of them holds for all.

A model that is loaded or unloaded on request is so in every worker before the answer is given, first in the one that was
asked: what fails there changes nothing elsewhere. One such request is answered at a time. What was unloaded stays so in
workers that take others' places. Metrics are those of all workers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from service.board import Slot, Stage
from service.errors import ModelLoadFailed
from service.peers import PeerError, Peers
from service.serving.served import ModelStatus
from service.worker_metrics import merged

_log = logging.getLogger("layertap.service")

_SCRAPE_WITHIN_S = 1.0
_WITH_MODELS = (Stage.LOADING, Stage.READY, Stage.USELESS)
_WITH_METRICS = (*_WITH_MODELS, Stage.LEAVING)


class Together:
    """This worker among the others.

    Args:
        slot: its own.
        load: loads a model here.
        unload: unloads one here.
        metrics: this worker's own, as OpenMetrics or not.
        within_s: how long a change may take in each of the others.
    """

    def __init__(
        self,
        slot: Slot,
        load: Callable[[str], object],
        unload: Callable[[str], object],
        metrics: Callable[[bool], str],
        within_s: float,
    ) -> None:
        self._slot = slot
        self._metrics = metrics
        self._within_s = within_s
        self._peers = Peers(
            slot,
            {
                "load": lambda question: _done(load(question["name"])),
                "unload": lambda question: _done(unload(question["name"])),
                "metrics": lambda question: metrics(question["openmetrics"]),
            },
        )

    def start(self) -> None:
        """Answers the others from now on."""
        try:
            self._peers.start()
        except OSError as error:
            _log.error(
                "other workers cannot reach this one, so what is asked of them does not hold here: %s", error
            )

    def unloaded(self) -> Sequence[str]:
        """Models that were unloaded on request."""
        return self._slot.board.unloaded()

    def change(self, change: str, name: str, here: Callable[[], ModelStatus]) -> ModelStatus:
        """Changes a model in every worker.

        Args:
            change: `load` or `unload`.
            name: the model.
            here: does it in this one.

        Raises:
            ModelLoadFailed: another worker could not do it.
            LayertapError: what `here` raises; nothing was changed.
        """
        board = self._slot.board
        with board.turn():
            status = here()
            board.set_unloaded(name, unloaded=change == "unload")
            try:
                self._peers.ask({"ask": change, "name": name}, _WITH_MODELS, self._within_s)
            except PeerError as error:
                raise ModelLoadFailed(f"Model '{name}': not every worker could do that: {error}") from error
        return status

    def gather(self, own: str, openmetrics: bool) -> str:
        """The metrics of all workers; those that do not answer in time are left out."""
        question: Mapping[str, Any] = {"ask": "metrics", "openmetrics": openmetrics}
        others = self._peers.ask(question, _WITH_METRICS, _SCRAPE_WITHIN_S)
        return merged(dict(sorted({self._slot.number: own, **others}.items())))


def _done(_: object) -> None:
    """What others need not know."""
