"""Owns what one model takes from a request of any format: its inputs, its pictures, and the bounds on both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from service.api.endpoint import Limits
from service.api.weight import refuse_on_loop
from service.errors import BodyTooLarge, InvalidInput, InvalidJson, UndecodableImage, UnsupportedMedia
from service.images import ImageInput, prepare
from service.memory import pay
from service.serving.served import ServedModel
from service.tensors import Array, TensorSpec

_COPIES = 2  # of a row: by itself, and in the array of all rows


@dataclass(frozen=True, slots=True)
class Intake:
    """What a model takes.

    Args:
        model: its name, for messages.
        inputs: what it takes.
        images: input name -> how a picture becomes that input.
        max_input_bytes: how much the decoded arrays of one request may hold.
        max_image_pixels: the largest picture.
    """

    model: str
    inputs: tuple[TensorSpec, ...]
    images: Mapping[str, ImageInput]
    max_input_bytes: int
    max_image_pixels: int

    @classmethod
    def of(cls, served: ServedModel, limits: Limits) -> Intake:
        """What a served model takes."""
        return cls(
            served.name, served.spec.inputs, served.images, limits.max_input_bytes, limits.max_image_pixels
        )

    def only(self) -> TensorSpec:
        """The only input.

        Raises:
            InvalidInput: there are several, so values need names.
        """
        if len(self.inputs) == 1:
            return self.inputs[0]
        raise InvalidInput(
            f"Expected values keyed by the inputs {[spec.name for spec in self.inputs]} of model '{self.model}'. "
            "Received: values without names."
        )

    def picture(self, data: bytes, name: str) -> Array:
        """One row of an input, from the bytes of a picture.

        Raises:
            UnsupportedMedia: the input takes no pictures.
            UndecodableImage: the bytes are none, or one that is too large.
            HeavyAfterAll: an event loop's thread is no place for it.
        """
        target = self.images.get(name)
        if target is None:
            raise UnsupportedMedia(
                f"Expected numbers for input '{name}' of model '{self.model}', which takes no pictures. "
                "Received: an image."
            )
        refuse_on_loop()
        row = prepare(data, target, max_pixels=self.max_image_pixels)
        pay(_COPIES * row.nbytes, f"a picture for input '{name}'")
        return row

    def check_size(self, arrays: Mapping[str, Array], what: str) -> None:
        """Raises BodyTooLarge where the arrays together hold more than one request may."""
        size = 0
        for array in arrays.values():
            size += array.nbytes
        if size > self.max_input_bytes:
            Budget(self.max_input_bytes).spend(size, what)


class Budget:
    """What the decoded arrays of one request may still hold: small files can hold large pictures.

    Args:
        max_bytes: how much that is at first.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._left = max_bytes

    def spend(self, size: int, what: str) -> None:
        """Takes `size` bytes off.

        Raises:
            BodyTooLarge: that many are not left; the message names `what` needed them.
        """
        self._left -= size
        if self._left < 0:
            raise BodyTooLarge(
                f"Expected inputs of at most {self._max_bytes} bytes once decoded (max_input_bytes). "
                f"Received: more, at {what}.",
                limit_bytes=self._max_bytes,
            )


@contextmanager
def located(what: str, **place: Any) -> Iterator[None]:
    """Errors say which picture or part it was, in their message and as members."""
    try:
        yield
    except (UndecodableImage, InvalidInput, InvalidJson) as error:
        message = error.message if what in error.message else f"{what}: {error.message}"
        raise type(error)(message, **place) from error


def kind(value: Any) -> str:
    """What a JSON value is, in the words of messages."""
    if isinstance(value, dict):
        return f"an object with {[str(key)[:80] for key in value][:8]}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "null" if value is None else f"a {type(value).__name__}"
