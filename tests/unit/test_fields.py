from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import SettingsError
from service.fields import build, nearest, setting


@dataclass(frozen=True)
class Nested:
    depth: int = setting(1, "how deep", low=1)


@dataclass(frozen=True)
class Sample:
    count: int = setting(3, "how many", low=1, high=10)
    ratio: float | None = setting(None, "a share", low=0.5)
    on: bool = setting(False, "a switch")
    maybe: bool | None = setting(None, "a switch that may be unset")
    mode: str = setting("a", "a choice", choices=("a", "b"))
    title: str | None = setting(None, "text that may be unset")
    indices: tuple[int, ...] | None = setting(None, "numbers", low=0)
    words: tuple[str, ...] = setting((), "words")
    scales: tuple[float, ...] | None = setting(None, "numbers")
    names: tuple[str, ...] | str = setting((), "words, or a file that holds them")
    versions: Mapping[str, int] | None = setting(None, "names of numbers", low=0)
    nested: Nested = field(default_factory=Nested)


def one(name, value):
    return getattr(build(Sample, {name: value}, "the test"), name)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("count", 5, 5),
        ("count", "5", 5),
        ("ratio", 1, 1.0),
        ("ratio", "0.75", 0.75),
        ("ratio", "", None),
        ("on", True, True),
        ("on", "Yes", True),
        ("on", "OFF", False),
        ("on", "0", False),
        ("maybe", "", None),
        ("maybe", "true", True),
        ("title", "x, y", "x, y"),
        ("title", "", None),
        ("indices", "0, 2", (0, 2)),
        ("indices", "", ()),
        ("indices", [1], (1,)),
        ("indices", 0, (0,)),
        ("words", "pool", ("pool",)),
        ("words", " a ,, b ", ("a", "b")),
        ("words", ["a,b"], ("a,b",)),
        ("scales", 0.5, (0.5,)),
        ("scales", [1, 2.5], (1.0, 2.5)),
        ("names", "classes.txt", "classes.txt"),
        ("names", ["one", "two"], ("one", "two")),
        ("versions", {"stable": 1, "canary": "2"}, {"stable": 1, "canary": 2}),
        ("versions", "", None),
        ("nested", {"depth": 4}, Nested(4)),
    ],
)
def test_values_take_their_fields_type(name, value, wanted):
    got = one(name, value)
    assert got == wanted
    assert type(got) is type(wanted)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("count", 2.0, "a whole number"),
        ("count", True, "a whole number"),
        ("count", "many", "a whole number"),
        ("count", "", "a whole number"),
        ("count", [1], "a whole number"),
        ("count", None, "a whole number"),
        ("ratio", "nan", "a number"),
        ("ratio", float("inf"), "a number"),
        ("ratio", 10**400, "a number"),
        ("ratio", True, "a number"),
        ("on", 1, "true or false"),
        ("on", "maybe", "true or false"),
        ("title", 5, "text"),
        ("words", [1], "text each"),
        ("indices", "0,x", "a whole number each"),
        ("indices", True, "a whole number each"),
        ("versions", 3, "a table (a whole number each)"),
        ("versions", {"stable": 1.5}, "a table (a whole number each)"),
        ("nested", 3, "a table"),
    ],
)
def test_a_wrong_type_is_told_with_what_was_expected(name, value, said):
    with pytest.raises(SettingsError) as caught:
        one(name, value)
    assert f"Expected '{name}' in the test to be " in caught.value.message
    assert said in caught.value.message
    assert f"Received: {value!r}." in caught.value.message


@pytest.mark.parametrize(
    ("name", "value", "span"),
    [
        ("count", 0, "from 1 to 10"),
        ("count", "11", "from 1 to 10"),
        ("ratio", 0.4, "at least 0.5"),
        ("indices", [0, -1], "at least 0"),
        ("versions", {"a": 1, "b": -1}, "at least 0"),
        ("mode", "c", "one of a, b"),
        ("nested", {"depth": 0}, "at least 1"),
    ],
)
def test_ranges_and_choices_are_kept(name, value, span):
    with pytest.raises(SettingsError) as caught:
        one(name, value)
    assert span in caught.value.message


@pytest.mark.parametrize("value", [1, 10])
def test_ranges_include_their_ends(value):
    assert one("count", value) == value


def test_an_unknown_key_names_the_nearest_one_and_its_table():
    with pytest.raises(SettingsError) as caught:
        build(Sample, {"coutn": 1}, "layertap.toml")
    assert caught.value.message == "Unknown setting 'coutn' in layertap.toml. Did you mean 'count'?"
    with pytest.raises(SettingsError) as caught:
        build(Sample, {"nested": {"dept": 1}}, "model.toml")
    assert caught.value.message == "Unknown setting 'dept' in [nested] of model.toml. Did you mean 'depth'?"


def test_nearest_says_nothing_about_a_stranger_or_an_endless_word():
    assert nearest("zzz", ["count"]) == ""
    assert nearest("count" * 10**6, ["count" * 10**6]) == ""
    assert nearest("x", []) == ""


@given(st.integers(1, 10))
def test_text_and_toml_give_the_same_number(value):
    assert one("count", value) == one("count", str(value)) == value


@given(st.floats(0.5, allow_infinity=False))
def test_a_float_survives_its_text(value):
    assert one("ratio", repr(value)) == value
