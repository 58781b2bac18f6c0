"""An installation with nothing wrong, as ``moai doctor`` examines it, and what changes it."""

from __future__ import annotations

import importlib.metadata as metadata
import shutil
import sys

from fake_distributions import install

from moai.doctor import plugins, probe

TORCH = {
    "version": "2.14.1+cu130", "threads": 2, "instructions": "AVX2", "cuda_build": "13.0", "mps": False, "notes": [],
    "cuda": [{"index": 0, "name": "Great GPU", "bytes": 80 * 10**9}],
}  # fmt: skip
WELL = [*({"started": name} for name in probe.MODULES), {"torch": TORCH}, *({"imported": n} for n in probe.MODULES)]
SERIES = f"{sys.version_info[0]}.{sys.version_info[1]}"


def again(site, *requires, version="1.0", name="moai-vlm", **more):
    """Write a distribution's metadata anew."""
    for folder in site.glob(f"{name.replace('-', '_')}-*"):
        shutil.rmtree(folder)
    return install(site, name, version, *requires, **more)


def plugin(site, monkeypatch, *requires, name="moai-box"):
    """Install a plugin's metadata; ``known`` holds its experts."""
    install(site, name, "0.3", *requires, hooks="box = moai_box")
    points = list(metadata.distribution(name).entry_points)
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
