"""Whole numbers of 64 bits through every dialect and every way of reading JSON: the same numbers, or an error, never rounded."""

import json
from dataclasses import dataclass

import pytest
from bodies import FORM, form
from drivers import open_site

LONG = (
    24_000  # bytes; from 16 KiB on rows keyed by name leave the text before it is parsed, lists from 4 KiB on
)


@pytest.fixture(scope="module")
def site():
    with open_site("signed", "unsigned") as site:
        yield site


@dataclass(frozen=True)
class Way:
    """How rows are written, and where they are sent.

    Args:
        path: with a place for the model, `{}`.
        text: of the body, with a place for the rows, `ROWS`.
        named: each row is an object with the member `x`.
        flat: all numbers stand in one list.
        content_type: of the body.
    """

    path: str
    text: str
    named: bool = False
    flat: bool = False
    content_type: str = "application/json"

    def body(self, model, rows):
        lists = [f"[{', '.join(row)}]" for row in rows]
        if self.named:
            lists = [f'{{"x": {row}}}' for row in lists]
        if self.flat:
            lists = [number for row in rows for number in row]
        text = self.text.replace("ROWS", f"[{', '.join(lists)}]")
        text = text.replace("COUNT", str(len(rows)))
        text = text.replace("DATATYPE", {"signed": "INT64", "unsigned": "UINT64"}[model])
        return form(("x", None, text.encode())) if self.content_type == FORM else text.encode()


NATIVE, V1, V2 = "/predict", "/v1/models/{}:predict", "/v2/models/{}/infer"
V2_TEXT = '{"inputs": [{"name": "x", "shape": [COUNT, 2], "datatype": "DATATYPE", "data": ROWS}]%s}'
WAYS = {
    "native rows": Way(NATIVE, '{"instances": ROWS}'),
    "native rows by name": Way(NATIVE, '{"instances": ROWS}', named=True),
    "native columns": Way(NATIVE, '{"inputs": ROWS}'),
    "native columns by name": Way(NATIVE, '{"inputs": {"x": ROWS}}'),
    "native form": Way(NATIVE, "ROWS", content_type=FORM),
    "V1 rows": Way(V1, '{"instances": ROWS}'),
    "V1 rows by name": Way(V1, '{"instances": ROWS}', named=True),
    "V1 rows beside NaN": Way(V1, '{"instances": ROWS, "more": NaN}'),
    "V1 columns": Way(V1, '{"inputs": ROWS}'),
    "V1 columns by name": Way(V1, '{"inputs": {"x": ROWS}}'),
    "V2 nested": Way(V2, V2_TEXT % ""),
    "V2 flat": Way(V2, V2_TEXT % "", flat=True),
    "V2 flat beside NaN": Way(V2, V2_TEXT % ', "parameters": {"more": NaN}', flat=True),
}
EXACT = [
    ("signed", ["-9223372036854775808", "9223372036854775807"]),
    ("signed", ["-9223372036854775807", "1.0"]),
    ("signed", ["9007199254740993", "-9007199254740993"]),
    ("signed", ["9007199254740993", "1e3"]),
    ("signed", ["9007199254740991.0", "-0.0"]),
    ("unsigned", ["18446744073709551615", "1"]),
    ("unsigned", ["18446744073709551615", "18446744073709551614"]),
    ("unsigned", ["9223372036854775808", "0"]),
    ("unsigned", ["9223372036854775809", "2.0"]),
    ("unsigned", ["9007199254740993", "1e3"]),
]
REFUSED = [
    ("signed", ["9223372036854775808", "1"], "9223372036854775808"),
    ("signed", ["18446744073709551615", "-1"], "18446744073709551615"),
    ("signed", ["-9223372036854775809", "1"], "-9.223372036854776e+18"),
    ("signed", ["9007199254740993.0", "1"], "9007199254740992.0"),
    ("signed", ["-9007199254740992.0", "1"], "-9007199254740992.0"),
    ("signed", ["1e18", "1"], "1e+18"),
    ("signed", ["9007199254740993", "0.5"], "0.5"),
    ("unsigned", ["18446744073709551616", "1"], "1.8446744073709552e+19"),
    ("unsigned", ["18446744073709551615", "-1"], "-1"),
    ("unsigned", ["9007199254740993", "-1"], "-1"),
    ("unsigned", ["123456789012345678901234567890", "1"], "1.2345678901234568e+29"),
]


def ask(driver, way, model, rows):
    body = way.body(model, rows)
    query = f"model={model}" if way.path == NATIVE else ""
    return driver.send("POST", way.path.format(model), query, {"Content-Type": way.content_type}, body)


def rows_for(row, *, long):
    """The row alone, or behind many others of small numbers."""
    return [["7", "11"]] * (LONG // len("[7, 11], ")) + [row] if long else [row]


def numbers_of(answer):
    """The rows of a reply, each number of the type that it was written as."""
    assert answer.status == 200, answer.body
    document = json.loads(answer.body)
    if "model_name" in document:
        flat = document["outputs"][0]["data"]
        return [flat[place : place + 2] for place in range(0, len(flat), 2)]
    return document.get("predictions", document.get("outputs"))


@pytest.mark.parametrize("long", [False, True], ids=["short", "long"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("model", "row"), EXACT, ids=str)
def test_whole_numbers_arrive_and_return_with_all_digits(driver, model, row, way, long):
    rows = rows_for(row, long=long)
    got = numbers_of(ask(driver, WAYS[way], model, rows))
    assert len(got) == len(rows)
    wanted = [int(text) if text.lstrip("-").isdigit() else int(float(text)) for text in row]
    assert got[0] == (wanted if not long else [7, 11])
    assert got[-1] == wanted
    assert {type(number) for number in got[-1]} == {int}


@pytest.mark.parametrize("long", [False, True], ids=["short", "long"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_cannot_be_told_exactly_is_refused_with_the_reason(driver, case, way, long):
    model, row, told = case
    answer = ask(driver, WAYS[way], model, rows_for(row, long=long))
    assert answer.status == 400, answer.body
    text = json.dumps(json.loads(answer.body))
    assert "to hold whole numbers from" in text
    assert told in text
    in_range = told in ("9007199254740992.0", "-9007199254740992.0", "1e+18", "-9.223372036854776e+18")
    assert ("without a point or an exponent" in text) == in_range
