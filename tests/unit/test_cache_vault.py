"""Entries are whole or not there, private, never believed without their checksum, and bounded together."""

import os
import stat
import subprocess
import sys

import pytest

from service.cache.vault import Vault

PARTS = {"graph.bin": bytes(range(256)) * 40, "empty": b"", "told.json": b'{"a": 1}'}
LARGE = 2**20


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
    assert "its checksum does not match" in caplog.text
    assert not path.exists()
    assert vault.write("key", PARTS)
    assert vault.read("key") is not None


@pytest.mark.parametrize("size", [0, 1, 16, 40, 49, 60, 500, 10_000])
def test_a_file_cut_short_is_worthless(vault, folder, size):
    vault.write("key", PARTS)
    os.truncate(entry_of(folder), size)
    assert vault.read("key") is None
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_folder_that_others_may_write_into_is_not_used(vault, folder, caplog, mode):
    vault.write("key", PARTS)
    folder.chmod(mode)
    caplog.set_level("INFO")
    assert vault.read("key") is None
    assert not vault.write("key", PARTS)
    assert f"mode {mode:o}" in caplog.text


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
