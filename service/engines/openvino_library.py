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


@cache
def precisions() -> frozenset[str]:
    """In which precisions OpenVINO computes on this processor: `float32`, and `bfloat16` where there are instructions.

    OpenVINO's own list of abilities may name what it then has no code for, so a product of matrices is compiled, which
    takes a twentieth of a second. Where OpenVINO is not installed, the answer is `float32` alone.
    """
    return frozenset({"float32", "bfloat16"}) if _computes_bfloat16() else frozenset({"float32"})


def _computes_bfloat16() -> bool:
    if not is_installed():
        return False
    ov = library()
    rows = ov.opset15.parameter([1, 16], ov.Type.f32)
    weights = ov.opset15.constant([[1.0] * 16] * 16, ov.Type.f32)
    graph = ov.Model([ov.opset15.matmul(rows, weights, False, False)], [rows])
    try:
        compiled = core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    except RuntimeError:
        return False
    return bool(compiled.get_property("INFERENCE_PRECISION_HINT") == ov.Type.bf16)
