"""What is asked for and what the processor has: the precision that can be given, on whatever processor this runs."""

import os
import platform
import subprocess
import sys

import pytest

from service.engines.choice import EngineOptions, against_precision
from service.engines.openvino_library import capabilities

X86 = {"x86_64", "AMD64"}


@pytest.mark.parametrize(
    ("precision", "found", "given"),
    [
        ("float32", {"FP32", "INT8"}, True),
        ("float32", {"FP32", "BF16"}, True),
        ("bfloat16", {"FP32", "BF16"}, True),
        ("bfloat16", {"FP32", "FP16", "INT8"}, False),
        ("bfloat16", set(), False),
    ],
)
def test_bfloat16_is_given_where_the_processor_has_it(precision, found, given):
    options = EngineOptions(precision=precision, capabilities=lambda: found)
    assert (against_precision(options) is None) == given


def test_the_processor_is_not_asked_where_it_does_not_matter():
    def ask():
        raise AssertionError

    assert against_precision(EngineOptions(capabilities=ask)) is None


def test_every_processor_has_float32():
    assert "FP32" in capabilities()


TELL = "from service.engines.openvino_library import capabilities; print(*capabilities())"


def test_a_processor_that_is_held_back_has_no_bfloat16():
    """oneDNN leaves its instructions out, and OpenVINO names them all the same."""
    environ = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(
        [sys.executable, "-c", TELL], env=environ, capture_output=True, text=True, check=True
    )
    held_back = {"BF16"} if platform.machine() in X86 else set()
    assert set(done.stdout.split()) & {"FP32", "BF16"} == (capabilities() & {"FP32", "BF16"}) - held_back
