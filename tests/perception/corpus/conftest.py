"""The only expert that is installed is ``dots``, and a working folder with pictures."""

from __future__ import annotations

import sys

import pytest
from dots_probe import CODE, draw
from fake_distributions import install

from moai import plugins


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """The expert ``dots`` is the only one that is installed, here and in processes that are started."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "moai_dots_probe.py").write_text(CODE)
    install(site, "moai-dots-probe", "1.0", hooks="dots = moai_dots_probe")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("MOAI_PLUGINS", "dots")
    plugins.registry.cache_clear()
    yield site
    plugins.registry.cache_clear()
    sys.modules.pop("moai_dots_probe", None)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with ``pictures/``: 70 pictures whose red is their number, and two that are damaged."""
    place = tmp_path / "here"
    for number in range(70):
        draw(place / "pictures" / f"{number % 2}" / f"{number:02d}.png", number)
    (place / "pictures" / "0" / "10.png").write_bytes(b"no picture")
    (place / "pictures" / "1" / "11.png").write_bytes(b"")
    monkeypatch.chdir(place)
    return place
