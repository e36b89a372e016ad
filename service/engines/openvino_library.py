"""Owns the door to the OpenVINO library: whether it is installed, and its import without its telemetry.

`import openvino` starts a thread that reports the import, each conversion and a stable client id to Google
Analytics unless the user has opted out; a service may not do that, and waiting for a network that is not there
makes the first conversion seconds slower. OpenVINO falls back to a stub where `openvino_telemetry` cannot be
imported, so it is made unimportable first.

Source: openvino/tools/ovc/telemetry_utils.py and openvino_telemetry/main.py (`enable_opt_in_dialog=False` sends
without asking) of OpenVINO 2026.4.1.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from typing import Any


def is_installed() -> bool:
    """Whether OpenVINO can be imported; it is not imported for the answer."""
    return importlib.util.find_spec("openvino") is not None


def library() -> Any:
    """The module `openvino`, imported when first asked for (0.2 s).

    Raises:
        ImportError: it is not installed, or not for this machine.
    """
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: not importable
    return importlib.import_module("openvino")


@cache
def core() -> Any:
    """The process's one `openvino.Core`.

    Raises:
        ImportError: as `library`.
    """
    return library().Core()


def precisions() -> frozenset[str]:
    """In which precisions OpenVINO computes on this processor: `float32`, and `bfloat16` where there are instructions.

    Asked of OpenVINO itself; where it is not installed, `float32` alone.
    """
    if not is_installed():
        return frozenset({"float32"})
    abilities = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return frozenset({"float32", *(["bfloat16"] if "BF16" in abilities else [])})
