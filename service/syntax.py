"""Owns turning Python text into syntax trees and literals: by one thread at a time.

CPython 3.11 and 3.12 count in one place how deep they are in any tree that they build, so two threads that build
some at once fail at random: "SystemError: AST constructor recursion depth mismatch". `ast.parse` does that, and with
it `ast.literal_eval` and numpy's reader of npy headers.

Source: https://github.com/python/cpython/issues/106905.
"""

from __future__ import annotations

import ast
import threading

one_at_a_time = threading.Lock()
"""Held by whoever builds a tree; take it around a library's function that does."""


def parse_module(source: str | bytes) -> ast.Module:
    """The tree of a whole file.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse`.
    """
    with one_at_a_time:
        return ast.parse(source)


def parse_expression(text: str) -> ast.expr:
    """The tree of one expression.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse`.
    """
    with one_at_a_time:
        return ast.parse(text, mode="eval").body
