"""Content codings: what other programs pack is unpacked, what is packed they unpack, and nothing grows past a limit."""

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.compression import choose, pack, unpack
from service.errors import BodyTooLarge, InvalidRequest, UnsupportedMedia

TEXT = b"the same words again and again, " * 200
PACKED = {"gzip": gzip.compress(TEXT), "deflate": zlib.compress(TEXT)}
UNPACK = {"gzip": gzip.decompress, "deflate": zlib.decompress}


@pytest.mark.parametrize("coding", PACKED)
@pytest.mark.parametrize("spelt", [str, str.upper, " {} ".format])
def test_what_others_pack_is_unpacked(coding, spelt):
    assert unpack(PACKED[coding], spelt(coding), len(TEXT)) == TEXT


def test_old_names_and_no_coding_at_all():
    assert unpack(PACKED["gzip"], "x-gzip", len(TEXT)) == TEXT
    assert unpack(TEXT, "", 1) is TEXT
    assert unpack(TEXT, "identity", 1) is TEXT


@pytest.mark.parametrize(
    "coding", ["br", "zstd", "gzip, gzip", "gzip, identity", "compress", "x-br", "x-deflate"]
)
def test_other_codings_are_refused(coding):
    with pytest.raises(UnsupportedMedia, match="gzip or deflate"):
        unpack(b"x", coding, 10)


@pytest.mark.parametrize("coding", PACKED)
def test_damaged_bodies_are_refused(coding):
    packed = PACKED[coding]
    others = PACKED["deflate" if coding == "gzip" else "gzip"]
    for body in (
        packed[:-1],
        packed[: len(packed) // 2],
        TEXT,
        packed + b"x",
        packed[:-8] + bytes(8),
        others,
        packed + packed,
        b"",
    ):
        with pytest.raises(InvalidRequest, match=f"whole body in {coding}"):
            unpack(body, coding, 10 * len(TEXT))


@pytest.mark.parametrize("coding", PACKED)
def test_the_limit_holds_to_the_byte(coding):
    assert len(unpack(PACKED[coding], coding, len(TEXT))) == len(TEXT)
    with pytest.raises(BodyTooLarge, match=str(len(TEXT) - 1)):
        unpack(PACKED[coding], coding, len(TEXT) - 1)


@pytest.mark.parametrize("coding", PACKED)
def test_a_bomb_takes_no_more_memory_than_the_limit(coding):
    zeros = bytes(64 * 2**20)
    bomb = gzip.compress(zeros) if coding == "gzip" else zlib.compress(zeros)
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            unpack(bomb, coding, 100_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@given(st.binary(max_size=4000), st.sampled_from(sorted(PACKED)))
def test_what_is_packed_others_unpack(data, coding):
    packed = pack(data * 4, coding)
    if packed is not None:
        assert len(packed) < len(data) * 4
        assert UNPACK[coding](packed) == data * 4


@pytest.mark.parametrize("coding", PACKED)
def test_only_what_gets_smaller_is_packed(coding):
    assert pack(b"a" * 1023, coding) is None  # it fits one packet as it is
    assert UNPACK[coding](pack(b"a" * 1024, coding)) == b"a" * 1024
    assert pack(noise(), coding) is None


def noise():
    """2 KiB that no coding makes smaller."""
    state, out = 1, bytearray()
    for _ in range(2048):
        state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        out.append(state >> 56)
    return bytes(out)


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("", ""),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate", "gzip"),
        ("deflate, gzip", "gzip"),
        ("br, Deflate", "deflate"),
        ("gzip;q=0.5, deflate", "deflate"),
        ("gzip; q=0, deflate;q=0.0", ""),
        ("gzip;q=nan", ""),
        ("gzip;q=-1", ""),
        ("gzip;q=x", ""),
        ("identity, *;q=0", ""),
        ("gzipped", ""),
    ],
)
def test_the_coding_that_a_client_likes_best(header, coding):
    assert choose(header) == coding
