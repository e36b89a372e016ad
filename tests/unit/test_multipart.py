from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.multipart import Part, read_parts
from service.errors import BodyTooLarge, InvalidRequest

TYPE = "multipart/form-data; boundary=frontier"


def form(*parts, end=b"--frontier--\r\n"):
    pieces = []
    for disposition, data in parts:
        pieces += [b"--frontier\r\nContent-Disposition: ", disposition.encode(), b"\r\n\r\n", data, b"\r\n"]
    return b"".join(pieces) + end


def refused(body, content_type=TYPE, error=InvalidRequest):
    with pytest.raises(error) as caught:
        read_parts(body, content_type)
    return caught.value.message


@given(st.lists(st.binary(max_size=80).filter(lambda data: b"frontier" not in data), max_size=5))
def test_parts_keep_their_order_and_their_bytes(blobs):
    body = form(*((f'form-data; name="f{i}"; filename="{i}.png"', blob) for i, blob in enumerate(blobs)))
    wanted = [Part(f"f{i}", f"{i}.png", blob) for i, blob in enumerate(blobs)]
    assert read_parts(body, TYPE) == wanted


def test_fields_have_no_file_name():
    body = form(('form-data; name="x"', b"[1, 2]"), ('form-data; name="y"; filename=""', b""))
    assert read_parts(body, TYPE) == [Part("x", None, b"[1, 2]"), Part("y", "", b"")]


def test_names_may_be_missing_quoted_or_utf8():
    body = form(
        ("form-data", b"a"),
        ("form-data; name*=UTF-8''k%C3%A4se", b"b"),
        ('form-data; name="k\u00e4se"', b"c"),
    )
    assert [part.name for part in read_parts(body, TYPE)] == ["", "käse", "käse"]


def test_a_quoted_boundary_and_headers_of_a_part_are_understood():
    body = b"preamble\r\n--a b\r\ncontent-type: image/png\r\nCONTENT-DISPOSITION: form-data; name=f\r\n\r\nx\r\n--a b--\r\nepilogue"
    assert read_parts(body, 'multipart/form-data; charset=utf-8; boundary="a b"') == [Part("f", None, b"x")]


def test_a_boundary_must_be_named():
    assert "boundary" in refused(form(), "multipart/form-data")
    assert "boundary" in refused(form(), "multipart/form-data; boundary=")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form at all",
        b"--frontier",
        b"--frontier\r\n\r\nno disposition\r\n--frontier--\r\n",
        form(('form-data; name="f"', b"x"), end=b""),
        form(('form-data; name="f"', b"x"), end=b"--other--\r\n"),
    ],
)
def test_a_body_that_is_no_form_is_refused(body):
    assert refused(body).startswith("Expected a multipart/form-data body.")


def test_a_form_cut_anywhere_loses_no_part_in_silence():
    body = form(('form-data; name="a"', b"one"), ('form-data; name="b"', b"two"), end=b"--frontier--")
    for end in range(len(body)):
        refused(body[:end])
    assert len(read_parts(body, TYPE)) == 2


def test_too_many_parts_are_refused():
    part = ('form-data; name="f"', b"")
    assert len(read_parts(form(*[part] * 4096), TYPE)) == 4096
    assert "4096" in refused(form(*[part] * 4097), error=BodyTooLarge)


@given(st.data())
def test_a_damaged_form_is_parts_or_a_refusal(data):
    body = bytearray(form(('form-data; name="a"; filename="b"', b"one"), ('form-data; name="c"', b"two")))
    for _ in range(data.draw(st.integers(1, 5))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with suppress(InvalidRequest):
        assert all(isinstance(part.data, bytes) for part in read_parts(bytes(body), TYPE))
