"""Ultralytics may compute and nothing else: no download, nothing sent, and the process is left as it was."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from moai.errors import AssetError

plugin = pytest.importorskip("moai_ultralytics", reason="not installed: pip install -e plugins/moai-ultralytics")
needs_ultralytics = pytest.mark.skipif(
    bool(plugin.YOLOE.missing()), reason="Ultralytics is not installed: pip install -e plugins/moai-ultralytics"
)


@needs_ultralytics
def test_it_cannot_download():
    from moai_ultralytics.containment import contained

    with pytest.raises(AssetError, match="wants to download"), contained(1):
        from ultralytics.utils.downloads import attempt_download_asset

        attempt_download_asset("yolov8s-worldv2.pt")


# In a process of its own: whether Ultralytics was imported before is a part of the question.
PROBE = """
import logging, os, socket, sys, threading, urllib.request, warnings
sys.modules["pytest"] = None  # Ultralytics sends nothing where it sees pytest
import cv2, numpy, PIL.Image, torch, moai
import torch.distributed.nn  # Ultralytics needs it, and torch 2.9 adds a folder of its own to the path for it
from moai.types import Perception

def refuse(*args, **kwargs):
    raise AssertionError("network")
socket.socket.connect = socket.create_connection = urllib.request.urlopen = refuse

def state():
    return {
        "environment": dict(os.environ), "path": list(sys.path), "torch threads": torch.get_num_threads(),
        "cv2 threads": cv2.getNumThreads(), "torch.save": torch.save, "Image.open": PIL.Image.open,
        "torch printing": str(torch._tensor_str.PRINT_OPTS), "numpy printing": numpy.get_printoptions(),
        "random": torch.get_rng_state().sum().item(), "numpy random": numpy.random.get_state()[1].tolist(),
        "hooks": (sys.excepthook, threading.excepthook), "root log": list(logging.root.handlers),
        "filters": list(warnings.filters), "safe": set(torch.serialization.get_safe_globals()),
        "folder": sorted(os.listdir(".")), "gradients": torch.is_grad_enabled(),
    }

if sys.argv[2] == "imported":
    import ultralytics
from moai_ultralytics import YOLOE
before = state()
expert = YOLOE(weights=sys.argv[1], image_size=64, min_score=0.0)
expert.load()
[seen] = expert.perceive([PIL.Image.new("RGB", (64, 48), "red")], [Perception()])
assert seen.detections
expert.unload()
after = state()
print([name for name in before if before[name] != after[name]])
if sys.argv[2] != "imported":
    import ultralytics
    from ultralytics.utils.events import events
    print(ultralytics.settings["sync"], events.enabled, ultralytics.settings.file)
"""


@needs_ultralytics
@pytest.mark.slow
@pytest.mark.parametrize("when", ["imported", "new"])
def test_the_process_is_left_as_it_was_and_nothing_is_sent(weights, tmp_path, when):
    kept = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV")  # whatever else is set might hide a change
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "MOAI_CACHE": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }
    (tmp_path / "here").mkdir()
    command = [sys.executable, "-c", PROBE, weights["yoloe"], when]
    run = subprocess.run(command, env=environment, cwd=tmp_path / "here", capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    if when == "new":
        assert lines[0] == "[]"
        assert lines[1].startswith(f"False False {tmp_path / 'cache'}")
    else:
        assert lines[-1] == "[]"  # Ultralytics greets its new user before
    assert run.stderr == ""
