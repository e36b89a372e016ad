"""Owns the engine contract: what compiles a model's functions and runs them. One module per engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from service.tensors import Activations, Array, ModelSpec


class Function(Protocol):
    """One compiled function: the model's inputs in, a fixed set of its tensors out."""

    def run(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """One forward pass.

        Args:
            batch: input name -> (N, *row shape) in the spec's dtype, C order, 1 <= N <= max_batch_size.

        Returns:
            layer path -> (N, *row shape). Padding rows are removed. The arrays may be views.

        Raises:
            InputRejected: the model refused the values.
            Exception: anything else the engine raised.
        """
        ...


class Engine(Protocol):
    """A loaded model that can be compiled for any set of its tensors."""

    @property
    def name(self) -> str:
        """`tensorflow`, ..."""
        ...

    @property
    def spec(self) -> ModelSpec:
        """What the model takes and gives."""
        ...

    @property
    def activations(self) -> Activations | None:
        """What a row takes in memory while it is computed; `None` where every row is as large as the others."""
        ...

    def compile(self, outputs: tuple[str, ...]) -> Function:
        """A warm function that returns these layer paths; slow; safe to call beside `run`.

        Raises:
            LoadError: these tensors cannot be computed together.
        """
        ...
