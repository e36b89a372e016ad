"""Owns the door to the OpenVINO library: whether it is installed, its import without its telemetry, its processor.

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

import numpy as np


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
def capabilities() -> frozenset[str]:
    """What OpenVINO can use of this processor: `FP32`, `INT8`, `BF16`, ...

    `BF16` is tried out: where ONEDNN_MAX_CPU_ISA holds a processor back OpenVINO still names it, and then fails, or
    gives numbers that nothing has computed.

    Raises:
        ImportError: as `library`.
    """
    named = frozenset(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return named - {"BF16"} if "BF16" in named and not _multiplies_in_bfloat16() else named


def _multiplies_in_bfloat16() -> bool:
    opset = importlib.import_module("openvino.opset13")
    rows = opset.parameter([2, 64], np.float32)
    product = opset.matmul(rows, opset.constant(np.ones((64, 64), np.float32)), False, False)
    graph = library().Model([opset.result(product)], [rows])
    properties = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 1}
    try:
        compiled = core().compile_model(graph, "CPU", properties)
        got = compiled(np.ones((2, 64), np.float32))[0]
    except RuntimeError:
        return False
    in_force = compiled.get_property("INFERENCE_PRECISION_HINT")
    return bool(in_force == library().Type.bf16 and np.all(got == 64))
