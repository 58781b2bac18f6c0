"""A cache of the test's own, and a tiny pinned wheel that pip finds in a folder instead of an index."""

import hashlib
import zipfile

import pytest

from moai.assets import wheels
from moai.assets.pins import Pin


def write_wheel(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(
            "tiny_asset-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-asset\nVersion: 1.0\nRequires-Dist: a-package-nobody-has\n",
        )
        archive.writestr(
            "tiny_asset-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_asset-1.0.dist-info/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tiny_wheel(monkeypatch, tmp_path, cache):
    """Path of a wheel that is pinned as ``tiny-asset`` and that pip finds offline."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    path = folder / "tiny_asset-1.0-py3-none-any.whl"
    digest = write_wheel(path, {"tiny_asset/data/a.txt": "A", "tiny_asset/data/b.txt": "B"})
    monkeypatch.setitem(wheels.PINS, "tiny-asset", Pin("1.0", digest, "tiny_asset/data", "none"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return path
