"""Entries are whole or not there, private, never believed without their checksum, and bounded together."""

import grp
import hashlib
import json
import os
import stat
import struct
import subprocess
import sys

import pytest

from service.cache.vault import Vault

PARTS = {"graph.bin": bytes(range(256)) * 40, "empty": b"", "told.json": b'{"a": 1}'}
LARGE = 2**20
PATIENCE_S = 60.0
SOMEBODY = 20_001  # a user and a group that no system names
NAMED = next((group.gr_gid for group in grp.getgrall() if group.gr_gid != os.getegid()), SOMEBODY)
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root, who alone may give files away: sudo make test"
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "models"


@pytest.fixture
def vault(folder):
    return Vault(folder, LARGE)


def entry_of(folder):
    [path] = folder.glob("*.entry")
    return path


def test_what_was_written_is_read(vault):
    assert vault.write("key", PARTS)
    assert {name: bytes(part) for name, part in vault.read("key").items()} == PARTS
    assert vault.read("other") is None


def test_a_folder_is_made_when_asked_whether_it_can_be_written_to(vault, folder):
    assert vault.is_writable()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_nothing_was_ever_written(vault, caplog):
    assert vault.read("key") is None
    assert caplog.messages == []


def test_a_later_entry_takes_the_place_of_an_earlier_one(vault, folder):
    vault.write("key", PARTS)
    vault.write("key", {"only": b"this"})
    assert {name: bytes(part) for name, part in vault.read("key").items()} == {"only": b"this"}
    assert len(list(folder.iterdir())) == 1


def test_folder_and_files_are_for_this_user_only(vault, folder):
    old = os.umask(0)
    try:
        vault.write("key", PARTS)
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(entry_of(folder).stat().st_mode) == 0o600


@pytest.mark.parametrize("place", [0, 3, 17, 30, 50, 60, 100, 5000, -1])
def test_one_changed_bit_anywhere_makes_an_entry_worthless(vault, folder, caplog, place):
    vault.write("key", PARTS)
    path = entry_of(folder)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert vault.read("key") is None
    assert "a cache entry is of no use and is made again" in caplog.text
    assert not path.exists()
    assert vault.write("key", PARTS)
    assert vault.read("key") is not None


@pytest.mark.parametrize("size", [0, 1, 16, 40, 49, 60, 500, 10_000])
def test_a_file_cut_short_is_worthless(vault, folder, size):
    vault.write("key", PARTS)
    os.truncate(entry_of(folder), size)
    assert vault.read("key") is None
    assert list(folder.iterdir()) == []


# -- rights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o702, 0o777, 0o2772])
def test_a_folder_that_others_may_write_into_is_not_used(vault, folder, caplog, mode):
    vault.write("key", PARTS)
    folder.chmod(mode)
    caplog.set_level("INFO")
    assert vault.read("key") is None
    assert not vault.write("key", PARTS)
    assert f"mode {mode:o}" in caplog.text


@needs_root
def test_a_folder_of_another_user_is_not_used(vault, folder, caplog):
    vault.write("key", PARTS)
    os.chown(folder, SOMEBODY, -1)
    caplog.set_level("INFO")
    assert vault.read("key") is None
    assert not vault.is_writable()
    assert not vault.write("key", PARTS)
    assert f"user {SOMEBODY}" in caplog.text


@needs_root
@pytest.mark.parametrize(
    ("group", "ours", "found"),
    [(SOMEBODY, [SOMEBODY], "a part"), (SOMEBODY, [], "nothing"), (NAMED, [NAMED], "nothing")],
    ids=["its group is ours", "its group is not ours", "others may be in its group"],
)
def test_a_volume_of_kubernetes_is_used_where_its_group_is_ours_alone(vault, folder, group, ours, found):
    vault.write("key", PARTS)
    for path, mode in ((folder, 0o2770), (entry_of(folder), 0o660)):  # as the kubelet does with fsGroup
        os.chown(path, -1, group)
        path.chmod(mode)
    assert read_apart(folder, extra_groups=ours) == found


@pytest.mark.parametrize("mode", [0o602, 0o666])
def test_a_file_that_others_may_have_written_is_worthless(vault, folder, caplog, mode):
    vault.write("key", PARTS)
    entry_of(folder).chmod(mode)
    assert vault.read("key") is None
    assert "others may have written it" in caplog.text
    assert not (folder / "key.entry").exists()


@needs_root
def test_a_file_of_another_user_is_worthless(vault, folder, caplog):
    vault.write("key", PARTS)
    os.chown(entry_of(folder), SOMEBODY, -1)
    assert vault.read("key") is None
    assert f"user {SOMEBODY}" in caplog.text


# -- links and pipes --------------------------------------------------------------------------------------


def test_a_link_is_not_followed(vault, folder, tmp_path):
    elsewhere = Vault(tmp_path / "elsewhere", LARGE)
    elsewhere.write("key", PARTS)
    folder.parent.mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    assert vault.read("key") is None
    assert not vault.write("key", PARTS)


def test_a_link_in_the_place_of_an_entry_is_not_followed(vault, folder, tmp_path):
    vault.write("key", PARTS)
    entry_of(folder).rename(tmp_path / "elsewhere")
    (folder / "key.entry").symlink_to(tmp_path / "elsewhere")
    assert vault.read("key") is None


def test_an_entry_with_a_second_name_is_worthless(vault, folder, tmp_path, caplog):
    vault.write("key", PARTS)
    os.link(entry_of(folder), tmp_path / "elsewhere")
    assert vault.read("key") is None
    assert "a second name" in caplog.text
    assert vault.write("key", PARTS)
    assert vault.read("key") is not None


def test_a_pipe_holds_nobody_up(vault, folder):
    vault.write("other", PARTS)
    os.mkfifo(folder / "key.entry")
    assert read_apart(folder) == "nothing"


def test_a_folder_in_the_place_of_an_entry_is_none(vault, folder):
    vault.write("other", PARTS)
    (folder / "key.entry").mkdir()
    assert vault.read("key") is None
    assert not vault.write("key", PARTS)
    assert vault.read("other") is not None


# -- size and forgery -------------------------------------------------------------------------------------

READ = """
import resource, sys
from pathlib import Path
from service.cache.vault import Vault
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))  # bytes; what is in a file of 8 GB does not fit
found = Vault(Path(sys.argv[1]), 2**40).read("key")
print("nothing" if found is None else "a part")
"""


def read_apart(folder, **options):
    """What a process of its own reads: nothing may hold it up for long, or take much memory."""
    command = [sys.executable, "-c", READ, str(folder)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE_S, **options
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    "content", [b"", b"layertap-entry-2\n", None], ids=["empty", "a beginning", "an entry"]
)
def test_of_a_file_of_8_gb_no_more_is_read_than_was_written(vault, folder, content):
    vault.write("key", PARTS)
    if content is not None:
        entry_of(folder).write_bytes(content)
    os.truncate(entry_of(folder), 8 * 2**30)  # all holes: it takes no room
    assert read_apart(folder) == "nothing"


def test_what_is_larger_than_all_may_be_is_not_read(vault, folder, caplog):
    vault.write("key", PARTS)
    assert Vault(folder, 1000).read("key") is None
    assert "more than max_cache_bytes" in caplog.text


def forged(index):
    head = struct.pack("<Q", len(index)) + index
    return b"layertap-entry-2\n" + hashlib.sha256(head).digest() + head


@pytest.mark.parametrize(
    "index",
    [
        b"no JSON",
        b"[" * 100_000,
        b"[]",
        b"{}",
        json.dumps({"parts": 1, "sha256": ""}).encode(),
        json.dumps({"parts": [["a", "b"]], "sha256": ""}).encode(),
        json.dumps({"parts": [["a", -1], ["b", 1]], "sha256": hashlib.sha256().hexdigest()}).encode(),
        json.dumps({"parts": [["a", 10**30]], "sha256": ""}).encode(),
        json.dumps({"parts": [["a", 8 * 2**30]], "sha256": ""}).encode(),
        json.dumps({"parts": [], "sha256": "0" * 64}).encode(),
    ],
    ids=lambda index: index[:40].decode(),
)
def test_a_forged_head_is_worthless_though_its_checksum_fits(vault, folder, index):
    vault.write("key", PARTS)
    entry_of(folder).write_bytes(forged(index))
    assert vault.read("key") is None
    assert list(folder.iterdir()) == []


def test_a_head_that_is_longer_than_any_is_not_read(vault, folder):
    vault.write("key", PARTS)
    entry_of(folder).write_bytes(b"layertap-entry-2\n" + bytes(32) + b"\xff" * 8)
    assert vault.read("key") is None


# -- room -------------------------------------------------------------------------------------------------


def test_a_place_that_cannot_be_written_to_is_told_and_harms_nothing(tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    vault = Vault(tmp_path / "file" / "models", LARGE)
    caplog.set_level("INFO")
    assert not vault.is_writable()
    assert "nothing is kept for the next start" in caplog.text
    assert not vault.write("key", PARTS)
    assert vault.read("key") is None


def test_the_least_recently_used_goes_first(folder):
    vault = Vault(folder, 3500)
    for age, key in enumerate(("oldest", "older", "old")):
        vault.write(key, {"part": bytes(1000)})
        os.utime(folder / f"{key}.entry", (1000 + age, 1000 + age))
    assert vault.read("oldest") is not None  # which makes it the newest
    vault.write("new", {"part": bytes(1000)})
    kept = {path.stem for path in folder.iterdir()}
    assert kept == {"oldest", "old", "new"}


def test_an_entry_that_is_larger_than_all_may_be_is_not_kept(folder, caplog):
    caplog.set_level("INFO")
    assert not Vault(folder, 999).write("key", {"part": bytes(1000)})
    assert "max_cache_bytes" in caplog.text
    assert not folder.exists()


WRITE_AND_DIE = """
import os, sys
from pathlib import Path
from service.cache import vault
vault.os.replace = lambda *_, **__: os._exit(9)
vault.Vault(Path(sys.argv[1]), 2**20).write("key", {"part": bytes(1000)})
"""


def test_what_a_crash_left_unfinished_is_no_entry_and_goes(vault, folder):
    done = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(folder)], check=False)
    assert done.returncode == 9
    assert [path.suffix for path in folder.iterdir()] == [".part"]
    assert vault.read("key") is None
    vault.write("other", PARTS)
    assert [path.name for path in folder.iterdir()] == ["other.entry"]
