"""The table of layers in the design, with today's modules: imports point downwards or sideways, never in a circle."""

import ast
import graphlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A package stands for the modules in it that are not named themselves.
LAYERS = {
    0: ["service", "errors"],
    1: ["fields", "model_config", "settings", "startup", "tensors"],
    2: [
        *["device", "cards", "cores"],
        *["telemetry", "reply_counts", "stage_times", "statistics"],
        *["images", "preprocess"],
        *["codecs", "fitting", "json_tensors", "json_lifting", "json_rows", "nested_lists"],
        *["repository", "class_names", "footprints", "layers"],
        *["scheduling", "cache"],
    ],
    3: ["loading", "surgery"],
    4: [
        "engines",
        "runtime",
        "lanes",
        "opening",
        "reopening",
        "served",
        "shelf",
        "workshop",
        "errands",
        "rollout",
        "reloading",
    ],
    5: ["api"],
    6: ["app", "asgi", "direct", "exchange", "decoding", "protocol", "shedding", "waiting", "worker"],
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
    *["loading.custom_objects", "loading.weights", "loading.weight_units", "loading.corrected_add"],
    *["loading.legacy.keras1_layers", "loading.legacy.local_layers", "loading.legacy.merge_layers"],
    *["loading.legacy.tensorflow_layers", "loading.legacy.replacements"],
    *["loading.architectures", "loading.old_defaults"],
    *["loading.fallback", "loading.tf_keras_mirror", "loading.tf_keras_model"],
    *["surgery.cut", "surgery.compute_cost", "surgery.graph", "surgery.layer_listing"],
    *["surgery.seeded_rows", "surgery.subclassed"],
    *["engines.tensorflow", "engines.openvino_conversion", "opening"],
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


@cache
def trees():
    """Module name without `service.` -> its syntax tree."""
    found = {}
    for path in sorted((ROOT / "service").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts).removeprefix("service.")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported(tree):
    """Full names of the modules that a file imports, anywhere in it; `from a import b` gives `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module):
    """The service's modules that a module imports; a package is left out where only modules in it are meant."""
    names = {
        name.removeprefix("service.") for name in imported(trees()[module]) if name.startswith("service")
    }
    names = names & trees().keys() - {module}
    packages_of_others = {name.rpartition(".")[0] or "service" for name in names} & {
        "service",
        "api",
        "loading",
        "scheduling",
        "surgery",
        "tools",
        "loading.legacy",
    }
    return names - packages_of_others


def layer_of(module):
    return LAYER_OF.get(module, LAYER_OF.get(module.partition(".")[0]))


@pytest.mark.parametrize("module", trees())
def test_a_module_has_a_layer_and_imports_nothing_above_it(module):
    assert layer_of(module) is not None, "say in LAYERS where it belongs"
    above = {name for name in own_imports(module) if layer_of(name) > layer_of(module)}
    assert above == set()


def test_the_table_names_no_module_that_is_gone():
    assert {module for module in LAYER_OF if module not in trees()} == set()
    assert {module for module in KNOWS_TENSORFLOW if module not in trees()} == set()


def test_imports_make_no_circle():
    order = list(
        graphlib.TopologicalSorter({module: own_imports(module) for module in trees()}).static_order()
    )
    assert order.index("errors") < order.index("api.native") < order.index("wiring")


@pytest.mark.parametrize("module", sorted(trees().keys() - KNOWS_TENSORFLOW))
def test_other_modules_import_neither_tensorflow_nor_keras(module):
    roots = {name.partition(".")[0] for name in imported(trees()[module])}
    assert not roots & {"tensorflow", "keras", "tf_keras"}


@pytest.mark.parametrize("module", sorted(trees().keys() - KNOWS_TENSORFLOW - {"wiring", "opener"}))
def test_only_the_composition_root_sees_both_sides(module):
    assert (
        own_imports(module) & {"opening", "engines.tensorflow", "loading.loader", "surgery.cut", "device"}
        == set()
    )


def test_the_runtime_sees_the_engines_contract_only():
    seen = set.union(
        *(own_imports(module) for module in ("runtime", "served", "lanes", "workshop", "rollout"))
    )
    assert {name for name in seen if name.startswith("engines")} == {"engines"}


@pytest.mark.parametrize("module", sorted(trees().keys() - {"settings"}))
def test_the_environment_is_read_in_one_module(module):
    touched = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    for node in ast.walk(trees()[module]):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr not in touched
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            assert not {alias.name for alias in node.names} & touched


@pytest.mark.parametrize("module", trees())
def test_modules_are_short_named_for_what_they_own_and_say_it(module):
    tree = trees()[module]
    path = ROOT / "service" / Path(*module.split("."))
    path = next(
        p
        for p in (path.with_suffix(".py"), path / "__init__.py", ROOT / "service/__init__.py")
        if p.is_file()
    )
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    assert not set(module.split(".")) & BANNED_NAMES
    assert ast.get_docstring(tree)


def lines_without_docstring(function):
    described = function.body[0] if ast.get_docstring(function) else None
    lines = function.end_lineno - function.lineno + 1
    return lines - (described.end_lineno - described.lineno + 1 if described else 0)


@pytest.mark.parametrize("module", trees())
def test_functions_are_short(module):
    found = [
        node for node in ast.walk(trees()[module]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert {node.name: size for node in found if (size := lines_without_docstring(node)) > 40} == {}


PROBE = """
import json, os, sys, threading
before = dict(os.environ), sys.path[:], threading.active_count()
import service.app, service.asgi, service.wiring
after = dict(os.environ), sys.path[:], threading.active_count()
heavy = sorted({name.partition(".")[0] for name in sys.modules} & {"tensorflow", "keras", "h5py", "pynvml"})
print(json.dumps({"changed": before != after, "heavy": heavy}))
"""


def test_importing_the_http_side_loads_no_tensorflow_and_changes_nothing():
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"changed": False, "heavy": []}
    assert done.stderr == ""
