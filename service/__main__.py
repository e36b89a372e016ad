"""Owns the command line: `python -m service serve [--setting value ...]`, `doctor FILE...`, `convert FILE OUT`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import NoReturn

from service.errors import SettingsError
from service.settings import Settings, child_environ, load_settings
from service.tools.doctor import command as doctor

_CONFIG = Path(__file__).parent.parent / "gunicorn.conf.py"


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs a command; `serve` becomes gunicorn, the others end with their exit status."""
    parsed = _parser().parse_args(arguments)
    if parsed.command == "doctor":
        sys.exit(doctor.run(parsed))
    if parsed.command == "convert":
        from service.tools.convert import run  # noqa: PLC0415 imports TensorFlow, which others do without

        sys.exit(run(parsed.file, parsed.out, tuple(parsed.custom_objects)))
    _serve({name: value for name, value in vars(parsed).items() if name != "command" and value is not None})


def _serve(flags: dict[str, str]) -> NoReturn:
    try:
        load_settings(flags=flags)
    except SettingsError as error:
        sys.exit(f"layertap: {error.message}")
    command = [sys.executable, "-m", "gunicorn", "-c", str(_CONFIG)]
    os.execve(command[0], command, child_environ(flags))  # noqa: S606 this very interpreter


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service", description="Serves trained Keras models over HTTP."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve the models folder")
    for field in dataclasses.fields(Settings):
        serve.add_argument(
            f"--{field.name.replace('_', '-')}",
            metavar="VALUE",
            choices=field.metadata["choices"] or None,
            help=f"{field.metadata['doc']} (default: {field.default})".replace("%", "%%"),
        )
    doctor.add_arguments(
        commands.add_parser(
            "doctor", help=doctor.DESCRIPTION, description=doctor.DESCRIPTION, epilog=doctor.EPILOG
        )
    )
    _add_convert(commands.add_parser("convert", help="write a clean Keras 3 file, proved equal"))
    return parser


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the model file")
    parser.add_argument("out", type=Path, help="the new file: .keras or .h5; it must not exist")
    parser.add_argument(
        "--custom-objects",
        metavar="FILE",
        action="append",
        default=[],
        type=Path,
        help="a Python file that defines custom objects, besides those beside the model; it is run",
    )


if __name__ == "__main__":
    main()
