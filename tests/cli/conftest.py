"""Stand-ins for what the commands call: experts without weights, a registry of them, a model that parrots."""

from __future__ import annotations

import importlib
import json
import sys
import types
from types import SimpleNamespace

import pytest
from fake_distributions import install
from fake_installation import SERIES, WELL
from pydantic import Field

import moai
import moai.perception.running.perceiver
import moai.perception.running.settings
import moai.plugins
from moai import dependencies
from moai.data.formats.dataset import dataset
from moai.doctor import environment, imports, plugins
from moai.expert import Expert, Options
from moai.plugins import PluginProblem, Registry
from moai.recipe.sections import Data
from moai.types import Conversation, Perception, Sample, Segment, TextLine


class Spots(Expert):
    """Finds one red spot.

    A second paragraph that no table needs.
    """

    name = "spots"
    role = "panoptic"
    version = "3"
    licence = "Apache-2.0"
    calls = 0

    class Options(Options):
        least: float = Field(0.5, ge=0, le=1, description="score below which a spot is dropped")
        names: tuple[str, ...] = ("spot",)

    def perceive(self, images, context):
        Spots.calls += len(images)
        seen = Perception(segments=(Segment("spot", self.options.least, (0.25, 0.25, 0.75, 0.75)),))
        return [seen for _ in images]


class Reader(Expert):
    """Reads a hostile line."""

    name = "reader"
    role = "ocr"
    version = "1"

    def perceive(self, images, context):
        return [Perception(texts=(TextLine("[bold]EXIT[/bold] \x1b[31mred", 0.9, ((0.1, 0.2), (0.3, 0.4))),))] * len(
            images
        )


class Broken(Expert):
    """Raises."""

    name = "broken"
    role = "scene_graph"
    version = "1"

    def perceive(self, images, context):
        raise RuntimeError("no battery")


class Absent(Expert):
    """Is not installed."""

    name = "absent"
    role = "open_world"
    version = "1"
    modules = ("no_such_module_of_ours",)
    install = "pip install absent"

    def perceive(self, images, context):
        raise AssertionError("never called")


@pytest.fixture
def known(monkeypatch, tmp_path):
    """The process-wide registry holds the four experts above; the asset cache is empty."""
    from moai.perception.words.english import TEMPLATES

    experts = {kind.name: kind for kind in (Spots, Reader, Broken, Absent)}
    origins = {name: "moai-tests 9.9" for name in experts}
    made = Registry(experts=experts, origins=origins, templates=dict(TEMPLATES))
    made.datasets["toy"] = toy
    made.formats["dataset"] = dataset
    for module, names in (
        (moai.plugins, ("registry", "load_registry")),
        (moai.perception.running.settings, ("process_registry",)),
        (importlib.import_module("moai.perception.words.verbalize"), ("process_registry",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, lambda: made)
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "cache"))
    Spots.calls = 0
    return made


@pytest.fixture
def problem(known):
    """A plugin that did not load."""
    known.problems.append(PluginProblem("moai-bad", "cannot be imported: ImportError: no"))


def toy(split, **options):
    """Six questions about three images; nothing for the split ``empty``, and two without an image for ``text``."""
    import io

    from PIL import Image

    if split == "text":
        return [Sample.from_question(f"t{n}", None, f"s{n}", "how many?", "two", truth=Perception()) for n in range(2)]
    samples = []
    for index in range(0 if split == "empty" else 6):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (40 * (index // 2), 0, 0)).save(file, "PNG")
        kind, answer = ("yes/no", "yes") if index % 2 == 0 else ("color", "red")
        samples.append(
            Sample.from_question(f"q{index}", file.getvalue(), f"i{index // 2}", f"question {index}?", answer, kind)
        )
    return samples


class Model:
    """Answers ``red`` to all questions when it is given a perception, ``yes`` otherwise."""

    def __init__(self, perceiver):
        self.perceiver = perceiver
        self.processor = SimpleNamespace(expert_options={}, time_limit=7.0)
        self.asked = []

    def answer(self, conversations, perceptions, max_new_tokens=8):
        return ["yes" if perception is None else "red" for [perception] in perceptions]

    def ask(self, image, question, max_new_tokens=16):
        return self.chat(Conversation.ask(question, (image,)), max_new_tokens)

    def chat(self, conversation, max_new_tokens=16):
        from moai.images import read_image

        self.asked.append((conversation.question, max_new_tokens))
        [perception] = self.perceiver.perceive([read_image(image) for image in conversation.images])
        return SimpleNamespace(
            text="red\x1b[0m", perception=perception, verbalized="a spot", failures=perception.failures
        )


@pytest.fixture
def model(known, monkeypatch):
    """``moai.answering.load`` returns this; its experts are ``spots`` and ``broken``."""
    made = Model(moai.perception.running.perceiver.Perceiver(["spots", "broken"], options={"spots": {"least": 0.75}}))
    fake = types.ModuleType("moai.answering")
    fake.load = lambda run: made
    monkeypatch.setitem(sys.modules, "moai.answering", fake)
    return made


class Recipe(SimpleNamespace):
    """As much of a recipe as the commands touch."""

    text = "name: toy\n"

    def to_yaml(self):
        return self.text


@pytest.fixture
def recipe(monkeypatch, tmp_path):
    """``load_recipe`` returns this; the working directory is empty."""
    made = Recipe(
        name="toy",
        host=SimpleNamespace(reference="host", revision=None),
        vision=SimpleNamespace(kind="encoder", reference="vision", revision=None),
        seed=0,
        data=Data(sources=[{"format": "dataset", "name": "toy"}]),
        perception=SimpleNamespace(
            experts=("spots", "reader"),
            options={"spots": {"least": 0.75}},
            shards=None,
            time_limit=60.0,
            language="en",
            style="paper",
            merge=False,
            say_nothing_found=False,
        ),
        evaluation=SimpleNamespace(
            limit=4, split="test", conditions=("on", "off", "shuffled"), batch_size=32, max_new_tokens=8
        ),
    )
    made.asked = []

    def load_recipe(path, overrides=()):
        made.asked.append((str(path), tuple(overrides)))
        return made

    monkeypatch.setattr("moai.recipe.loading.load_recipe", load_recipe)
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def trained(monkeypatch):
    """``moai.training.trainer.train`` writes the two files that a finished run has, and notes its calls here."""
    calls = []

    def train(recipe, run_dir, *, resume=False):
        calls.append((recipe.name, str(run_dir), resume))
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "recipe.yaml").write_text(recipe.to_yaml())
        (run_dir / "manifest.json").write_text("{}")
        return run_dir

    fake = types.ModuleType("moai.training.trainer")
    fake.train = train
    monkeypatch.setitem(sys.modules, "moai.training.trainer", fake)
    return calls


@pytest.fixture
def site(tmp_path, monkeypatch, known):
    """An installation with nothing wrong: moai needs torch>=2.6 only, and no plugin is installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    install(folder, "torch", "2.14.1")
    install(folder, "moai-vlm", moai.__version__, "torch>=2.6,<3", "extra-box>=1; extra == 'more'", extras=("more",))
    (tmp_path / "tested.json").write_text(json.dumps({"versions": {SERIES: {"torch": "2.14.1"}}}))
    monkeypatch.setattr(dependencies, "files", lambda package: tmp_path)
    monkeypatch.setattr(environment, "OTHER", "no-other-moai")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])
    monkeypatch.setattr(imports, "_run_probe", lambda: ([json.dumps(line) for line in WELL], "exit code 0"))
    return folder


@pytest.fixture
def diagnose(site, run_cli):
    """``diagnose()``: the report as JSON, after checking that the exit code agrees with it."""

    def run():
        result = run_cli("doctor", "--json")
        report = json.loads(result.stdout)
        errors = [finding for finding in report["findings"] if finding["level"] == "error"]
        assert report["ok"] is not bool(errors) and result.exit_code == bool(errors), result.output
        return report

    return run
