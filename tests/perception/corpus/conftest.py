"""The only expert that is installed is ``dots``, and the working folder has pictures for it."""

from __future__ import annotations

import pytest
from dots_probe import draw_all, installed


@pytest.fixture
def probe(tmp_path):
    """``dots`` is installed, here and in processes that are started."""
    with installed(tmp_path / "site"):
        yield


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with ``pictures/``."""
    place = draw_all(tmp_path / "here")
    monkeypatch.chdir(place)
    return place
