from hypothesis import given
from hypothesis import strategies as st

from service.engines.part_sizes import PartSizes


@given(st.sets(st.integers(1, 40)), st.integers(1, 300))
def test_parts_are_prepared_sizes_and_make_up_the_batch(sizes, rows):
    parts = PartSizes(sizes)
    cut = parts.cut(rows)
    assert sum(cut) == rows
    assert set(cut) <= set(parts.sizes)
    assert list(cut) == sorted(cut, reverse=True)


def test_a_prepared_size_is_one_part():
    parts = PartSizes([1, 2, 3, 4, 8])
    assert [parts.cut(rows) for rows in (1, 3, 8)] == [(1,), (3,), (8,)]
    assert [parts.cut(rows) for rows in (7, 13, 27)] == [(4, 3), (8, 4, 1), (8, 8, 8, 3)]


def test_one_is_always_among_them():
    assert PartSizes([4]).sizes == (1, 4)
    assert PartSizes([]).cut(3) == (1, 1, 1)
