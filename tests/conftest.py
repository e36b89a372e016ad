"""What holds for every test: generated cases are the same in every run, so that a green run stays green."""

from hypothesis import settings

LONGEST_ID = 80

settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.load_profile("fixed")


def pytest_make_parametrize_id(val, argname):
    """Long values are named, not spelled out: a packed body holds the second in which it was made, and processes that
    run tests beside each other must agree on what the tests are called.
    """
    return argname if isinstance(val, bytes | str) and len(val) > LONGEST_ID else None
