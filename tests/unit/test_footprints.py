"""Footprints: the same while nothing changes, another one for whatever a model is made from."""

import os

import pytest

from service.footprints import entry_footprint, version_footprint
from service.repository import scan


@pytest.fixture
def models(tmp_path):
    for path in (
        "custom_objects.py",
        "iris.h5",
        "iris.classes.txt",
        "other.h5",
        "m/1/model.h5",
        "m/2/model.h5",
    ):
        put(tmp_path, path)
    put(tmp_path, "m/model.toml", 'classes = ["a", "b"]')
    return tmp_path


def put(folder, path, text="first"):
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def footprints(models):
    """Entry and version -> footprint; version 0 is the whole entry."""
    found = {}
    for entry in scan(models):
        found[entry.name, 0] = entry_footprint(entry)
        for version in entry.versions:
            found[entry.name, version.number] = version_footprint(entry, version)
    return found


def changed(models, change):
    before = footprints(models)
    change()
    after = footprints(models)
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def test_nothing_changes_by_looking(models):
    assert changed(models, lambda: None) == set()


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("iris.h5", "longer than before", {("iris", 0), ("iris", 1)}),
        ("iris.classes.txt", "setosa", {("iris", 0), ("iris", 1)}),
        ("m/2/model.h5", "longer than before", {("m", 0), ("m", 2)}),
        ("m/2/golden.npz", "new", {("m", 0), ("m", 2)}),
        ("m/3/model.h5", "new", {("m", 0), ("m", 3)}),
        ("m/model.toml", "", {("m", 0)}),
        ("m/builder.py", "new", {("m", 0), ("m", 1), ("m", 2)}),
        (
            "custom_objects.py",
            "longer than before",
            {(n, v) for n in ("iris", "other", "m") for v in (0, 1)} | {("m", 2)},
        ),
        ("README.md", "new", set()),
        ("irises.h5.part", "new", set()),
    ],
)
def test_what_a_version_is_made_from_changes_its_footprint_and_no_other(models, path, text, expected):
    assert changed(models, lambda: put(models, path, text)) == expected


def test_a_file_of_the_same_size_and_date_differs_once_it_was_replaced(models):
    def replace():
        stat = (models / "iris.h5").stat()
        put(models, "fresh", "other")
        os.utime(models / "fresh", ns=(stat.st_atime_ns, stat.st_mtime_ns))
        (models / "fresh").replace(models / "iris.h5")

    assert changed(models, replace) == {("iris", 0), ("iris", 1)}


def test_a_file_that_is_gone_is_no_error(models):
    entries = scan(models)
    (models / "iris.h5").unlink()
    [entry] = [entry for entry in entries if entry.name == "iris"]
    before = entry_footprint(entry)
    assert str(models / "iris.h5") not in {path for path, *_ in before}
