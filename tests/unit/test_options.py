from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.options import FEATURES_ONLY, SHARED, Options, parse_accept, parse_options
from service.errors import InvalidParameter, NotAcceptable
from service.payloads.codecs import JSON, NPY, NPZ


def features(query):
    return parse_options(query, features=True)


def refused(query, *, on_features=True):
    with pytest.raises(InvalidParameter) as caught:
        parse_options(query, features=on_features)
    assert len(caught.value.message) < 500
    return caught.value.message


def test_an_empty_query_asks_for_nothing():
    assert features(b"") == Options()
    assert parse_options(b"", features=False) == Options(predictions=True)


def test_every_option_is_read():
    query = b"model=m&version=3&layer=a&layer=b%2Fc&top=5&pool=avg&normalize=l2&dtype=float16&include=predictions&timeout_ms=250"
    assert features(query) == Options(
        model="m",
        version=3,
        layers=("a", "b/c"),
        top=5,
        pool="avg",
        normalize="l2",
        dtype="float16",
        predictions=True,
        timeout_s=0.25,
    )


def test_values_are_percent_decoded_once():
    assert features(b"layer=a%2Bb+c&layer=%25d&layer=%C3%A9&layer=").layers == ("a+b c", "%d", "é", "")
    assert features(b"layer=100%").layers == ("100%",)


@pytest.mark.parametrize("name", FEATURES_ONLY)
def test_predict_takes_no_option_of_features(name):
    said = refused(f"{name}=x".encode(), on_features=False)
    assert f"Expected query parameters out of {', '.join(SHARED)}. Received: '{name}'." in said


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (b"layr=a", "Received: 'layr'. Did you mean 'layer'?"),
        (b"Model=a", "Received: 'Model'. Did you mean 'model'?"),
        (b"x" * 10**5 + b"=1", "Expected query parameters out of"),
        (b"model=a&model=b", "Expected 'model' once. Received: 2 times."),
        (b"pool=sum", "Expected 'pool' to be avg or max. Received: 'sum'."),
        (b"pool=", "Expected 'pool' to be avg or max. Received: ''."),
        (b"normalize=l1", "Expected 'normalize' to be l2."),
        (b"dtype=int8", "Expected 'dtype' to be float16 or float32."),
        (b"include=layers", "Expected 'include' to be predictions."),
        (b"top=0", "Expected 'top' to be a whole number from 1"),
        (b"top=-1", "Received: '-1'."),
        (b"top=1.5", "Received: '1.5'."),
        (b"top=%D9%A3", "whole number"),
        (b"top=1_0", "whole number"),
        (b"top=" + b"9" * 5000, "whole number"),
        (b"top=10000000000", "whole number"),
        (b"timeout_ms=0", "Expected 'timeout_ms' to be a whole number from 1"),
        (b"timeout_ms=", "whole number"),
        (b"version=latest", "Expected 'version' to be a whole number from 0"),
        (b"layer", "name=value"),
        (b"&", "name=value"),
        (b"layer=%FF", "percent-encoded UTF-8"),
        (b"layer=\xff", "percent-encoded UTF-8"),
        (b"layer=a&" * 256 + b"layer=a", "at most 256"),
    ],
)
def test_what_is_wrong_is_told(query, said):
    assert said in refused(query)


def test_versions_may_be_points_in_time_or_zero():
    assert features(b"version=1700000000").version == 1_700_000_000
    assert features(b"version=20240131235959").version == 20_240_131_235_959
    assert features(b"version=0").version == 0


def test_a_long_query_is_read_like_a_short_one():
    names = [f"layer_{number}" for number in range(200)]
    query = "&".join(f"layer={name}" for name in names).encode()
    assert features(query).layers == tuple(names)
    with pytest.raises(InvalidParameter):
        parse_options(query, features=False)


@given(st.binary(max_size=40))
def test_any_query_gives_options_or_a_refusal(query):
    with suppress(InvalidParameter):
        assert isinstance(features(query), Options)


# -- Accept -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "formats"),
    [
        ("", (JSON,)),
        ("  ", (JSON,)),
        ("application/json", (JSON,)),
        ("APPLICATION/X-NPY", (NPY,)),
        ("*/*", (JSON, NPY, NPZ)),
        ("application/*", (JSON, NPY, NPZ)),
        ("text/html, */*;q=0.8", (JSON, NPY, NPZ)),
        ("application/x-npy, application/json", (NPY, JSON)),
        ("application/json, application/x-npy", (JSON, NPY)),
        ("application/json;q=0.5, application/x-npz", (NPZ, JSON)),
        (
            "application/x-npy;q=0.1,application/x-npz ; q=0.2 , application/json; charset=utf-8 ;Q=0.3",
            (JSON, NPZ, NPY),
        ),
        ("application/x-npy, */*;q=0.1", (NPY, JSON, NPZ)),
        ("*/*, application/json;q=0", (NPY, NPZ)),
        ("application/json;q=0, application/*", (NPY, NPZ)),
        ("application/*;q=0, */*, application/x-npy", (NPY,)),
        ("application/x-npy;q=0.001", (NPY,)),
        ("application/x-npy;q=nonsense, application/json;q=0.1", (JSON,)),
        ("application/x-npy;q=nan, application/json;q=-1, application/x-npz", (NPZ,)),
        ("text/html,,application/json,", (JSON,)),
    ],
)
def test_the_best_format_comes_first(accept, formats):
    assert parse_accept(accept) == formats


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "image/*",
        "application/json;q=0",
        "*/*;q=0",
        "nonsense",
        ";;;",
        ",",
        "application/xml, text/*",
        "x" * 10**5,
    ],
)
def test_an_impossible_accept_is_refused(accept):
    with pytest.raises(NotAcceptable) as caught:
        parse_accept(accept)
    assert "application/json, application/x-npy or application/x-npz" in caught.value.message
    assert len(caught.value.message) < 400


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_any_accept_header_gives_formats_or_a_refusal(accept):
    with suppress(NotAcceptable):
        assert set(parse_accept(accept)) <= {JSON, NPY, NPZ}
