"""Owns the command line: `python -m service serve [--setting value ...]`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import NoReturn

from service.errors import SettingsError
from service.settings import Settings, child_environ, load_settings

_CONFIG = Path(__file__).parent.parent / "gunicorn.conf.py"


def main(arguments: list[str] | None = None) -> NoReturn:
    """Starts gunicorn with the settings of the command line; does not return."""
    parsed = _parser().parse_args(arguments)
    flags = {name: value for name, value in vars(parsed).items() if name != "command" and value is not None}
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
    return parser


if __name__ == "__main__":
    main()
