"""What a set of weights is called in the cache key."""

from __future__ import annotations

import os

import pytest

from moai.assets import known_hashes
from moai.assets.pins import PINS
from moai.errors import AssetError
from moai.perception.running.weights import identify


@pytest.fixture(autouse=True)
def hashed(monkeypatch, tmp_path):
    """A fresh cache folder; the files that were hashed, by name."""
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(known_hashes, "SMALL", 0)  # these files are a few bytes long, and were just written
    monkeypatch.setattr(known_hashes, "SETTLED", -1)
    names, real = [], known_hashes.sha256_file
    monkeypatch.setattr(known_hashes, "sha256_file", lambda path: names.append(path.name) or real(path))
    return names


def test_a_pinned_wheel_is_its_hash():
    assert identify("wheel:easy-vqa") == identify("wheel:easy-vqa/inside.bin") == PINS["easy-vqa"].sha256
    with pytest.raises(AssetError, match="did you mean 'easy-vqa'"):
        identify("wheel:easy-vqo")


def test_a_hub_id_is_its_name_and_revision():
    assert identify("owner/name") == "owner/name@main" and identify("owner/name", "abc") == "owner/name@abc"


def test_a_file_is_its_content_hashed_once(tmp_path, hashed):
    file = tmp_path / "a.pth"
    file.write_bytes(b"one")
    first = identify(file)
    assert identify(str(file)) == first and len(first) == 64 and hashed == ["a.pth"]
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert identify(file) != first and hashed == ["a.pth"] * 2


def test_a_folder_is_its_names_and_contents(tmp_path, hashed):
    folder = tmp_path / "weights"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.pth").write_bytes(b"one")
    first = identify(folder)
    assert identify(folder) == first and hashed == ["a.pth"]
    (folder / "deep" / "a.pth").rename(folder / "deep" / "b.pth")
    assert identify(folder) != first


def test_half_a_note_or_none_costs_a_hash_and_no_error(tmp_path, hashed, monkeypatch):
    file = tmp_path / "a.pth"
    file.write_bytes(b"one")
    first = identify(file)
    [note] = (tmp_path / "cache" / "hashes").iterdir()
    note.write_text("{")
    assert identify(file) == first and len(hashed) == 2
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "taken"))
    assert identify(file) == first and len(hashed) == 3
