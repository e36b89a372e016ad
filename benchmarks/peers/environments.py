"""Owns the peers' virtual environments: `.cache/peers/<name>`, made from pinned requirements, once."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).parent.parent.parent / ".cache" / "peers"
_KERAS = ("tensorflow-cpu==2.21.0", "keras==3.15.1", "pillow==13.0.0")


class EnvironmentFailed(RuntimeError):
    """The environment cannot be made; the message holds the installer's last words."""


@dataclass(frozen=True)
class Environment:
    """One peer's packages, beside TensorFlow, Keras and Pillow in the service's own versions.

    Args:
        name: its folder.
        requirements: pinned.
        python: the interpreter; PyTriton needs one with a shared libpython, as Debian's.
    """

    name: str
    requirements: tuple[str, ...]
    python: str = "python3.11"

    @property
    def bin(self) -> Path:
        """The folder of its programs."""
        return CACHE / self.name / "bin"

    def make(self) -> None:
        """Installs what is not installed yet.

        Raises:
            EnvironmentFailed: no such interpreter, or the installer failed.
        """
        wanted = [*self.requirements, *_KERAS]
        stamp = CACHE / self.name / "installed"
        key = hashlib.sha256("\n".join([self.python, *wanted]).encode()).hexdigest()
        if stamp.is_file() and stamp.read_text() == key:
            return
        print(f"installing {self.name} into {CACHE / self.name}", flush=True)
        self._run([self.python, "-m", "venv", str(CACHE / self.name)])
        self._run([str(self.bin / "pip"), "install", "--quiet", "--disable-pip-version-check", *wanted])
        stamp.write_text(key)

    def _run(self, command: list[str]) -> None:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise EnvironmentFailed(
                f"Expected {command[0]} to be installed. Received: no such program."
            ) from error
        except subprocess.CalledProcessError as error:
            raise EnvironmentFailed(f"{self.name}: {error.stderr.strip()[-600:]}") from error
