"""Owns what the doctor says of one file: plain values, the verdict, and their form as JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from service.loading.lambdas import CodeSummary

SCHEMA = 1
"""Of the JSON; it grows when a member changes its meaning or goes, not when one is added."""

Shape = tuple[int | None, ...]


class Verdict(IntEnum):
    """What becomes of a file that is put into the models folder; the number is the exit status."""

    GOOD = 0
    REPAIRABLE = 1
    NEEDS = 2
    REFUSED = 3


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer: its path, class, weights (`None` where the file does not tell them apart) and output shape."""

    path: str
    class_name: str
    parameters: int | None
    shape: Shape | None


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One input or output: the layer's name and its shape, batch axis first; `None` where it is not known."""

    name: str
    shape: Shape | None


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """A class or function that the file needs.

    Args:
        name: what it is called there.
        layer: the layer that needs it, or `None`.
        found_in: the file that defines it, or `None`.
    """

    name: str
    layer: str | None
    found_in: str | None


@dataclass(frozen=True, slots=True)
class CodeRow:
    """Python code in the file.

    Args:
        layer: the layer, or where the code stands.
        replaced_by: the file that defines a function under the layer's name, which is used instead.
        code: what it holds; `None` where it is not bytecode of Python.
    """

    layer: str
    replaced_by: str | None
    code: CodeSummary | None


@dataclass(slots=True)
class Report:
    """What the doctor found.

    Args:
        file: the path as given.
        size_bytes: of the file.
        sha256: of its bytes, in hexadecimal.
        kind: `model`, `legacy weights`, `Keras 3 weights`, `.keras archive` or `unreadable`.
        keras_version: of the Keras that wrote it; `None` where the file does not say.
        backend: what that Keras computed with; `None` where the file does not say.
        layers: nested ones by path, in the file's order.
        inputs: of the whole model.
        outputs: of the whole model.
        parameters: numbers in the model's weights.
        optimizer_bytes: the optimiser's state, which serving does not need.
        custom_objects: what the file needs beyond Keras and what the service brings.
        code: Python code stored in the file.
        repairs: what the service changes in the config as it loads it.
        needs: what the operator has to do first, one sentence each.
        trouble: why the file is refused.
        mend: what would help.
        verdict: what becomes of the file.
    """

    file: str
    size_bytes: int = 0
    sha256: str = ""
    kind: str = "unreadable"
    keras_version: str | None = None
    backend: str | None = None
    layers: tuple[LayerRow, ...] = ()
    inputs: tuple[TensorRow, ...] = ()
    outputs: tuple[TensorRow, ...] = ()
    parameters: int = 0
    optimizer_bytes: int = 0
    custom_objects: tuple[ObjectRow, ...] = ()
    code: tuple[CodeRow, ...] = ()
    repairs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    trouble: str | None = None
    mend: str | None = None
    verdict: Verdict = Verdict.REFUSED

    def decide(self) -> None:
        """Draws the verdict from what was found."""
        if self.trouble is not None:
            self.verdict = Verdict.REFUSED
        elif self.needs:
            self.verdict = Verdict.NEEDS
        else:
            self.verdict = Verdict.REPAIRABLE if self.repairs else Verdict.GOOD

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        if self.verdict is Verdict.GOOD:
            return "good: it is served as it is."
        if self.verdict is Verdict.REPAIRABLE:
            count = len(self.repairs)
            return (
                f"repairable: it is served after {count} repair{'s' if count != 1 else ''}, made as it loads."
            )
        if self.verdict is Verdict.NEEDS:
            return f"needs something: {self.needs[0]}" + (" ..." if len(self.needs) > 1 else "")
        return f"refused: {self.trouble}"

    def as_json(self) -> dict[str, Any]:
        """The members above, with `schema`, the verdict as a word and its exit `status`."""
        members = dataclasses.asdict(self)
        verdict = {
            "verdict": self.verdict.name.lower(),
            "status": int(self.verdict),
            "sentence": self.sentence,
        }
        return {"schema": SCHEMA, **members, **verdict}
