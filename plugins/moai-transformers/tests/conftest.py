"""Folders with tiny engines, made once, and a cache of its own for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="the engines of this plugin run on transformers")

import tiny_engines  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    """``engine("owlv2")`` is the path of that tiny engine."""
    made: dict[str, Path] = {}

    def get(name: str) -> str:
        if name not in made:
            made[name] = getattr(tiny_engines, name)(tmp_path_factory.mktemp(name))
        return str(made[name])

    return get


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "cache"))
