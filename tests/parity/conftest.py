"""What several parity suites need: Python files as operators put them beside their models, and a quick first look."""

import textwrap

import pytest

from service.loading import loader
from service.loading.quarantine import read_all


@pytest.fixture
def write(tmp_path):
    """Writes a file, its text dedented, and returns its path."""

    def write_file(text, name="custom_objects.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write_file


@pytest.fixture
def looked_through_here(monkeypatch):
    """Files get their first look in this process, not each in a child of its own, which takes a quarter of a second.

    For suites that load hundreds of intact files; `test_hostile_files` and `test_quarantine` test the child.
    """
    monkeypatch.setattr(loader, "first_look", read_all)
