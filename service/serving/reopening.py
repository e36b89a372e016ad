"""Owns models that an earlier start has worked out: found by what they were made from, proved again, never trusted.

What is found is compared with what TensorFlow gave, function by function, as if it had just been converted.
Whatever is wrong with it, it is removed, the log says so, and the model is loaded from its file.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from service.cache.keys import Key, against_keeping, model_key
from service.cache.vault import Vault
from service.engines import Engine
from service.engines.choice import EngineOptions, against, against_precision
from service.engines.kept import KeptModel, keep, pack, unpack
from service.engines.late import LateEngine
from service.engines.openvino import OpenVINOOptions
from service.engines.openvino_engine import OpenVINOEngine
from service.engines.references import refer_to_kept
from service.errors import LayertapError
from service.repository import ModelEntry, ModelVersion
from service.serving.served import OpenedModel

_log = logging.getLogger("layertap.cache")

_OF_THIS_PROCESS = ("functions", "weight_copies")


class ModelCache:
    """The kept models of this machine.

    Args:
        vault: where they lie; `None` keeps and finds none.
    """

    def __init__(self, vault: Vault | None) -> None:
        self._vault = vault

    def key(self, entry: ModelEntry, version: ModelVersion, options: EngineOptions) -> Key | None:
        """What a version is kept under; `None` where it cannot be kept.

        Args:
            entry: the model.
            version: its file.
            options: the engine that is wanted for it.
        """
        if self._vault is None or against(options) is not None:
            return None
        if (reason := against_keeping(entry)) is not None:
            _log.info("model '%s' version %d is not kept: %s", entry.name, version.number, reason)
            return None
        settings = {
            "precision": options.precision,
            "precision_reason": against_precision(options),
            "threads": options.threads,
            "max_batch_size": options.max_batch_size,
        }
        try:
            return model_key(entry, version, settings)
        except OSError:  # loading it will say what is wrong
            return None

    def find(
        self, key: Key | None, options: EngineOptions, open_engine: Callable[[str], Engine]
    ) -> OpenedModel | None:
        """A kept model, ready to be warmed, or `None`.

        Args:
            key: from `key`.
            options: as for `key`.
            open_engine: loads the model with TensorFlow, for what OpenVINO does not compute; gets the SHA-256 that
                its file must have.
        """
        if self._vault is None or key is None:
            return None
        begun = time.monotonic()
        parts = self._vault.read(key.name)
        if parts is None:
            return None
        try:
            kept = unpack(parts)
            engine, copies = _engine(kept, options, open_engine)
            read = time.monotonic()
            engine.require(kept.spec.predictions)
        except (ValueError, KeyError, TypeError, RuntimeError, LayertapError) as error:
            self._vault.discard(key.name, f"{type(error).__name__}: {error}")
            return None
        facts = {
            **kept.facts,
            "opened_from": "cache",
            "functions": engine.functions,
            "weight_copies": copies,
        }
        return OpenedModel(engine, facts, {"read": read - begun, "prove": time.monotonic() - read})

    def keep(self, key: Key, opened: OpenedModel, key_now: Callable[[], Key | None]) -> None:
        """Keeps a model whose warm functions are compiled, if OpenVINO computes all of them; never raises.

        Args:
            key: as it was before the model was loaded.
            opened: the model.
            key_now: makes the key again, to tell whether the files have changed meanwhile.
        """
        try:
            self._keep(key, opened, key_now)
        except Exception:  # noqa: BLE001 a model that serves must not fail for what the next start would have
            _log.exception("not kept for the next start")

    def _keep(self, key: Key, opened: OpenedModel, key_now: Callable[[], Key | None]) -> None:
        engine = opened.engine
        if self._vault is None or not isinstance(engine, OpenVINOEngine) or not engine.alone:
            return
        if not self._vault.is_writable():  # before anything is worked out for it
            return
        facts = {name: value for name, value in opened.facts.items() if name not in _OF_THIS_PROCESS}
        parts = pack(keep(engine, facts))
        if key_now() == key and facts.get("sha256") == key.sha256:
            self._vault.write(key.name, parts)


def _engine(
    kept: KeptModel, options: EngineOptions, open_engine: Callable[[str], Engine]
) -> tuple[OpenVINOEngine, Mapping[str, int]]:
    copies = {"keras": 0, "openvino_graph": 1}
    late = LateEngine(
        kept.spec, lambda: open_engine(kept.facts["sha256"]), opened=lambda: copies.update(keras=1)
    )
    engine = OpenVINOEngine(
        kept.converted,
        late,
        kept.rows,
        OpenVINOOptions(options.threads, kept.facts["precision"]),
        max_batch_size=options.max_batch_size,
        refer=refer_to_kept(kept.expectations, late),
        sizes=kept.sizes,
        on_fallback=options.on_fallback,
    )
    return engine, copies
