"""What holds for every test: generated cases are the same in every run, so that a green run stays green."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

LONGEST_ID = 80
SERVICES = ("shipped", "administered", "zoo")  # fixtures of tests/e2e that live as long as the run
WITH_SERVICES = ("e2e", "attacks")  # folders whose files start services of their own
SKIPPED = "SKIPPED_TESTS"
"""The variable that names a file: what was skipped, and what it needs, is added to it for the end of `make test`."""

settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.load_profile("fixed")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """Tests that share a service stay in one process, or each process would start it for itself."""
    for item in items:
        if item.path.parent.name in WITH_SERVICES:
            shared = [name for name in SERVICES if name in item.fixturenames]
            item.add_marker(pytest.mark.xdist_group(shared[0] if shared else item.path.stem))


def pytest_make_parametrize_id(val, argname):
    """Long values are named, not spelled out: a packed body holds the second in which it was made, and processes that
    run tests beside each other must agree on what the tests are called.
    """
    return argname if isinstance(val, bytes | str) and len(val) > LONGEST_ID else None


def pytest_terminal_summary(terminalreporter):
    file = os.environ.get(SKIPPED)
    if file and not hasattr(
        terminalreporter.config, "workerinput"
    ):  # pytest-xdist's processes tell the first one
        skipped = [report.longrepr for report in terminalreporter.stats.get("skipped", [])]
        lines = {f"{Path(path).name}: {reason.removeprefix('Skipped: ')}\n" for path, _, reason in skipped}
        with Path(file).open("a") as told:
            told.writelines(sorted(lines))
