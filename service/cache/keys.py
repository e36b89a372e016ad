"""Owns what a model's cache entry depends on, and when none may be made.

A key is a digest of everything that what is kept was worked out from: the contents of the model's files, its
settings, the service's own code, the installed packages, the processor, and what is held back of it. Whatever
changes, the old entry is not found. Nothing is kept of a model whose result may depend on more than that: code of other places.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.util
import json
import platform
import sys
import sysconfig
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from service.footprints import version_files
from service.model_config import ModelConfig
from service.repository import ModelEntry, ModelVersion
from service.settings import kernel_variables
from service.syntax import parse_module

_SERVICE = Path(__file__).parents[1]
_CPUINFO = Path("/proc/cpuinfo")
_LARGE_BYTES = 64 * 2**20
# They change what is said or warmed, and nothing that is kept.
_OF_NO_MATTER = frozenset(
    ["default_layer", "engine_thread", "warm_layers", "layers", "versions", "labels", "classes", "preprocess"]
)


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """What tells one entry from all others.

    Args:
        name: of the entry.
        sha256: of the model's file, in hexadecimal.
    """

    name: str
    sha256: str


def model_key(entry: ModelEntry, version: ModelVersion, settings: Mapping[str, Any]) -> Key:
    """The key of one version of a model.

    Args:
        entry: the model.
        version: its file.
        settings: what else decides the result, as JSON takes it.

    Raises:
        OSError: a file cannot be read.
    """
    files = {
        str(path.relative_to(entry.folder) if path.is_relative_to(entry.folder) else path): _mark(
            path, whole=path == version.path
        )
        for path in sorted(version_files(entry, version))
        if path.is_file()
    }
    told = {
        "files": files,
        "model": _settings_of(entry.config),
        "settings": dict(settings),
        "environment": _environment(),
    }
    text = json.dumps(told, sort_keys=True, default=str)
    return Key(hashlib.sha256(text.encode()).hexdigest(), _digest(version.path))


def against_keeping(entry: ModelEntry) -> str | None:
    """Why nothing may be kept of this model; `None` where something may."""
    config = entry.config
    if config.allow_lambda:
        return "its Lambda layers run code that the file brings."
    if config.architecture and ":" in config.architecture:
        return "a function builds it, which may do anything."
    if references := [name for name in config.custom_objects if ":" in name]:
        return f"it takes code from installed packages: {', '.join(references)}."
    for path in entry.object_files:
        if foreign := _foreign_imports(path):
            return f"{path.name} imports {', '.join(foreign)}, which is not installed as a package."
    return None


def _settings_of(config: ModelConfig) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in _OF_NO_MATTER}


def _mark(path: Path, *, whole: bool) -> str:
    """What tells whether a file has changed: its contents, or, of large companions, what the system notes."""
    status = path.stat()
    if whole or status.st_size <= _LARGE_BYTES:
        return _digest(path)
    return f"{status.st_size} {status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _environment() -> dict[str, Any]:
    """The service's code, the packages, the interpreter and the processor; none of them changes in a process."""
    return {
        "service": {
            str(path.relative_to(_SERVICE)): _digest(path) for path in sorted(_SERVICE.rglob("*.py"))
        },
        "packages": _packages(),
        "python": sys.version,
        "processor": _processor(),
        "kernels": kernel_variables(),
    }


def _packages() -> list[str]:
    """`name-version.dist-info` of every installed package: a release of any of them may compute something else."""
    return sorted(path.name for folder in _site_folders() for path in folder.glob("*.dist-info"))


def _site_folders() -> set[Path]:
    return {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}


def _processor() -> list[str]:
    """Its instructions and name: they decide which kernels OpenVINO takes."""
    told = [platform.system(), platform.machine()]
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return [*told, platform.processor()]
    kept = {line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part"))}
    return [*told, *sorted(kept)]


def _foreign_imports(path: Path) -> list[str]:
    """The modules that a Python file imports from elsewhere than the standard library and installed packages."""
    try:
        tree = parse_module(path.read_bytes())
    except (SyntaxError, ValueError):
        return ["something that cannot be told"]
    roots: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add("." if node.level else str(node.module).partition(".")[0])
    return sorted(root for root in roots if not _is_installed(root))


def _is_installed(root: str) -> bool:
    if root in sys.stdlib_module_names:
        return True
    try:
        spec = importlib.util.find_spec(root)
    except (ImportError, ValueError):
        return False
    places = [spec.origin, *(spec.submodule_search_locations or [])] if spec is not None else []
    return any(
        place is not None and Path(place).resolve().is_relative_to(folder)
        for place in places
        for folder in _site_folders()
    )
