"""The README is true: its length, its index, its commands, its drawing, its Python, its expert, its data and recipe."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys

import numpy as np
import pytest
import tiny
from click.testing import CliRunner
from pages import ROOT, Page, Reader
from PIL import Image

import moai
from moai.cli.main import cli
from moai.plugins import load_registry, registry
from moai.recipe.loading import load_recipe
from moai.training.trainer import train

README = Page("README.md")
EXPERT, RECIPE = "moai_qr", "photos.yaml"


def test_it_is_short_and_has_what_the_tests_read():
    assert len(README.text.splitlines()) <= 160
    assert README.scripts and {"sh", "text", "python", "yaml"} <= {block.language for block in README.blocks}
    assert re.findall(r"\{\{\w+\}\}", README.text) == []  # a figure that was to be filled in


def test_its_index_names_every_page():
    named = set(re.findall(r"\]\((docs/[^)#]+\.md)\)", README.section("Documentation")))
    assert named == {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")}


def test_the_drawing_names_files_that_exist():
    named = set(re.findall(r"\w+\.py", README.section("The method")))
    assert len(named) > 5 and named <= {path.name for path in (ROOT / "moai").rglob("*.py")}


def test_its_results_are_those_of_the_pages_with_results():
    pages = (ROOT / "docs" / "results.md", ROOT / "docs" / "photographs.md")
    results = "".join(page.read_text(encoding="utf-8") for page in pages)
    figures = re.findall(r"\d+\.\d", README.section("Results"))
    assert len(figures) >= 6 and all(figure in results for figure in figures)


def test_it_cites_the_paper():
    [citation] = [block.text for block in README.blocks if block.language == "bibtex"]
    assert "2403.07508" in citation and citation.count("{") == citation.count("}")


# --- Python ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tiny trained run as ``runs/quickstart``, and the README's plugins on the import path."""
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOAI_CACHE", str(folder / "cache"))
        (folder / f"{EXPERT}.py").write_text(README.file(f"{EXPERT}.py"))
        patch.syspath_prepend(folder)
        tiny.register()
        tiny.draw_nothing(patch)
        run = train(tiny.recipe(), folder / "runs" / "quickstart")
        tiny.picture("red").save(run / "picture.png")
        yield folder
    sys.modules.pop(EXPERT, None)


def test_the_python_runs(folder):
    reader = Reader(README, folder)
    for number in range(len(README.scripts)):
        reader.check(number)
    assert isinstance(reader.names["answer"].text, str) and reader.names["answer"].failures == ()


def test_the_expert_registers_and_reads_a_code(folder):
    import cv2

    known = load_registry(plugins=[importlib.import_module(EXPERT)])
    assert [problem for problem in known.problems if problem.plugin == EXPERT] == []
    pixels = np.full((240, 320), 255, np.uint8)
    code = np.kron(cv2.QRCodeEncoder.create().encode("table 7"), np.ones((5, 5), np.uint8))
    pixels[20 : 20 + len(code), 30 : 30 + len(code)] = code
    [perception] = moai.Perceiver(["qr"], registry=known).perceive([Image.fromarray(pixels).convert("RGB")])
    assert perception.failures == ()
    [line] = perception.texts
    assert line.text == "table 7"
    assert np.allclose(line.polygon[0], (40 / 320, 30 / 240), atol=0.02)
    assert moai.verbalize(perception, registry=known) == "The image includes text descriptions: table 7."


def test_the_expert_keeps_the_contract(folder):
    moai.check_expert(importlib.import_module(EXPERT).QR)


def test_a_folder_of_pictures_and_the_recipe_train_and_answer(folder, monkeypatch):
    """Its commands, with tiny parts in place of the recipe's host, encoder and experts, and four steps."""
    photos = folder / "photos"
    photos.mkdir()
    [row] = [json.loads(block.text) for block in README.blocks if block.language == "json"]
    rows = []
    for number in range(40):
        color = tiny.COLORS[number % 4]
        tiny.picture(color).save(photos / f"{number}.png")
        rows.append({**row, "image": f"{number}.png", "answer": color})
    (photos / "photos.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / RECIPE).write_text(README.file(RECIPE))
    monkeypatch.chdir(folder)
    assert set(load_recipe(RECIPE).perception.experts) <= set(registry().experts)
    assets = tiny.assets()
    overrides = [
        f"host.reference={assets / 'host'}", "host.dtype=float32", "vision.architecture=test_efficientnet",
        f"vision.reference={assets / 'vision.safetensors'}", "vision.image_size=64", "perception.experts=[shapes]",
        "mixer.layers=[1]", "mixer.heads=2", "stages.modules.steps=2", "stages.gates.steps=1", "training.batch_size=2",
        "evaluation.max_new_tokens=2",
    ]  # fmt: skip
    tiny.picture("red").save(photos / "garden.jpg")
    commands = [line for line in README.lines if "photos" in line]
    assert len(commands) == 3
    for line in commands:
        words = shlex.split(line)[1:]
        outcome = CliRunner().invoke(cli, words + (overrides if RECIPE in words else []))
        assert outcome.exit_code == 0, outcome.output
    assert (folder / "runs" / "photos" / "moai.safetensors").is_file() and outcome.stdout.strip()
