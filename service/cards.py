"""Owns what is known of the machine's GPUs: the cards that TensorFlow sees, and how much memory each has.

It asks; it changes nothing. No GPU has run it yet: card names and NVML totals come from the libraries'
documented answers.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 2**20
_DEVICE_FILES = ("nvidia*", "kfd", "dxg")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card that TensorFlow sees.

    Args:
        index: TensorFlow's, the N of `/physical_device:GPU:N`.
        name: the product's name, as CUDA tells it.
        total_bytes: the card's memory; `None` where it cannot be told.
        total_missing: why it cannot be told.
    """

    index: int
    name: str
    total_bytes: int | None = None
    total_missing: str = ""


def list_gpus(config: Any) -> tuple[Gpu, ...]:
    """The cards that TensorFlow sees, in its order, with their total memory where NVML tells it.

    `config` is the module `tf.config`. TensorFlow tells a card's name but no PCI address, and CUDA need not
    list cards in NVML's order, so a card is found in NVML by its name. Where cards of one name differ in
    memory, the smallest total counts, so that no share is ever too large. A part of a card (MIG) has a name
    of its own that no whole card has, and hence no total here.
    """
    devices = config.list_physical_devices("GPU")
    if not devices:
        return ()
    totals, failure = _nvml_totals()
    gpus = []
    for index, device in enumerate(devices):
        name = config.experimental.get_device_details(device).get("device_name") or device.name
        total = totals.get(name)
        missing = "" if total else failure or f"NVML lists no card of this name, only {sorted(totals)}"
        gpus.append(Gpu(index=index, name=name, total_bytes=total, total_missing=missing))
    return tuple(gpus)


def may_have_gpus(devices: Path = Path("/dev")) -> bool:
    """Whether this machine may have a card that TensorFlow sees; asks neither it nor the card's library.

    Only a Linux machine without NVIDIA's, AMD's and WSL's device files surely has none.
    """
    if sys.platform != "linux":
        return True
    return any(next(devices.glob(pattern), None) is not None for pattern in _DEVICE_FILES)


def _nvml_totals() -> tuple[dict[str, int], str]:
    import pynvml  # noqa: PLC0415 most machines have no card, and need not wait for this

    totals: dict[str, int] = {}
    failure = ""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return {}, f"NVML is not available: {error}"
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            name = pynvml.nvmlDeviceGetName(handle)
            total = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
            totals[name] = min(total, totals.get(name, total))
    except pynvml.NVMLError as error:
        failure = f"NVML failed: {error}"  # what was read before still counts
    finally:
        pynvml.nvmlShutdown()
    return totals, failure
