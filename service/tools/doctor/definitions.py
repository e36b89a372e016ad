"""Owns what Python files define, told from their text: the doctor does not run an operator's files.

Source: service/loading/custom_objects.py, which runs them and offers public classes and functions and
`CUSTOM_OBJECTS`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from service.syntax import parse_module

_DECLARED = "CUSTOM_OBJECTS"
_MAX_BYTES = 2**22


def definitions(files: Iterable[Path]) -> dict[str, str]:
    """Name -> the file that defines it; a later file wins. A file that cannot be read defines nothing."""
    found: dict[str, str] = {}
    for path in files:
        try:
            if path.stat().st_size > _MAX_BYTES:
                continue
            tree = parse_module(path.read_bytes())
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        found |= {name: str(path) for statement in tree.body for name in _names(statement)}
    return found


def _names(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef):
        yield statement.name
    elif isinstance(statement, ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in statement.names)
    elif isinstance(statement, ast.If | ast.Try):
        for inner in statement.body:
            yield from _names(inner)
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        named = {target.id for target in targets if isinstance(target, ast.Name)}
        if _DECLARED in named and isinstance(statement.value, ast.Dict):
            keys = (key.value for key in statement.value.keys if isinstance(key, ast.Constant))
            yield from (key for key in keys if isinstance(key, str))


def arguments(path: Path) -> dict[str, frozenset[str]]:
    """Class name -> the arguments that its constructor names, for the classes of a file of this package."""
    found: dict[str, frozenset[str]] = {}
    for statement in parse_module(path.read_bytes()).body:
        if isinstance(statement, ast.ClassDef):
            for inner in statement.body:
                if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
                    taken = [*inner.args.args, *inner.args.kwonlyargs]
                    found[statement.name] = frozenset(argument.arg for argument in taken)
    return found
