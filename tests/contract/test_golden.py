"""Representative requests against the very bytes that answered them when they were last looked at."""

import golden
import pytest

CASES = {f"{path.stem}: {case['name']}": case for path in golden.files() for case in golden.read(path)}


@pytest.mark.parametrize("name", CASES)
def test_the_bytes_are_the_golden_ones(driver, name):
    case = CASES[name]
    got = golden.send(driver, case["request"])
    assert golden.to_bytes(got.pop("body")) == golden.to_bytes(case["reply"]["body"])
    assert got == {key: case["reply"][key] for key in ("status", "content_type")}


def test_each_kind_of_request_has_a_file():
    assert {path.stem for path in golden.files()} == {
        "iris",
        "pairs",
        "image",
        "problems",
        "documents",
        "tfserving",
        "openinference",
    }
