"""Owns what is told of Python code that a saved config holds: the names it uses, what it keeps, where it reaches.

Nothing of it runs, and nothing is unmarshalled into code.

Source: keras/src/utils/python_utils.py of Keras 3.15.1 and keras/utils/generic_utils.py of Keras 1 and 2
(`func_dump`), for the texts around the bytecode.
"""

from __future__ import annotations

import base64
import binascii
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from service.loading.marshalled import LAYOUTS, Code, Unreadable, read_code

MAX_LISTED = 40
MAX_TEXT = 80
_MAX_CODE_BYTES = 2**24

REACHING_OUT = frozenset(
    [
        *["os", "sys", "subprocess", "socket", "shutil", "pathlib", "ctypes", "importlib", "builtins"],
        *["marshal", "pickle", "requests", "urllib", "http", "threading", "multiprocessing", "signal"],
        *["pty", "tempfile", "open", "eval", "exec", "compile", "__import__", "getattr", "setattr"],
        *["globals", "locals", "vars", "system", "popen", "spawn", "fork", "remove", "unlink", "rmtree"],
        *["read_file", "write_file", "py_function", "numpy_function", "py_func", "load_library"],
        *["load_op_library", "get_file", "__class__", "__subclasses__", "__globals__", "__builtins__"],
        *["__code__", "__base__", "__mro__"],
    ]
)
"""Names that a layer's arithmetic has no use for: files, processes, the network, or the interpreter's inside."""


@dataclass(frozen=True, slots=True)
class CodeSummary:
    """What a stored function holds.

    Args:
        python: which Pythons write it in this form; `None` where it could not be read.
        size_bytes: of the marshalled code.
        functions: its name and those of functions inside it.
        names: globals, attributes and modules that it names, in order of appearance.
        constants: texts and numbers in it, as Python writes them.
        reaching_out: those of `names`, and of the texts, that arithmetic has no use for.
        trouble: why it could not be read, or `None`.
    """

    python: str | None
    size_bytes: int
    functions: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    reaching_out: tuple[str, ...] = ()
    trouble: str | None = None


def summarise(function: Any) -> CodeSummary:
    """What the function holds that a Lambda's config stores.

    Args:
        function: the config's value: a text of bytecode (Keras 1), `[text, defaults, closure]` (Keras 2) or
            `{"class_name": "__lambda__", "config": {"code": text}}` (Keras 3).
    """
    data = _marshalled(function)
    if data is None:
        return CodeSummary(None, 0, trouble="its code is not a text")
    if len(data) > _MAX_CODE_BYTES:
        return CodeSummary(None, len(data), trouble="it is too large to be read")
    trouble = "it is no code"
    for layout in LAYOUTS:
        try:
            return _summary(read_code(data, layout), layout.python, len(data))
        except Unreadable as error:
            trouble = str(error)
    return CodeSummary(None, len(data), trouble=trouble)


def _marshalled(function: Any) -> bytes | None:
    if isinstance(function, dict):
        config = function.get("config")
        function = config.get("code", config.get("value")) if isinstance(config, dict) else None
    if isinstance(function, list | tuple):
        function = function[0] if function else None
    if not isinstance(function, str):
        return None
    try:
        return base64.b64decode("".join(function.split()), validate=True)
    except (binascii.Error, ValueError):  # Keras 1 and 2.0 wrote the bytes as characters
        return function.encode("raw_unicode_escape")


def _summary(code: Code, python: str, size: int) -> CodeSummary:
    functions: list[str] = []
    names: list[str] = []
    constants: list[Any] = []
    for inner in _nested(code):
        functions.append(inner.name)
        names += [name for name in inner.names if isinstance(name, str)]
        constants += _plain(inner.constants)
    texts = [
        word for value in constants if isinstance(value, str) for word in value.replace(".", " ").split()
    ]
    words = dict.fromkeys([*names, *texts])
    return CodeSummary(
        python=python,
        size_bytes=size,
        functions=_listed(functions),
        names=_listed(names),
        constants=_listed([_short(value) for value in constants if value is not None]),
        reaching_out=_listed([word for word in words if word in REACHING_OUT]),
    )


def _nested(code: Code) -> Iterator[Code]:
    """The code and the functions inside it, each once; references may make one appear in many places."""
    waiting: deque[Any] = deque([code])
    seen: set[int] = set()
    while waiting:
        item = waiting.popleft()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Code):
            yield item
            waiting += item.constants
        elif isinstance(item, tuple):
            waiting += item


def _plain(value: Any) -> list[Any]:
    """The numbers and texts in a constant, nested ones too; as many as are worth showing."""
    found: list[Any] = []
    waiting, seen = deque([value]), set()
    while waiting and len(found) < 10 * MAX_LISTED:
        item = waiting.popleft()
        if isinstance(item, tuple):
            if id(item) not in seen:
                seen.add(id(item))
                waiting += item
        elif not isinstance(item, Code):
            found.append(item)
    return found


def _listed(words: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_short(word, quoted=False) for word in words))[:MAX_LISTED]


def _short(value: Any, *, quoted: bool = True) -> str:
    text = ascii(value) if quoted else str(value).encode("ascii", "backslashreplace").decode()
    text = "".join(letter if letter.isprintable() else "?" for letter in text[: MAX_TEXT + 1])
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."
