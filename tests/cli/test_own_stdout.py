"""Stdout is for results: what a plugin prints goes to stderr, and no character ends a command."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from moai.perception.json_lines import Line

PLUGIN = '''
import os, subprocess, threading
print("import")
os.system("echo shell")
import moai

class Loud(moai.Expert):
    """Print in every way."""

    name, role, version = "loud", "ocr", "1"

    def load(self, device="cpu"):
        print("load")
        os.write(1, b"raw\\n")

    def perceive(self, images, context):
        print("perceive")
        subprocess.run(["echo", "child"])
        thread = threading.Thread(target=print, args=("thread",))
        thread.start()
        thread.join()
        return [moai.Perception(texts=(moai.TextLine("caf\\u00e9 \\ud55c\\uad6d \\U0001f600", 0.9),)) for _ in images]

@moai.hookimpl
def register_experts(register):
    print("register")
    register(Loud)
'''


@pytest.fixture
def moai_command(tmp_path):
    site, about = tmp_path / "site", tmp_path / "site" / "loud_plugin-0.1.dist-info"
    about.mkdir(parents=True)
    (site / "loud_plugin.py").write_text(PLUGIN)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: loud-plugin\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[moai]\nloud = loud_plugin\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "😀.png")
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
        given = {**os.environ, "PYTHONPATH": path, "MOAI_PLUGINS": "loud", "MOAI_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-m", "moai.cli.main", *words]
        return subprocess.run(command, cwd=tmp_path, env={**given, **environment}, capture_output=True, check=False)

    return run


def test_what_plugins_print_goes_to_stderr(moai_command):
    result = moai_command("perceive", "😀.png", "--json")
    assert result.returncode == 0
    [line] = result.stdout.decode().splitlines()
    assert Line.model_validate(json.loads(line)).root.texts[0].source == "loud"
    printed = result.stderr.decode().split()
    assert {"import", "shell", "register", "load", "raw", "perceive", "child", "thread"} <= set(printed)


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("latin-1", marks=pytest.mark.slow)])
def test_characters_that_stdout_cannot_encode_become_escapes(moai_command, encoding):
    result = moai_command("perceive", "😀.png", PYTHONIOENCODING=encoding)
    assert result.returncode == 0 and b"Traceback" not in result.stderr
    assert b"\\ud55c\\uad6d \\U0001f600" in result.stdout
