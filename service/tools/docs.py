"""Owns the tables of the README that are generated from code: `python -m service.tools.docs README.md [--check]`.

A block between `<!-- table:NAME -->` and `<!-- /table -->` is replaced by the table of that name; everything
else is prose and stays as it is.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.metrics import MetricWrapperBase

from service.api.openapi import describe_api
from service.model_config import ModelConfig
from service.reply_counts import ReplyCounts
from service.settings import PREFIX, Settings
from service.stage_times import StageTimes
from service.telemetry import Metrics

_BLOCK = re.compile(r"(<!-- table:(?P<name>[a-z_]+) -->\n).*?(<!-- /table -->)", re.DOTALL)
_OPENING = re.compile(r"<!-- table:")
_KINDS = {int: "whole number", float: "number", bool: "`true`, `false`", str: "text"}


def tables() -> dict[str, str]:
    """Name -> Markdown table, ending in a newline."""
    document = describe_api(())
    return {
        "settings": _settings(),
        "model_settings": _table(
            ("`model.toml`", "Values", "Default", "Meaning"), _model_settings(ModelConfig)
        ),
        "endpoints": _endpoints(document),
        "parameters": _parameters(document),
        "bodies": _bodies(document),
        "errors": _errors(document),
        "metrics": _metrics(),
    }


def rewrite(text: str) -> str:
    """The text with every block's table fresh.

    Raises:
        ValueError: a block has no end, or names a table that does not exist.
    """
    known = tables()

    def fresh(block: re.Match[str]) -> str:
        name = block["name"]
        if name not in known:
            raise ValueError(f"Expected a table out of {', '.join(known)}. Received: '{name}'.")
        return f"{block[1]}{known[name]}{block[3]}"

    if len(_BLOCK.findall(text)) != len(_OPENING.findall(text)):
        raise ValueError("Expected '<!-- /table -->' after every '<!-- table:NAME -->'. Received: fewer.")
    return _BLOCK.sub(fresh, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrites a file, or only tells whether that would change it; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m service.tools.docs", description="Writes the generated tables of a Markdown file."
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a table is stale")
    parsed = parser.parse_args(arguments)
    text = parsed.file.read_text(encoding="utf-8")
    try:
        fresh = rewrite(text)
    except ValueError as error:
        sys.exit(f"{parsed.file}: {error}")
    if fresh == text:
        return 0
    if parsed.check:
        print(f"{parsed.file}: a generated table is stale; run `python -m service.tools.docs {parsed.file}`.")
        return 1
    parsed.file.write_text(fresh, encoding="utf-8")
    print(f"{parsed.file}: tables written.")
    return 0


# -- tables -----------------------------------------------------------------------------------------------


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def _settings() -> str:
    rows = (
        (f"`{field.name}`", values, default, f"`{PREFIX}{field.name.upper()}`", field.metadata["doc"])
        for field, values, default in _fields(Settings)
    )
    return _table(("`layertap.toml`", "Values", "Default", "Environment", "Meaning"), rows)


def _model_settings(cls: type, prefix: str = "") -> Iterator[tuple[str, ...]]:
    for field, values, default in _fields(cls):
        yield f"`{prefix}{field.name}`", values, default, field.metadata["doc"]
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _model_settings(hints[field.name], f"{prefix}{field.name}.")


def _endpoints(document: dict[str, Any]) -> str:
    """Paths that answer the same, with a version or without, share a row."""
    found: dict[tuple[str, ...], tuple[list[str], set[str]]] = {}
    for path, operations in document["paths"].items():
        for verb, operation in operations.items():
            key = (verb, operation["summary"], *operation.get("tags", ()))
            paths, statuses = found.setdefault(key, ([], set()))
            paths.append(f"`{verb.upper()} {path}`")
            statuses.update(operation["responses"])
    rows = (
        ("<br>".join(paths), key[1], ", ".join(sorted(statuses))) for key, (paths, statuses) in found.items()
    )
    return _table(("Endpoint", "Answers", "Statuses"), rows)


def _parameters(document: dict[str, Any]) -> str:
    found: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for path in ("/predict", "/features"):
        for parameter in document["paths"][path]["post"]["parameters"]:
            if parameter["in"] == "query":
                found.setdefault(parameter["name"], (parameter, []))[1].append(f"`{path}`")
    rows = (
        (f"`{name}`", _parameter_values(parameter["schema"]), ", ".join(paths), parameter["description"])
        for name, (parameter, paths) in found.items()
    )
    return _table(("Parameter", "Values", "On", "Meaning"), rows)


def _bodies(document: dict[str, Any]) -> str:
    schemas = document["components"]["schemas"]

    def described(schema: dict[str, Any]) -> str:
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rpartition("/")[2]]
        choices = " Or: ".join(described(choice) for choice in schema.get("oneOf", ()))
        return schema.get("description") or choices

    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    rows = ((f"`{media}`", described(body["schema"])) for media, body in content.items())
    return _table(("Content type", "Body"), rows)


def _errors(document: dict[str, Any]) -> str:
    codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["oneOf"]
    rows = ((f"`{entry['const']}`", str(entry["x-status"]), entry["description"]) for entry in codes)
    return _table(("Code", "Status", "Meaning"), rows)


def _metrics() -> str:
    return _table(("Metric", "Type", "Labels", "Meaning"), _metric_rows(Metrics(CollectorRegistry())))


def _metric_rows(metrics: Metrics) -> Iterator[tuple[str, ...]]:
    for metric in vars(metrics).values():
        if isinstance(metric, StageTimes | ReplyCounts):
            families: list[Metric] = [*metric.collect()]
            labels = metric.labels
        elif isinstance(metric, MetricWrapperBase):
            families = list(metric.describe())[:1]
            labels = metric._labelnames  # noqa: SLF001 prometheus_client tells them nowhere else
        else:
            continue
        for family in families:
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield (
                f"`{name}`",
                family.type,
                ", ".join(f"`{label}`" for label in labels) or "none",
                family.documentation,
            )


# -- words ------------------------------------------------------------------------------------------------


def _fields(cls: type) -> Iterator[tuple[dataclasses.Field[Any], str, str]]:
    """Every field that is a setting, with its possible values and its default in words."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if "doc" in field.metadata:
            yield field, _values(hints[field.name], field.metadata), _literal(field.default)


def _values(hint: Any, metadata: typing.Mapping[str, Any]) -> str:
    if metadata["choices"]:
        return ", ".join(f"`{choice}`" for choice in metadata["choices"])
    low, high = metadata["low"], metadata["high"]
    span = "" if low is None else f", at least {low}" if high is None else f", {low} to {high}"
    return _kind(hint) + span


def _kind(hint: Any) -> str:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        return " or ".join(_kind(member) for member in members)
    if typing.get_origin(hint) is tuple:
        return f"list: {_kind(typing.get_args(hint)[0])}"
    if typing.get_origin(hint) is Mapping:
        return f"table: {_kind(typing.get_args(hint)[1])} each"
    return _KINDS[hint]


def _literal(value: Any) -> str:
    """A default as TOML spells it."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(_literal(entry).strip('`') for entry in value)}]`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def _parameter_values(schema: dict[str, Any]) -> str:
    schema = schema.get("items", schema)
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    return f"whole number, at least {schema['minimum']}" if schema["type"] == "integer" else "text"


if __name__ == "__main__":
    sys.exit(main())
