"""A cache of its own, the tiny data set and expert, and no picture: drawing one takes longer than a training."""

import pytest


@pytest.fixture(autouse=True)
def tiny_world(tmp_path, monkeypatch):
    """Perceptions go to a fresh cache; the tiny plugin is registered."""
    import tiny

    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "cache"))
    tiny.register()


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """Training draws no curves; a test that looks at them calls ``draw_curves`` itself."""
    monkeypatch.setattr("moai.training.run.draw_curves", lambda run_dir: run_dir / "curves.png")
