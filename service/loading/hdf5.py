"""Owns the safe look into HDF5 files: what kind of Keras file it is, its config, its arrays, before it is trusted.

Links, virtual and external datasets and arrays that declare far more than they store are refused; the walk is
bounded. It knows h5py and the layouts that Keras writes; it builds nothing and knows no TensorFlow.

Source: keras/src/legacy/saving/legacy_h5_format.py and keras/src/saving/saving_lib.py of Keras 3.15.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from service.errors import LoadError
from service.tensors import Array

MODEL = "model"
LEGACY_WEIGHTS = "legacy weights"
KERAS3_WEIGHTS = "Keras 3 weights"

MAX_OBJECTS = 200_000
MAX_DEPTH = 64
MAX_NAMES = 1_000_000
BOMB_FLOOR_BYTES = 2**28
"""Files whose arrays declare less than this are never called a bomb."""

BOMB_EXPANSION = 100
"""Above the floor, arrays may declare this many times what is stored (compressed zeros reach about 1000)."""

_SAVE_AGAIN = "Save the model again with model.save('model.h5') and copy the whole file."


@dataclass(frozen=True, slots=True)
class SavedArray:
    """One array of the file: its path there, its shape and its size unpacked."""

    path: str
    shape: tuple[int, ...]
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SavedLayer:
    """One layer's weights as the legacy layout lists them; `names` are Keras' own, `dense/kernel:0`."""

    name: str
    names: tuple[str, ...]
    arrays: tuple[SavedArray, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds.

    Args:
        kind: `MODEL`, `LEGACY_WEIGHTS` or `KERAS3_WEIGHTS`, told by content, never by the file's name.
        config: the JSON text of the model's config; `None` for weights alone.
        training_config: the JSON text of loss, metrics and optimiser, where saved.
        keras_version: of the Keras that wrote it; `None` where the file does not say.
        backend: what that Keras computed with; `None` where the file does not say.
        layers: the weights of the legacy layout, in its order; layers without weights are left out.
        top_level: weights of the model itself in the legacy layout.
        arrays: every array of the file.
    """

    kind: str
    config: str | None
    training_config: str | None
    keras_version: str | None
    backend: str | None
    layers: tuple[SavedLayer, ...]
    top_level: SavedLayer | None
    arrays: tuple[SavedArray, ...]

    def weights_by_layer(self) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
        """Layer name -> its weights in the legacy layout's order: Keras' own name and the shape."""
        return {
            layer.name: [(name, array.shape) for name, array in zip(layer.names, layer.arrays, strict=True)]
            for layer in self.layers
        }


def look(source: Path | IO[bytes]) -> Contents:
    """The contents of an HDF5 file, vetted.

    Raises:
        LoadError: not HDF5, truncated, damaged, or holding what Keras never writes.
    """
    with _opened(source) as file:
        arrays = _vetted_arrays(file)
        kind = _kind(file)
        group = file["model_weights"] if kind == MODEL else file
        legacy = kind != KERAS3_WEIGHTS
        return Contents(
            kind=kind,
            config=_text(file.attrs, "model_config"),
            training_config=_text(file.attrs, "training_config"),
            keras_version=_text(file.attrs, "keras_version") or _text(group.attrs, "keras_version"),
            backend=_text(file.attrs, "backend") or _text(group.attrs, "backend"),
            layers=_layers(group, arrays) if legacy else (),
            top_level=_top_level(group, arrays) if legacy else None,
            arrays=tuple(arrays.values()),
        )


def read(source: Path | IO[bytes], arrays: Sequence[SavedArray]) -> Iterator[Array]:
    """The values of these arrays, one after another, so that only one is held at a time.

    Raises:
        LoadError: the file is damaged.
    """
    with _opened(source) as file:
        for array in arrays:
            yield np.asarray(file[array.path])


@contextmanager
def _opened(source: Path | IO[bytes]) -> Iterator[Any]:
    try:
        with h5py.File(source, "r") as file:
            yield file
    except LoadError:
        raise
    except (
        Exception
    ) as error:  # h5py raises a dozen types on damaged files, RuntimeError and KeyError among them
        raise LoadError(
            f"Expected an intact HDF5 file. Received: {type(error).__name__}: {error}.", mend=_SAVE_AGAIN
        ) from error


def _kind(file: Any) -> str:
    if "model_config" in file.attrs:
        if "model_weights" not in file:
            raise LoadError("Expected a config and weights. Received: a config only.", mend=_SAVE_AGAIN)
        return MODEL
    if "layer_names" in file.attrs or "layer_names0" in file.attrs:
        return LEGACY_WEIGHTS
    if "layers" in file or "_layer_checkpoint_dependencies" in file or "vars" in file:
        return KERAS3_WEIGHTS
    held = ", ".join(sorted(map(str, list(file)[:5]))) or "nothing"
    raise LoadError(
        f"Expected a Keras model or Keras weights. Received: an HDF5 file with {held} at its root.",
        mend="Put a file here that model.save or model.save_weights wrote.",
    )


def _vetted_arrays(file: Any) -> dict[str, SavedArray]:
    found: dict[str, SavedArray] = {}
    declared = stored = count = 0
    seen = {_address(file)}
    waiting: list[tuple[Any, str, int]] = [(file, "", 0)]
    while waiting:
        group, prefix, depth = waiting.pop()
        for name in group:
            path, count = f"{prefix}{name}", count + 1
            item = _vetted_item(group, name, path)
            if isinstance(item, h5py.Dataset):
                found[path] = SavedArray(path, item.shape, math.prod(item.shape) * item.dtype.itemsize)
                declared += found[path].size_bytes
                stored += item.id.get_storage_size()
            elif _address(item) in seen or depth >= MAX_DEPTH:
                raise _refused(f"a group that holds itself, or more than {MAX_DEPTH} levels, at '{path}'")
            else:
                seen.add(_address(item))
                waiting.append((item, f"{path}/", depth + 1))
            if count > MAX_OBJECTS:
                raise _refused(f"more than {MAX_OBJECTS} objects")
            if declared > max(BOMB_FLOOR_BYTES, BOMB_EXPANSION * stored):
                raise _refused(
                    f"arrays that declare {declared} bytes with {stored} bytes stored, at '{path}'"
                )
    return found


def _vetted_item(group: Any, name: str, path: str) -> Any:
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise _refused(f"a link out of its place ({type(link).__name__}) at '{path}'")
    item = group[name]
    if isinstance(item, h5py.Group):
        return item
    if not isinstance(item, h5py.Dataset):
        raise _refused(f"a {type(item).__name__} at '{path}'")
    if item.is_virtual or item.external:
        raise _refused(f"a dataset whose values lie in other files at '{path}'")
    if item.shape is None or item.dtype.kind not in "biufcV":
        raise _refused(f"a dataset that is no array of numbers ({item.dtype}) at '{path}'")
    return item


def _refused(what: str) -> LoadError:
    return LoadError(f"Expected an HDF5 file as Keras writes it. Received: {what}.", mend=_SAVE_AGAIN)


def _address(item: Any) -> int:
    return int(h5py.h5o.get_info(item.id).addr)


def _text(attributes: Any, name: str) -> str | None:
    if name not in attributes:
        return None
    value = attributes[name]
    if isinstance(value, bytes):  # Keras writes bytes, other writers text; numpy's own bytes are bytes, too
        return value.decode("utf-8")
    if not isinstance(value, str):
        raise _refused(f"an attribute '{name}' that is no text ({type(value).__name__})")
    return value


def _names(attributes: Any, name: str) -> tuple[str, ...]:
    """A list of names; Keras splits what exceeds an attribute's 64 KiB into name0, name1, ..."""
    keys = [name] if name in attributes else []
    while name not in keys and f"{name}{len(keys)}" in attributes:
        keys.append(f"{name}{len(keys)}")
    found: list[str] = []
    for key in keys:
        if math.prod(attributes.get_id(key).shape) > MAX_NAMES:
            raise _refused(f"more than {MAX_NAMES} names in the attribute '{key}'")
        found += [item.decode("utf-8") if isinstance(item, bytes) else str(item) for item in attributes[key]]
    return tuple(found)


def _layers(group: Any, arrays: dict[str, SavedArray]) -> tuple[SavedLayer, ...]:
    layers = [_layer(group, name, arrays) for name in _names(group.attrs, "layer_names")]
    return tuple(layer for layer in layers if layer.arrays)


def _top_level(group: Any, arrays: dict[str, SavedArray]) -> SavedLayer | None:
    name = "top_level_model_weights"
    return _layer(group, name, arrays) if name in group else None


def _layer(group: Any, name: str, arrays: dict[str, SavedArray]) -> SavedLayer:
    if name not in group:
        raise _refused(f"a list of layers that names '{name}', and no weights of that name")
    prefix = f"{group.name}/{name}/".lstrip("/")
    names = _names(group[name].attrs, "weight_names")
    missing = [weight for weight in names if prefix + weight not in arrays]
    if missing:
        raise _refused(f"a layer '{name}' that lists a weight '{missing[0]}' which is not there")
    return SavedLayer(name, names, tuple(arrays[prefix + weight] for weight in names))
