"""Owns the examination of one file: what it is, what it holds, what the service would make of it.

Each file is read whole in a process of its own first, as the service does it. Of its config and of Python files
beside it only the text is read; nothing is built, imported or unpickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from service import loading
from service.errors import LayertapError, LoadError
from service.loading import archive, hdf5, legacy
from service.loading.config_text import parse
from service.loading.lambdas import summarise
from service.loading.legacy import Origin, repair
from service.loading.quarantine import first_look
from service.loading.vetting import (
    PROGRAM_LAYERS,
    entries,
    missing,
    refuse_other_files,
    stored_code,
    without_compilation,
)
from service.tools.doctor.agreement import too_large
from service.tools.doctor.companions import Companions, companions
from service.tools.doctor.definitions import arguments, definitions
from service.tools.doctor.known_names import ACTIVATIONS, BUILTIN_OBJECTS, LAYERS
from service.tools.doctor.layer_table import (
    layer_rows,
    model_ends,
    numbers_by_layer,
    optimizer_bytes,
    weights_of,
)
from service.tools.doctor.report import CodeRow, ObjectRow, Report

ARCHIVE = ".keras archive"
_BROUGHT = [Path(loading.__file__).parent / name for name in ("builtin_layers.py", "crf.py")]
_OF_ANY_LAYER = frozenset(
    [
        "name",
        "trainable",
        "dtype",
        "autocast",
        "activity_regularizer",
        "input_shape",
        "batch_input_shape",
        "batch_shape",
    ]
)
_REPLACEMENTS = "*_layers.py"  # where service.loading.legacy has its own layers, which import Keras


def examine(path: Path, object_files: tuple[Path, ...] = ()) -> Report:
    """What the doctor finds in a file; whatever is wrong with it becomes the report's `trouble`.

    Args:
        path: the file.
        object_files: Python files that define custom objects, besides those that lie beside it.
    """
    report = Report(str(path))
    try:
        report.size_bytes = path.stat().st_size
        with path.open("rb") as file:
            report.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        _examine(path, companions(path, object_files), report)
    except LayertapError as error:
        report.trouble = error.message
        report.mend = error.mend if isinstance(error, LoadError) else None
    except OSError as error:
        report.trouble = f"Expected a file that can be read. Received: {error.strerror or error}."
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
        # a config may put anything anywhere; what reads it may stumble, and the service's loader then refuses it
        report.trouble = f"Expected a config as Keras writes it. Received: {type(error).__name__}: {error}."
    report.decide()
    return report


def _examine(path: Path, beside: Companions, report: Report) -> None:
    first_look(path)
    if archive.is_archive(path):
        inside = archive.look_into(path)
        report.kind, contents = ARCHIVE, inside.contents
        report.keras_version = inside.keras_version
        text: str | None = inside.config
    else:
        contents = hdf5.look(path)
        report.kind, text = contents.kind, contents.config
        report.keras_version, report.backend = contents.keras_version, contents.backend
    report.parameters, report.optimizer_bytes = weights_of(contents), optimizer_bytes(contents)
    origin = Origin(report.keras_version, report.backend)
    if text is None:
        text, origin = _architecture(path, beside, report, origin)
    if text is not None:
        _read_config(parse(text, path.name), origin, contents, beside, report)


def _architecture(
    path: Path, beside: Companions, report: Report, origin: Origin
) -> tuple[str | None, Origin]:
    """The config of weights alone, from the JSON file that model.toml names; a builder's is not to be had."""
    named = beside.config.architecture
    near = next(
        (name for name in (f"{path.stem}.json", "model.json") if (path.parent / name).is_file()), None
    )
    if named is None:
        hint = f' {near} lies beside it: architecture = "{near}" in model.toml.' if near else ""
        report.needs += (
            f"weights alone need an architecture in model.toml (JSON, a builder, or another .h5).{hint}",
        )
        return None, origin
    name = f"{named.partition(':')[0]}.py" if ":" in named else named
    found = next((folder / name for folder in beside.folders if (folder / name).is_file()), None)
    if found is None:
        report.needs += (f"{name}, which model.toml names as the architecture, is not there.",)
    if found is None or found.suffix != ".json":
        return None, origin
    text = found.read_text(encoding="utf-8")
    config = parse(text, found.name)
    version = config.get("keras_version")
    return text, Origin(version if isinstance(version, str) else origin.version, origin.backend)


def _read_config(
    config: dict[str, Any], origin: Origin, contents: hdf5.Contents, beside: Companions, report: Report
) -> None:
    defined = definitions(beside.object_files) | dict.fromkeys(beside.object_names, "an installed package")
    known = BUILTIN_OBJECTS | defined.keys()
    before = without_compilation(config)
    _list_code(before, defined, report)
    repaired = repair(before, origin, known)
    report.repairs = repaired.repairs
    numbers = numbers_by_layer(contents, repaired.config, repaired.names)
    report.layers = layer_rows(repaired.config, numbers)
    report.inputs, report.outputs = model_ends(repaired.config)
    _list_objects(repaired.config, defined, report)
    if report.kind in {hdf5.MODEL, ARCHIVE} and (what := too_large(repaired.config, numbers, report.layers)):
        raise LoadError(
            f"Expected a config that fits the file's weights. Received: {what}.",
            mend="Save the model again with model.save and copy the whole file.",
        )
    if programs := [
        entry["class_name"] for entry in entries(before) if entry["class_name"] in PROGRAM_LAYERS
    ]:
        raise LoadError(
            f"Expected layers that compute. Received: a {programs[0]}, which runs a program from elsewhere.",
            mend="Serve that program where it comes from.",
        )
    allowed = beside.config.allow_lambda == f"sha256:{report.sha256}"
    blocking = [row for row in report.code if row.replaced_by is None]
    if stored_code(repaired.config) and blocking and not allowed:
        places = ", ".join(f"'{row.layer}'" for row in blocking)
        need = (
            f"the code in {places} does not run unless you trust this very file: put a function of the layer's name "
            f'into custom_objects.py, or allow_lambda = "sha256:{report.sha256}" into its model.toml.'
        )
        report.needs += (need,)


def _list_code(config: Any, defined: Mapping[str, str], report: Report) -> None:
    """Every object that `stored_code` counts, with what its bytecode holds."""
    rows: list[CodeRow] = []
    for entry in entries(config):
        if not stored_code({**entry, "inbound_nodes": None}):
            continue
        inner, kind = entry["config"], entry["class_name"]
        if kind == "Lambda" and isinstance(inner, dict):
            name = str(inner.get("name"))
            rows.append(CodeRow(name, defined.get(name), summarise(inner.get("function"))))
        elif kind == "__lambda__" and not any(row.code == summarise(entry) for row in rows):
            rows.append(CodeRow("a value of the config", None, summarise(entry)))
    report.code = tuple(rows)


def _list_objects(config: Any, defined: Mapping[str, str], report: Report) -> None:
    refuse_other_files(config)
    known = (BUILTIN_OBJECTS | _replacements()) - _unfit(config)
    needs = missing(config, layers=LAYERS, offered=known, activations=ACTIVATIONS)
    rows: dict[str, ObjectRow] = {}
    for need in needs:
        rows.setdefault(need.name, ObjectRow(need.name, need.layer, defined.get(need.name)))
    report.custom_objects = tuple(rows.values())
    unknown = [row.name for row in rows.values() if row.found_in is None]
    if unknown:
        report.needs += (f"define {', '.join(unknown)} in custom_objects.py beside the model.",)


def _unfit(config: Any) -> frozenset[str]:
    """Names of layers that the service brings, used by a file for others of that name, with other arguments.

    Source: service/loading/building.py (`_fitting`), which tries them.
    """
    brought = _brought()
    return frozenset(
        entry["class_name"]
        for entry in entries(config)
        if isinstance(entry["class_name"], str)
        and isinstance(entry["config"], dict)
        and not entry["config"].keys()
        <= brought.get(entry["class_name"], entry["config"].keys()) | _OF_ANY_LAYER
    )


@cache
def _brought() -> dict[str, frozenset[str]]:
    return {name: taken for path in _BROUGHT for name, taken in arguments(path).items()}


@cache
def _replacements() -> frozenset[str]:
    """The layers that repairs put in place of those that Keras 3 dropped, as configs name them."""
    folder = Path(legacy.__file__).parent
    return frozenset(f"layertap>{name}" for name in definitions(sorted(folder.glob(_REPLACEMENTS))))
