"""Owns the command `python -m service doctor FILE...`.

Exit status: 0 every file is good, 1 one is repairable, 2 one needs something, 3 one is refused; the worst counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.repository import SUFFIXES
from service.tools.doctor.examine import examine
from service.tools.doctor.report import Report, Verdict
from service.tools.doctor.text import render

if TYPE_CHECKING:
    from service.tools.compare import Comparison

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
    given = tuple(parsed.custom_objects)
    reports = [examine(path, given) for path in _files(parsed.files)]
    compared = [_compared(report, given) if parsed.compare else None for report in reports]
    if parsed.json:
        print(json.dumps([_as_json(*pair) for pair in zip(reports, compared, strict=True)], indent=2))
    else:
        texts = [render(report, all_layers=parsed.all_layers) for report in reports]
        print("\n\n".join(f"{t}\n{c.text}" if c else t for t, c in zip(texts, compared, strict=True)))
    worst = max((report.verdict for report in reports), default=Verdict.GOOD)
    return int(worst)


def _as_json(report: Report, compared: Comparison | None) -> dict[str, Any]:
    """A file's JSON; `compare` is there only if it was asked for."""
    return report.as_json() | ({} if compared is None else {"compare": dataclasses.asdict(compared)})


def _compared(report: Report, given: tuple[Path, ...]) -> Comparison:
    from service.tools.compare import compare  # noqa: PLC0415 imports TensorFlow, which the doctor does without

    return compare(Path(report.file), given)


def _files(given: Iterable[Path]) -> Iterator[Path]:
    """The files as given, and those below given folders that have a model's suffix."""
    for path in given:
        if path.is_dir():
            yield from sorted(f for f in path.rglob("*") if f.is_file() and f.suffix.lower() in SUFFIXES)
        else:
            yield path
