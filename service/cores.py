"""Owns how many CPU cores this process may use: what is left of the machine in a container or a cpuset."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores(cgroups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """How many cores this process may keep busy, at least 1: its affinity and its cgroup's CPU quota.

    A quota of 1.5 cores counts as 1: with two busy threads the kernel would halt both in every period. The
    quota is read from `cpu.max` of the process's cgroup and of every one above it (cgroup v2; a v1 quota is
    not seen).

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, "cpu.max".
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_quota(folder / "cpu.max") for folder in own_cgroups(cgroups, membership)]
    return max(1, int(min([cores, *(quota for quota in quotas if quota is not None)])))


def own_cgroups(cgroups: Path, membership: Path) -> list[Path]:
    """The folders of this process's cgroup and of every one above it, in cgroup v2; none elsewhere."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        hierarchy, _, path = line.split(":", 2)
        if hierarchy == "0":  # the unified hierarchy of cgroup v2
            own = Path(path.lstrip("/"))
            return [cgroups / folder for folder in (own, *own.parents)]
    return []


def _quota(file: Path) -> float | None:
    try:
        quota, period = file.read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)
