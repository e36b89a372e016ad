"""Owns whether a folder or a file is this user's alone, as far as owner, kind and rights tell.

A group may write where it is nobody's but this user's: Kubernetes gives a volume and all in it to the group that
`fsGroup` names, with mode 2770, and most systems give each user a group of that name. A group that others may be in is
known by its name, so one that has a name must have this user's.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path


def check_folder(descriptor: int, path: Path) -> None:
    """Raises PermissionError where another user owns an open folder or may write into it; `path` names it."""
    status = os.fstat(descriptor)
    if _is_of_others(status):
        raise PermissionError(
            f"Expected {path} to be this user's own, and nobody else to write there. Received: {_told(status)}."
        )


def check_file(descriptor: int) -> int:
    """The size of an open file in bytes.

    Raises:
        ValueError: it is no plain file, has a second name, or another user owns it or may write to it.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no plain file")
    if status.st_nlink > 1:
        raise ValueError("it has a second name, under which it can be changed")
    if _is_of_others(status):
        raise ValueError(f"others may have written it ({_told(status)})")
    return status.st_size


def _is_of_others(status: os.stat_result) -> bool:
    if status.st_uid != os.geteuid() or status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_own_group(status.st_gid)


def _is_own_group(number: int) -> bool:
    if number != os.getegid() and number not in os.getgroups():
        return False
    try:
        group = grp.getgrgid(number)
    except KeyError:
        return True
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return group.gr_name == user and set(group.gr_mem) <= {user}


def _told(status: os.stat_result) -> str:
    return f"user {status.st_uid}, group {status.st_gid}, mode {stat.S_IMODE(status.st_mode):o}"
