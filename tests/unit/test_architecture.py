"""The table of layers in the design, with today's modules: imports point downwards or sideways, never in a circle."""

import ast
import graphlib
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A package stands for the modules in it that are not named themselves.
LAYERS = {
    0: ["service", "errors"],
    1: [
        "board",
        "fields",
        "log_lines",
        "model_config",
        "settings",
        "startup",
        "syntax",
        "tensors",
        "threads",
    ],
    2: [
        *["device", "cards", "cores", "memory"],
        *["accusations", "peers", "worker_metrics"],
        *["telemetry", "pending", "reply_counts", "stage_times", "statistics"],
        *["images", "picture_structure", "preprocess"],
        *["payloads"],
        *["repository", "class_names", "footprints", "layers"],
        *["scheduling", "cache"],
    ],
    3: ["loading", "surgery"],
    4: ["engines", "serving"],
    5: ["api"],
    6: ["drivers"],
    7: ["wiring", "opener", "greeting", "__main__", "tools"],
}
LAYER_OF = {module: layer for layer, modules in LAYERS.items() for module in modules}
KNOWS_TENSORFLOW = {
    *["device"],
    *[
        "loading.loader",
        "loading.building",
        "loading.builtin_layers",
        "loading.builtin_measures",
        "loading.crf",
    ],
    *["loading.custom_objects", "loading.weights", "loading.weight_units"],
    *["loading.corrected_add", "loading.cpu_kernels"],
    *["loading.legacy.keras1_layers", "loading.legacy.local_layers", "loading.legacy.merge_layers"],
    *["loading.legacy.tensorflow_layers", "loading.legacy.replacements"],
    *["loading.architectures", "loading.old_defaults"],
    *["loading.fallback", "loading.tf_keras_mirror", "loading.tf_keras_model"],
    *["surgery.cut", "surgery.compute_cost", "surgery.graph", "surgery.layer_listing"],
    *["surgery.seeded_rows", "surgery.subclassed"],
    *["engines.tensorflow", "engines.openvino_conversion", "engines.openvino_integers", "serving.opening"],
    *["loading.rehearsal", "tools.compare", "tools.convert", "tools.proof"],
}
BANNED_NAMES = {
    "utils",
    "util",
    "helpers",
    "helper",
    "manager",
    "managers",
    "common",
    "base",
    "misc",
    "handler",
}


@dataclass(frozen=True)
class Source:
    """What is asked of a module's text. Its syntax tree is let go of: hundreds of thousands of objects, which every
    collection of garbage by later tests would go through.

    Args:
        imported: full names, from anywhere in it; `from a import b` gives `a` and `a.b`.
        relative: whether one of its imports is.
        of_os: names that it takes from the module `os`.
        of_ast: names that it takes from the module `ast`.
        described: whether it has a docstring.
        lines: their number.
        functions: name and length of each, without the docstring.
    """

    imported: frozenset
    relative: bool
    of_os: frozenset
    of_ast: frozenset
    described: bool
    lines: int
    functions: tuple


@cache
def sources():
    """Module name without `service.` -> what its file holds."""
    found = {}
    for path in sorted((ROOT / "service").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts).removeprefix("service.")
        found[name] = source_of(path.read_text(encoding="utf-8"))
    return found


def source_of(text):
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return Source(
        imported=frozenset(names).union(*(imported_from(node) for node in froms_in(nodes))),
        relative=any(node.level for node in froms_in(nodes)),
        of_os=taken_from("os", nodes),
        of_ast=taken_from("ast", nodes),
        described=bool(ast.get_docstring(tree)),
        lines=len(text.splitlines()),
        functions=tuple((node.name, lines_without_docstring(node)) for node in functions),
    )


def imported_from(node):
    return {f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)}


def froms_in(nodes):
    return [node for node in nodes if isinstance(node, ast.ImportFrom)]


def taken_from(module, nodes):
    attributes = [
        node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    return frozenset(
        alias.name for node in froms_in(nodes) if node.module == module for alias in node.names
    ) | {node.attr for node in attributes if node.value.id == module}


def lines_without_docstring(function):
    described = function.body[0] if ast.get_docstring(function) else None
    lines = function.end_lineno - function.lineno + 1
    return lines - (described.end_lineno - described.lineno + 1 if described else 0)


def imported(module):
    assert not sources()[module].relative, "imports are absolute"
    return sources()[module].imported


@cache
def own_imports(module):
    """The service's modules that a module imports; a package is left out where only modules in it are meant."""
    names = {name.removeprefix("service.") for name in imported(module) if name.startswith("service")}
    names = names & sources().keys() - {module}
    packages_of_others = {name.rpartition(".")[0] or "service" for name in names} & {
        "service",
        "api",
        "drivers",
        "loading",
        "payloads",
        "scheduling",
        "serving",
        "surgery",
        "tools",
        "loading.legacy",
    }
    return names - packages_of_others


def layer_of(module):
    return LAYER_OF.get(module, LAYER_OF.get(module.partition(".")[0]))


@pytest.mark.parametrize("module", sources())
def test_a_module_has_a_layer_and_imports_nothing_above_it(module):
    assert layer_of(module) is not None, "say in LAYERS where it belongs"
    above = {name for name in own_imports(module) if layer_of(name) > layer_of(module)}
    assert above == set()


def test_the_table_names_no_module_that_is_gone():
    assert {module for module in LAYER_OF if module not in sources()} == set()
    assert {module for module in KNOWS_TENSORFLOW if module not in sources()} == set()


def test_imports_make_no_circle():
    order = list(
        graphlib.TopologicalSorter({module: own_imports(module) for module in sources()}).static_order()
    )
    assert order.index("errors") < order.index("api.native") < order.index("wiring")


@pytest.mark.parametrize("module", sorted(sources().keys() - KNOWS_TENSORFLOW))
def test_other_modules_import_neither_tensorflow_nor_keras(module):
    roots = {name.partition(".")[0] for name in imported(module)}
    assert not roots & {"tensorflow", "keras", "tf_keras"}


@pytest.mark.parametrize("module", sorted(sources().keys() - KNOWS_TENSORFLOW - {"wiring", "opener"}))
def test_only_the_composition_root_sees_both_sides(module):
    assert (
        own_imports(module)
        & {"serving.opening", "engines.tensorflow", "loading.loader", "surgery.cut", "device"}
        == set()
    )


def test_the_runtime_sees_the_engines_contract_only():
    seen = set.union(
        *(own_imports(f"serving.{name}") for name in ("runtime", "served", "lanes", "workshop", "rollout"))
    )
    assert {name for name in seen if name.startswith("engines")} == {"engines"}


@pytest.mark.parametrize("module", sorted(sources().keys() - {"settings"}))
def test_the_environment_is_read_in_one_module(module):
    touched = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    assert not sources()[module].of_os & touched


@pytest.mark.parametrize("module", sorted(sources().keys() - {"syntax"}))
def test_syntax_trees_are_built_in_one_module(module):
    assert not sources()[module].of_ast & {"parse", "literal_eval"}


@pytest.mark.parametrize("module", sources())
def test_modules_are_short_named_for_what_they_own_and_say_it(module):
    assert sources()[module].lines <= 400
    assert not set(module.split(".")) & BANNED_NAMES
    assert sources()[module].described


@pytest.mark.parametrize("module", sources())
def test_functions_are_short(module):
    assert {name: size for name, size in sources()[module].functions if size > 40} == {}


PROBE = """
import json, os, sys, threading
before = dict(os.environ), sys.path[:], threading.active_count()
import service.drivers.app, service.drivers.asgi, service.wiring
after = dict(os.environ), sys.path[:], threading.active_count()
heavy = sorted({name.partition(".")[0] for name in sys.modules} & {"tensorflow", "keras", "h5py", "pynvml"})
print(json.dumps({"changed": before != after, "heavy": heavy}))
"""


def test_importing_the_http_side_loads_no_tensorflow_and_changes_nothing():
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"changed": False, "heavy": []}
    assert done.stderr == ""
