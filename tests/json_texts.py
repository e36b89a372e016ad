"""Owns JSON texts for property tests: numbers in every spelling, what is none, and lists of them, even or not."""

from hypothesis import strategies as st

# As texts, because a parser sees texts: every way to write a number, and what is none.
WHOLE = st.integers(-(2**63), 2**63 - 1).map(str)
HUGE = st.integers(-(2**70), 2**70).map(str)
REAL = st.floats(allow_nan=False, allow_infinity=False).map(repr)
ODD = st.sampled_from(
    [
        *["-0", "-0.0", "0e0", "-0e5", "1E5", "1e+5", "1e-5", "9007199254740993", "9007199254740993.0"],
        *["4.9e-324", "2e-324", "1.7976931348623157e308", "1.7976931348623159e308", "1e309", "1e400"],
        *[
            "0.1000000000000000055511151231257827021181583404541015625",
            "18446744073709551615",
            "1e22",
            "1e23",
        ],
        *[
            "340282356779733661637539395458142568447.9",
            "3.4028236e38",
            "16777217",
            "0.3",
            "123456789012345678901",
        ],
    ]
)
EDGE = st.sampled_from(  # of 64 bits, and of what float64 tells apart
    [
        *["-9223372036854775809", "-9223372036854775808", "9223372036854775807", "9223372036854775808"],
        *["18446744073709551615", "18446744073709551616", "9007199254740993", "9007199254740993.0"],
        *["9007199254740991.0", "1e18", "1.0", "1e3", "7", "-1", "0.5"],
    ]
)
WRONG = st.sampled_from(
    ["01", "+1", "1.", ".5", "1e", "--1", "1 2", "", "true", "null", '"1"', "NaN", "[]", "{}"]
)
SPACE = st.sampled_from(["", " ", "\n", "\r\n\t"])


def nested(leaves, depth):
    """Lists that are often even, and their text."""
    if depth == 0:
        return leaves
    inner = nested(leaves, depth - 1)
    even = st.tuples(inner, st.integers(1, 4)).map(lambda pair: [pair[0]] * pair[1])
    return st.one_of(even, st.lists(inner, max_size=4))


def text_of(value, space=""):
    if isinstance(value, list):
        return f"[{space}{f'{space},'.join(text_of(entry, space) for entry in value)}{space}]"
    return f"{value}{space}"


def texts(leaves):
    return st.builds(text_of, st.integers(1, 4).flatmap(lambda depth: nested(leaves, depth)), SPACE)
