import os

import pytest

from service.cores import usable_cores

AFFINITY = len(os.sched_getaffinity(0))


def cores_with(tmp_path, limits, membership="0::/\n"):
    """The cores that are usable under cgroup folders with these `cpu.max` files."""
    for folder, limit in limits.items():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "cpu.max").write_text(limit)
    (tmp_path / "membership").write_text(membership)
    return usable_cores(tmp_path, tmp_path / "membership")


def test_without_a_quota_the_affinity_counts(tmp_path):
    assert cores_with(tmp_path, {".": "max 100000\n"}) == AFFINITY
    assert usable_cores(tmp_path / "absent", tmp_path / "absent") == AFFINITY


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("100000 100000\n", 1),
        ("50000 100000\n", 1),  # never 0
        ("199999 100000\n", 1),  # part of a core is no core
        ("100000000 100000\n", AFFINITY),  # more than there are
    ],
)
def test_a_quota_bounds_the_cores(tmp_path, limit, cores):
    assert cores_with(tmp_path, {".": limit}) == cores


def test_the_tightest_quota_above_the_process_counts(tmp_path):
    limits = {"pods": "100000 100000\n", "pods/layertap": "max 100000\n", "other": "1000 100000\n"}

    assert cores_with(tmp_path, limits, "1:name=systemd:/x\n0::/pods/layertap\n") == 1
    assert cores_with(tmp_path, limits, "0::/\n") == AFFINITY


def test_a_cgroup_v1_machine_falls_back_to_the_affinity(tmp_path):
    assert cores_with(tmp_path, {".": "1000 100000\n"}, "1:cpu:/\n") == AFFINITY


def test_an_affinity_mask_bounds_the_cores():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
