"""A cache of its own, and a folder with four pictures."""

import pytest
import tiny

from moai.data.sources import open_source, open_sources
from moai.recipe.sections import DataSource


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Indexes go to a fresh cache."""
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    """A folder with a picture per colour: ``red.png`` and so on."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for color in tiny.COLORS:
        tiny.picture(color).save(folder / f"{color}.png")
    return folder


@pytest.fixture
def opened():
    """Open one source as a recipe does: ``opened("jsonl", path, ..)``."""

    def open_it(format, path=None, split="train", **keys):
        path = path if path is None or isinstance(path, dict) else str(path)
        return open_source(DataSource(format=format, path=path, **keys), split)

    return open_it


@pytest.fixture
def mixed():
    """Open several sources as a recipe does."""

    def open_them(*sources, split="train", **keys):
        return open_sources([DataSource(**source) for source in sources], split, **keys)

    return open_them
