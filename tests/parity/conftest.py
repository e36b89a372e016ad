"""What several parity suites write: Python files as operators put them beside their models."""

import textwrap

import pytest


@pytest.fixture
def write(tmp_path):
    """Writes a file, its text dedented, and returns its path."""

    def write_file(text, name="custom_objects.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write_file
