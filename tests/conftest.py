"""What holds for every test: generated cases are the same in every run, so that a green run stays green."""

import os
from pathlib import Path

from hypothesis import settings

LONGEST_ID = 80
SKIPPED = "SKIPPED_TESTS"
"""The variable that names a file: what was skipped, and what it needs, is added to it for the end of `make test`."""

settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.load_profile("fixed")


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
