"""Owns the command `python -m service doctor FILE...`.

Exit status: 0 every file is good, 1 one is repairable, 2 one needs something, 3 one is refused; the worst counts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from service.repository import SUFFIXES
from service.tools.doctor.examine import examine
from service.tools.doctor.report import Verdict
from service.tools.doctor.text import render

DESCRIPTION = "Says what model files are, hold and need, without TensorFlow and without running any of them."
EPILOG = (
    "Exit status: 0 good, 1 repairable (the service repairs it as it loads it), 2 needs something, 3 refused."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the doctor's arguments to a parser of the command line."""
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="model files, or folders of them")
    parser.add_argument("--json", action="store_true", help="print a JSON list with one object a file")
    parser.add_argument("--all-layers", action="store_true", help="do not cut long tables of layers")
    parser.add_argument(
        "--custom-objects",
        metavar="FILE",
        action="append",
        default=[],
        type=Path,
        help="a Python file that defines custom objects, besides those beside the model; only its text is read",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="run the file in Keras 3 and in tf_keras on the same rows, and print the largest differences "
        "(imports TensorFlow)",
    )


def run(parsed: argparse.Namespace) -> int:
    """Examines the files, prints what it finds and returns the exit status."""
    reports = [examine(path, tuple(parsed.custom_objects)) for path in _files(parsed.files)]
    if parsed.json:
        print(json.dumps([report.as_json() for report in reports], indent=2))
    else:
        print("\n\n".join(render(report, all_layers=parsed.all_layers) for report in reports))
    worst = max((report.verdict for report in reports), default=Verdict.GOOD)
    return int(worst)


def _files(given: Iterable[Path]) -> Iterator[Path]:
    """The files as given, and those below given folders that have a model's suffix."""
    for path in given:
        if path.is_dir():
            yield from sorted(f for f in path.rglob("*") if f.is_file() and f.suffix.lower() in SUFFIXES)
        else:
            yield path
