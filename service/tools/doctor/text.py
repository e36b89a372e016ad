"""Owns the doctor's report as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from service.tools.doctor.report import CodeRow, Report, Shape

MAX_LAYERS = 60
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def render(report: Report, *, all_layers: bool = False) -> str:
    """The report, aligned; long tables of layers are cut unless `all_layers`."""
    lines = [report.file, *(f"  {name:<13} {value}" for name, value in _facts(report))]
    lines += _section("layers", _layers(report, None if all_layers else MAX_LAYERS))
    lines += _section("stored code", [line for row in report.code for line in _code(row)])
    lines += _section("repairs", report.repairs)
    lines += _section("needs", report.needs)
    lines.append(f"  {'verdict':<13} {_indented(report.sentence)}")
    if report.mend and report.trouble:
        lines.append(f"  {'':<13} {_indented(report.mend)}")
    return _printable("\n".join(lines))


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    yield "kind", report.kind
    if report.sha256:
        yield "size", _size(report.size_bytes)
        yield "sha256", report.sha256
    if report.kind != "unreadable":
        version = report.keras_version or "1, or not told"
        yield "written by", f"Keras {version}" + (f" on {report.backend}" if report.backend else "")
        yield "parameters", f"{report.parameters:,}"
    for title, rows in (("input", report.inputs), ("output", report.outputs)):
        for row in rows:
            yield title, f"{row.name} {_shape(row.shape)}"
    if report.optimizer_bytes:
        yield "optimiser", f"{_size(report.optimizer_bytes)} that serving does not need"
    for item in report.custom_objects:
        place = f"found in {item.found_in}" if item.found_in else "not found"
        yield (
            "custom object",
            f"{item.name}" + (f" (layer '{item.layer}')" if item.layer else "") + f": {place}",
        )


def _layers(report: Report, limit: int | None) -> list[str]:
    rows = [
        (row.path, row.class_name, "" if row.parameters is None else f"{row.parameters:,}", _shape(row.shape))
        for row in report.layers[:limit]
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    lines = [f"{p:<{widths[0]}}  {c:<{widths[1]}}  {n:>{widths[2]}}  {s}".rstrip() for p, c, n, s in rows]
    left = len(report.layers) - len(rows)
    return [f"{len(report.layers)} of them; path, class, parameters, output shape:", *lines][
        0 if rows else 2 :
    ] + ([f"and {left} more (--all-layers)"] if left else [])


def _code(row: CodeRow) -> Iterator[str]:
    yield f"'{row.layer}'" + (f", replaced by the function in {row.replaced_by}" if row.replaced_by else "")
    code = row.code
    if code is None or code.trouble:
        yield f"  cannot be read: {code.trouble if code else 'it is no bytecode'}"
        return
    yield f"  {code.size_bytes} bytes of {code.python}; functions: {', '.join(code.functions)}"
    yield f"  names: {', '.join(code.names) or 'none'}"
    yield f"  constants: {', '.join(code.constants) or 'none'}"
    if code.reaching_out:
        yield f"  REACHES OUT: {', '.join(code.reaching_out)}"


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"  {title if place == 0 else '':<13} {_indented(line)}" for place, line in enumerate(lines)]


def _indented(text: str) -> str:
    return text.replace("\n", "\n" + " " * 16)


def _shape(shape: Shape | None) -> str:
    return "?" if shape is None else f"({', '.join('None' if size is None else str(size) for size in shape)})"


def _size(count: int) -> str:
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{count} bytes" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def _printable(text: str) -> str:
    """Names come from the file; what would move a terminal's cursor is shown as an escape."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text
    )
