import re

import pytest

from service import errors

LINE = re.compile(
    r"^ {4}(?P<bars>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: +(?P<status>\d{3}) (?P<code>\w+))?(?: {2,}.*)?$"
)


def drawn():
    """(name, parent, status, code) for each line of the tree in the module's docstring."""
    path, rows = [], []
    for line in errors.__doc__.splitlines():
        match = LINE.match(line)
        if match is None or line.strip().startswith("Messages"):
            continue
        depth = len(match["bars"]) // 4
        path[depth:] = [match["name"]]
        status = int(match["status"]) if match["status"] else None
        rows.append((match["name"], path[depth - 1] if depth else None, status, match["code"]))
    return rows


def classes():
    return {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.LayertapError)
    }


def test_the_drawn_tree_names_every_class_once():
    assert sorted(row[0] for row in drawn()) == sorted(classes())


@pytest.mark.parametrize(("name", "parent", "status", "code"), drawn())
def test_a_class_is_what_the_tree_says(name, parent, status, code):
    cls = classes()[name]
    assert cls.__bases__ == (classes()[parent] if parent else Exception,)
    if status is not None:
        assert (cls.status, cls.code) == (status, code)
    assert cls.__doc__


def test_every_error_that_crosses_http_has_its_own_code():
    crossing = [row for row in drawn() if row[2] is not None]
    codes = [code for *_, code in crossing]
    assert len(set(codes)) == len(codes)
    titles = {classes()[name].title for name, *_ in crossing}
    assert len(titles) == len(crossing)


def test_setup_errors_do_not_pass_for_requests():
    assert errors.SetupError("x").status == 500
    assert not issubclass(errors.SetupError, (errors.RequestError, errors.ServiceError))


def test_an_error_carries_its_message_and_details():
    error = errors.LayerNotFound("Expected a layer.", suggestions=["pool"])
    assert (str(error), error.message, error.details) == (
        "Expected a layer.",
        "Expected a layer.",
        {"suggestions": ["pool"]},
    )
    assert errors.QueueFull("full", retry_after_s=3).details == {"retry_after_s": 3}
    assert errors.LoadError("broken", mend="Write it again.").mend == "Write it again."
