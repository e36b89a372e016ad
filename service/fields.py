"""Owns the way from untyped settings to frozen dataclasses: types checked, unknown keys refused.

A setting is a dataclass field whose annotation is its type and whose metadata carries `doc` and, where they
apply, `choices`, `low` and `high`. Values come from TOML (already typed) or from text (environment, flags);
tables from TOML only.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from service.errors import SettingsError

T = TypeVar("T")

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
_MAX_WORD = 200  # characters; what is longer resembles no name, and comparing it takes long


def setting(
    default: Any,
    doc: str,
    *,
    choices: Sequence[str] = (),
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A dataclass field that is a setting; `low` and `high` are inclusive."""
    return dataclasses.field(
        default=default, metadata={"doc": doc, "choices": tuple(choices), "low": low, "high": high}
    )


def nearest(word: str, words: Iterable[str]) -> str:
    """A sentence that names the closest of `words`, or an empty string."""
    if len(word) > _MAX_WORD:
        return ""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """An instance of the frozen dataclass `cls`; text values are converted to the fields' types.

    Lists may be written as text with commas, or as their only element. Empty text leaves a setting unset where
    that is possible; for a list it is the empty list.

    Args:
        cls: a dataclass whose fields are settings, or nested dataclasses of settings.
        values: field name -> value.
        where: names the source in messages: "layertap.toml", "the environment".

    Raises:
        SettingsError: an unknown key, a wrong type, or a value out of range.
    """
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    converted: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise SettingsError(f"Unknown setting '{key}' in {where}.{nearest(key, known)}")
        hint = hints[key]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            if not isinstance(value, Mapping):
                raise SettingsError(f"Expected '{key}' in {where} to be a table. Received: {value!r}.")
            converted[key] = build(hint, value, f"[{key}] of {where}")
        else:
            converted[key] = _convert(value, hint, known[key], where)
    return cls(**converted)


def _convert(value: Any, hint: Any, field: dataclasses.Field[Any], where: str) -> Any:
    members = _members(hint)
    # Text that may be text stays whole: only where it may not, it is a list with commas.
    wanted = sorted((t for t in members if t is not type(None)), key=_is_list)
    if value == "" and type(None) in members and not any(_is_list(kind) for kind in wanted):
        return None
    for kind in wanted:
        try:
            result = _as_kind(value, kind)
        except (TypeError, ValueError, OverflowError):
            continue
        _check_range(result, field, where)
        return result
    names = " or ".join(_kind_name(t) for t in wanted)
    raise SettingsError(f"Expected '{field.name}' in {where} to be {names}. Received: {value!r}.")


def _members(hint: Any) -> tuple[Any, ...]:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return typing.get_args(hint)
    return (hint,)


def _is_list(kind: Any) -> bool:
    return typing.get_origin(kind) is tuple


def _is_table(kind: Any) -> bool:
    return typing.get_origin(kind) is Mapping


def _as_kind(value: Any, kind: Any) -> Any:
    if _is_list(kind):
        return _as_tuple(value, typing.get_args(kind)[0])
    if _is_table(kind):
        return _as_table(value, typing.get_args(kind)[1])
    if kind is bool:
        return _as_bool(value)
    if isinstance(value, bool):
        raise TypeError  # TOML's true is no number
    if kind is int:
        if isinstance(value, float):
            raise TypeError
        return int(value)
    if kind is float:
        return _as_float(value)
    if kind is str and isinstance(value, str):
        return value
    raise TypeError


def _as_float(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _as_tuple(value: Any, kind: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    elif isinstance(value, int | float):
        value = [value]
    if not isinstance(value, list | tuple):
        raise TypeError
    return tuple(_as_kind(part, kind) for part in value)


def _as_table(value: Any, kind: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError
    return {str(name): _as_kind(part, kind) for name, part in value.items()}


def _as_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    raise TypeError


def _kind_name(kind: Any) -> str:
    if _is_list(kind):
        return f"a list ({_kind_name(typing.get_args(kind)[0])} each)"
    if _is_table(kind):
        return f"a table ({_kind_name(typing.get_args(kind)[1])} each)"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind, str(kind))


def _check_range(value: Any, field: dataclasses.Field[Any], where: str) -> None:
    choices, low, high = (field.metadata.get(key) for key in ("choices", "low", "high"))
    if choices and value not in choices:
        raise SettingsError(
            f"Expected '{field.name}' in {where} to be one of {', '.join(choices)}. Received: {value!r}."
        )
    numbers = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
    if any((low is not None and n < low) or (high is not None and n > high) for n in numbers):
        span = f"at least {low}" if high is None else f"from {low} to {high}"
        raise SettingsError(f"Expected '{field.name}' in {where} to be {span}. Received: {value!r}.")
