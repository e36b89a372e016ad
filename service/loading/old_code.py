"""Owns reading the operator's Python for what old Keras understood and Keras 3 does not, line by line.

The file is parsed, never run. Each statement is written again with the names and arguments of Keras 3; where that
differs, the line is told with what to write instead. What it does not know it leaves alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.loading import old_names
from service.syntax import parse_expression, parse_module

_SHOWN = 30
_DELETED = "(delete it: add_weight registers weights by itself)"
_WEIGHT_LISTS = ("trainable_weights", "non_trainable_weights")


@dataclass(frozen=True, slots=True)
class OldLine:
    """A statement of old Keras.

    Args:
        number: its first line, from 1.
        old: as it stands there, its first line only.
        new: what Keras 3 needs instead.
    """

    number: int
    old: str
    new: str


def find_old_lines(source: str) -> list[OldLine]:
    """The statements to change, in the order of the file; none where the file is no Python."""
    try:
        tree = parse_module(source)
        names = _Names.of(tree)
        return list(_changes(tree.body, _Modern(names), source.splitlines()))
    except (SyntaxError, ValueError, RecursionError):
        return []


def old_lines(path: Path) -> str:
    """What to change in a file, for people; empty where nothing in it is known to be old."""
    try:
        found = find_old_lines(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return ""
    if not found:
        return ""
    told = [f"  line {line.number}: {line.old}\n     write: {line.new}" for line in found[:_SHOWN]]
    rest = [f"  and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    head = f"{path.name} is written for an older Keras. Keras 3 needs these lines:"
    return "\n".join([head, *told, *rest])


@dataclass(slots=True)
class _Names:
    """What a file calls `keras.backend` and `tensorflow`, and what it takes from Keras."""

    backend: set[str] = field(default_factory=set)
    tensorflow: set[str] = field(default_factory=set)
    from_keras: set[str] = field(default_factory=set)
    keeps_backend: bool = False
    leaves_backend: bool = False

    @staticmethod
    def of(tree: ast.Module) -> _Names:
        names = _Names()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name == "keras.backend" and alias.asname:
                        names.backend.add(alias.asname)
                    if alias.name == "tensorflow":
                        names.tensorflow.add(alias.asname or alias.name)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "keras":
                for alias in node.names:
                    is_backend = node.module == "keras" and alias.name == "backend"
                    (names.backend if is_backend else names.from_keras).add(alias.asname or alias.name)
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in names.backend
        }
        names.keeps_backend = bool(used & old_names.BACKEND_KEPT)
        names.leaves_backend = bool(used - old_names.BACKEND_KEPT)
        return names

    def function_of(self, node: ast.expr) -> tuple[str, str] | None:
        """(`backend` or `tensorflow`, function) where the expression names one: `K.round`, `tf.log`."""
        if not isinstance(node, ast.Attribute):
            return None
        owner = ast.unparse(node.value)
        if owner in self.backend or owner == "keras.backend":
            return ("backend", node.attr) if node.attr not in old_names.BACKEND_KEPT else None
        return (owner, node.attr) if owner in self.tensorflow else None


class _Modern(ast.NodeTransformer):
    """Writes a tree again as Keras 3 understands it."""

    def __init__(self, names: _Names) -> None:
        self._names = names

    def visit_Call(self, node: ast.Call) -> ast.expr:
        function = self._names.function_of(node.func)
        given = [ast.unparse(argument) for argument in node.args]
        self.generic_visit(node)
        if function is not None:
            return _translated(function, node)
        if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "self":
            return _weight(node, given)
        if isinstance(node.func, ast.Name) and node.func.id in self._names.from_keras:
            for keyword in node.keywords if node.func.id != "Embedding" else ():
                keyword.arg = old_names.KEYWORDS.get(keyword.arg or "", keyword.arg)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        function = self._names.function_of(node)
        self.generic_visit(node)
        if function is not None:
            return _renamed(function, node)
        node.attr = old_names.ATTRIBUTES.get(node.attr, node.attr)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.name = old_names.ATTRIBUTES.get(node.name, node.name)
        self.generic_visit(node)
        return node

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = {"initializations": "initializers"}.get(node.id, node.id)
        return node

    def visit_Import(self, node: ast.Import) -> ast.stmt | list[ast.stmt]:
        if any(alias.asname in self._names.backend for alias in node.names) and self._names.leaves_backend:
            return self._with_keras(node)
        for alias in node.names:
            alias.name = old_names.MODULES.get(alias.name, alias.name)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt | list[ast.stmt]:
        module = node.module or ""
        python_keras = module.removeprefix("tensorflow.python.") if ".python.keras" in module else module
        node.module = old_names.MODULES.get(python_keras, python_keras) or None
        if module != "keras":
            return node
        for alias in node.names:
            if alias.name == "initializations":
                alias.name = "initializers"
        if not self._names.leaves_backend or all(alias.name != "backend" for alias in node.names):
            return node
        if self._names.keeps_backend:
            return self._with_keras(node)
        node.names = [alias for alias in node.names if alias.name != "backend"]
        return self._with_keras(node if node.names else None)

    def _with_keras(self, node: ast.stmt | None) -> list[ast.stmt]:
        keras: ast.stmt = ast.Import([ast.alias("keras")])
        keep = node is not None and (self._names.keeps_backend or isinstance(node, ast.ImportFrom))
        return [keras, node] if keep and node is not None else [keras]


def _translated(function: tuple[str, str], node: ast.Call) -> ast.expr:
    owner, name = function
    is_backend = owner == "backend"
    templates = old_names.BACKEND_TEMPLATES if is_backend else old_names.TENSORFLOW_TEMPLATES
    if name in templates:
        given = [ast.unparse(argument) for argument in (*node.args, *(k.value for k in node.keywords))]
        given = [text if text.isidentifier() or text.endswith((")", "]")) else f"({text})" for text in given]
        try:
            return parse_expression(templates[name].format(*given, tf=owner))
        except (IndexError, SyntaxError):
            return node
    if is_backend and name in old_names.BACKEND_DEFAULTS:
        position, default = old_names.BACKEND_DEFAULTS[name]
        word, _, value = default.partition("=")
        if len(node.args) <= position and all(keyword.arg != word for keyword in node.keywords):
            node.keywords.append(ast.keyword(word, parse_expression(value)))
    return node  # its function was renamed when its parts were visited


def _renamed(function: tuple[str, str], node: ast.Attribute) -> ast.expr:
    owner, name = function
    if owner == "backend":
        new = old_names.BACKEND.get(name)
    else:
        new = f"{owner}.{old_names.TENSORFLOW[name]}" if name in old_names.TENSORFLOW else None
    return node if new is None else parse_expression(new)


def _weight(node: ast.Call, given: Sequence[str]) -> ast.expr:
    """`self.add_weight` by position, and Keras 1's `self.init(shape, name=...)`."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if name == "add_weight":
        named_first = bool(node.args) and isinstance(node.args[0], ast.Constant)
        if not named_first and len(node.args) <= 2:
            return node
        order = old_names.WEIGHT_ARGUMENTS[named_first]
        node.keywords = [
            *(ast.keyword(word, value) for word, value in zip(order, node.args, strict=False)),
            *node.keywords,
        ]
        node.args = []
    elif name.endswith("init") and given and any(keyword.arg == "name" for keyword in node.keywords):
        label = next(ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "name")
        text = f"self.add_weight(shape={given[0]}, initializer=self.{name}, name={label})"
        return parse_expression(text)
    return node


def _changes(body: Sequence[ast.stmt], modern: _Modern, lines: Sequence[str]) -> Iterator[OldLine]:
    for statement in body:
        inside = [handler.body for handler in getattr(statement, "handlers", [])]
        for part in ("body", "orelse", "finalbody", "handlers"):
            if getattr(statement, part, None):
                inside += [getattr(statement, part)] if part != "handlers" else []
                setattr(statement, part, [ast.Pass()] if part == "body" else [])
        old = lines[statement.lineno - 1].strip()
        before = _head(statement)
        after = _DELETED if _lists_weights(statement) else _written(modern.visit(statement))
        if after != before:
            yield OldLine(statement.lineno, old, after)
        for part in sorted(inside, key=lambda part: part[0].lineno):
            yield from _changes(part, modern, lines)


def _head(statement: ast.stmt) -> str:
    """The statement, without the body that it opens."""
    text = ast.unparse(statement)
    return text.removesuffix("pass").strip() if hasattr(statement, "body") else text


def _written(result: ast.stmt | list[ast.stmt]) -> str:
    return "; ".join(_head(part) for part in (result if isinstance(result, list) else [result]))


def _lists_weights(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.Assign):
        return False
    return any(
        isinstance(target, ast.Attribute) and target.attr in _WEIGHT_LISTS for target in statement.targets
    )
