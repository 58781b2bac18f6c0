"""A tiny checkpoint in OpenPSG's format, made once, and a cache of its own for every test."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers", reason="PSGTR is built from transformers' DETR")

import torch  # noqa: E402
from published_psgtr import checkpoint, seeded  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def published():
    return seeded()


@pytest.fixture(scope="session")
def weights(published, tmp_path_factory):
    path = tmp_path_factory.mktemp("psgtr") / "epoch_60.pth"
    torch.save(checkpoint(published), path)
    return str(path)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "cache"))
