"""Owns the record that a repair keeps while it goes through a config: what it knows, what it changed.

An *entry* is a serialised object as it stands in a config, `{"class_name": ..., "config": {...}}`. Repairs change
copies of entries in place and say so here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from service.errors import LoadError
from service.loading.legacy.origin import Origin

Entry: TypeAlias = dict[str, Any]

_SHOWN = 3
_COUNTS_ROWS = {"TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"}  # operators may name the batch size


@dataclass(slots=True)
class Record:
    """What is known of one config, and what was changed in it.

    Args:
        origin: what the file says of its writer.
        custom: the names that custom objects define.
        makes_masks: whether any layer of the config makes a mask, so that masks may reach any other.
        frees_batch: whether a fixed number of rows may be forgotten.
    """

    origin: Origin
    custom: Collection[str] = ()
    makes_masks: bool = False
    frees_batch: bool = True
    changes: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def look_at(self, entries: Iterable[Entry]) -> None:
        """Learns what a repair of one layer must know of the others."""
        for entry in entries:
            config = entry["config"] if isinstance(entry["config"], dict) else {}
            self.makes_masks |= entry["class_name"] == "Masking" or config.get("mask_zero") is True
            self.frees_batch &= not (config.get("stateful") or entry["class_name"] in _COUNTS_ROWS)

    def changed(self, word: str, sentence: str, layer: str) -> None:
        """Notes a change; the same change to several layers becomes one sentence."""
        layers = self.changes.setdefault((word, sentence), [])
        if layer and layer not in layers:
            layers.append(layer)

    def sentences(self) -> tuple[str, ...]:
        """`word: sentence (layers)`, one for each kind of change, in the order of first use."""
        found = []
        for (word, sentence), layers in self.changes.items():
            listed = ", ".join(layers[:_SHOWN])
            if len(layers) > _SHOWN:
                listed += f" and {len(layers) - _SHOWN} more"
            found.append(f"{word}: {sentence}" + (f" ({listed})." if layers else "."))
        return tuple(found)

    def is_custom(self, entry: Entry) -> bool:
        """Whether the entry is of a class that custom objects define."""
        names = (entry.get("class_name"), entry.get("registered_name"))
        return any(
            isinstance(name, str) and (name in self.custom or name.rpartition(">")[2] in self.custom)
            for name in names
        )


def layer_name(entry: Entry) -> str:
    """The layer's name, or an empty string."""
    config = entry.get("config")
    inner = config.get("name") if isinstance(config, dict) else None
    return str(entry.get("name") or inner or "")


def unrepairable(entry: Entry, what: str, mend: str) -> LoadError:
    """The refusal of what Keras 3 would silently compute differently."""
    return LoadError(
        f"Expected what Keras 3 can compute as it was trained. Received: {entry.get('class_name')} "
        f"'{layer_name(entry)}' with {what}.",
        mend=mend,
    )
