"""Remembered hashes: recalled while nothing changed, never across a change."""

import json
import os

import pytest

from moai.assets import known_hashes
from moai.assets.hashes import sha256_file
from moai.assets.known_hashes import known_sha256
from moai.errors import CheckpointError


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file that is worth remembering and has long been at rest, and the list of what is hashed."""
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(known_hashes, "SETTLED", -1)
    hashed = []
    monkeypatch.setattr(known_hashes, "sha256_file", lambda path: (hashed.append(path), sha256_file(path))[1])
    path = tmp_path / "weights.safetensors"
    path.write_bytes(bytes(known_hashes.SMALL))
    return path, hashed


def test_a_second_look_hashes_nothing(large):
    path, hashed = large
    assert known_sha256(path) == known_sha256(path) == known_sha256(str(path)) == sha256_file(path)
    assert len(hashed) == 1


def test_a_change_of_the_same_size_with_its_old_time_is_seen(large):
    """Setting the modification time back does not set back the inode's own time of change."""
    path, _ = large
    before, info = known_sha256(path), path.stat()
    with open(path, "r+b") as file:
        file.write(b"\x01")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert path.stat().st_mtime_ns == info.st_mtime_ns and path.stat().st_size == info.st_size
    assert known_sha256(path) == sha256_file(path) != before


def test_another_file_in_its_place_is_seen(large, tmp_path):
    path, _ = large
    before = known_sha256(path)
    (tmp_path / "other").write_bytes(b"\x01" * known_hashes.SMALL)
    (tmp_path / "other").replace(path)
    assert known_sha256(path) == sha256_file(path) != before


def test_a_file_that_just_changed_is_not_remembered(large, monkeypatch):
    path, hashed = large
    monkeypatch.setattr(known_hashes, "SETTLED", 60.0)
    assert known_sha256(path) == known_sha256(path)
    assert len(hashed) == 2


def test_a_clock_of_whole_seconds_takes_longer_to_settle(large):
    path, hashed = large
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert known_sha256(path) == known_sha256(path)
    assert len(hashed) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": 1}', '{"sha256": "x", "state": []}'])
def test_a_damaged_note_is_computed_anew(large, tmp_path, text):
    path, hashed = large
    expected = known_sha256(path)
    [note] = (tmp_path / "cache" / "hashes").glob("*.json")
    note.write_text(text)
    assert known_sha256(path) == expected and len(hashed) == 2
    assert json.loads(note.read_text())["sha256"] == expected


def test_a_cache_that_cannot_be_written_costs_only_time(large, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    path, hashed = large
    assert known_sha256(path) == known_sha256(path) and len(hashed) == 2


def test_a_small_file_leaves_no_note(large, tmp_path):
    path, _ = large
    path.write_bytes(b"small")
    assert known_sha256(path) == sha256_file(path)
    assert not (tmp_path / "cache").exists()


def test_a_missing_file_is_named(large):
    with pytest.raises(CheckpointError, match="cannot read .*missing"):
        known_sha256(large[0].with_name("missing"))
