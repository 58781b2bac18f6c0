"""A plugin that lives outside the repository adds a role of its own, and everything else follows without an edit.

The package is written into a temporary folder, built and installed with pip, and found by its entry point: it brings
an expert in the new role "barcode", the words for it, and a data set; a tiny model is trained on it and answers.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import textwrap

import pytest
import tiny

import moai
from moai import plugins
from moai.training.log import read_log
from moai.training.trainer import train
from moai.types import Source

PYPROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "moai-barcode"
version = "0.7"
dependencies = ["moai-vlm"]

[project.entry-points.moai]
barcode = "moai_barcode"

[tool.setuptools]
py-modules = ["moai_barcode"]
"""
MODULE = '''
"""Eight black or white bars, read from left to right as ones and zeros."""

import io

import moai
import numpy as np
from PIL import Image

BARS = 8


class Barcode(moai.Expert):
    """The bars of a picture."""

    name, role, version = "bars", "barcode", "1"

    def perceive(self, images, context):
        return [self.to_perception(np.asarray(image.convert("L").resize((BARS, 1), Image.BOX))[0]) for image in images]

    def to_perception(self, levels):
        bits = "".join("1" if level < 128 else "0" for level in levels)
        return moai.Perception(notes={self.role: (bits,)} if "1" in bits else {})


def draw(bits):
    bars = np.array([[0 if bit == "1" else 255 for bit in bits]], np.uint8)
    return Image.fromarray(bars).resize((64, 64), Image.NEAREST).convert("RGB")


def samples(split, limit=None):
    made = []
    for number in range(1, 9):
        file = io.BytesIO()
        draw(f"{number:08b}").save(file, "PNG")
        answer = (f"{split}-{number}", file.getvalue(), str(number), "Which number?", str(number), "number")
        made.append(moai.Sample.from_question(*answer))
    return made[:limit]


@moai.hookimpl
def register_experts(register):
    register(Barcode)


@moai.hookimpl
def register_templates(register):
    def in_english(perception):
        codes = perception.notes.get("barcode", ())
        return f"The image includes a barcode: {', '.join(codes)}." if codes else ""

    register("barcode", "en", in_english)


@moai.hookimpl
def register_datasets(register):
    register("barcodes", samples)
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that pip installed the plugin into, from its source folder, without a network."""
    if int(importlib.metadata.version("setuptools").partition(".")[0]) < 77:
        pytest.skip("pip builds the plugin with setuptools 77 or newer; pip install -U setuptools")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "moai_barcode.py").write_text(textwrap.dedent(MODULE).lstrip())
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture
def installed(site, tmp_path, monkeypatch):
    """The plugin is installed: its folder is on the import path, and the registry of this process is read anew."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "cache"))
    tiny.draw_nothing(monkeypatch)
    plugins.registry.cache_clear()
    yield plugins.registry()
    plugins.registry.cache_clear()
    sys.modules.pop("moai_barcode", None)
    tiny.register()  # other tests count on it once it was done


def test_it_is_found_by_its_entry_point(installed):
    assert importlib.metadata.version("moai-barcode") == "0.7"
    assert installed.origins["bars"] == "moai-barcode 0.7" and "barcodes" in installed.datasets
    assert [problem for problem in installed.problems if problem.plugin == "barcode"] == []


def test_its_expert_keeps_the_contract(installed):
    moai.check_expert(installed.get_expert("bars"))


def test_the_new_role_is_perceived_and_put_into_its_own_words(installed):
    import moai_barcode

    [seen, empty] = moai.Perceiver(["bars"]).perceive([moai_barcode.draw("10010110"), moai_barcode.draw("0" * 8)])
    assert seen.notes == {"barcode": ("10010110",)} and seen.sources == (Source("bars", "barcode", "1"),)
    assert moai.verbalize(seen) == "The image includes a barcode: 10010110."
    assert moai.verbalize(empty) == "" and empty.failures == ()


def test_the_shell_knows_it(installed, run_cli, tmp_path):
    import moai_barcode

    moai_barcode.draw("10010110").save(tmp_path / "code.png")
    shown = run_cli("perceive", tmp_path / "code.png", "--experts", "bars").stdout
    assert "in words: The image includes a barcode: 10010110." in shown
    assert "bars 1 (barcode), from moai-barcode 0.7" in run_cli("experts", "bars").stdout


def test_a_model_is_trained_on_it_and_answers_with_it(installed, tmp_path):
    import moai_barcode

    recipe = tiny.recipe(
        perception={"experts": ["bars"]},
        data=tiny.data("barcodes", 2),
        training={"monitor_every": 2},
        stages=[tiny.stage("modules", 1, routing="random_module"), tiny.stage("gates", 1, continues=True)],
    )
    run = train(recipe, tmp_path / "run")
    assert [line["step"] for line in read_log(run)] == [1, 2]
    augmented = moai.load(run, device="cpu")
    answer = augmented.ask(moai_barcode.draw("00000110"), "Which number?")
    assert answer.verbalized == "The image includes a barcode: 00000110." and answer.failures == ()
    assert isinstance(answer.text, str) and [source.role for source in answer.perception.sources] == ["barcode"]
