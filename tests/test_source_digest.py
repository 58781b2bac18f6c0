"""The digest of an expert's source: another one after each change, none for what is installed as a copy."""

from __future__ import annotations

import importlib
import sys

import pytest
from PIL import Image

from moai.expert import Expert
from moai.perception.cache.store import Store
from moai.perception.running.perceiver import Perceiver
from moai.source_digest import source_digest

SOURCE = """
import moai

class Probe(moai.Expert):
    name, role, version = "probe", "open_world", "1"

    def perceive(self, images, context):
        return [moai.Perception(detections=(moai.Detection("{label}", 1.0, (0.0, 0.0, 1.0, 1.0)),)) for _ in images]
"""


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Import the expert from a file with a label, as a new process would."""

    def load(label: str, folder: str = "here", module: str = "written_probe"):
        path = tmp_path / folder / f"{module.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SOURCE.format(label=label))
        monkeypatch.syspath_prepend(tmp_path / folder)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        sys.modules.pop(module, None)
        importlib.invalidate_caches()
        return importlib.import_module(module).Probe

    yield load
    for name in [name for name in sys.modules if name.startswith("written_")]:
        del sys.modules[name]


def label_of(expert, store) -> tuple[str, bool]:
    perception = Perceiver([expert()], store=store).perceive([Image.new("RGB", (4, 4))])[0]
    return perception.detections[0].label, perception.sources[0].cached


def test_a_changed_expert_perceives_anew_though_its_version_is_the_same(imported, tmp_path):
    store = Store(tmp_path / "cache")
    first = imported("cat")
    assert label_of(first, store) == ("cat", False) and label_of(first, store) == ("cat", True)
    second = imported("dog")
    assert label_of(second, store) == ("dog", False)
    assert label_of(first, store) == ("cat", True), "what was imported before the change keeps its own entries"
    assert label_of(imported("cat"), store) == ("cat", True)


def test_all_files_of_a_package_count(imported):
    first = imported("cat", module="written_package.probe")
    (imported_file := sys.modules["written_package.probe"].__file__)
    assert first.source == source_digest(first)
    beside = imported_file.replace("probe.py", "decode.py")
    with open(beside, "w") as file:
        file.write("THRESHOLD = 0.5\n")
    assert source_digest(first) != first.source


def test_what_is_installed_as_a_copy_has_none(imported):
    assert imported("cat", folder="lib/site-packages").source == ""
    assert imported("cat").source != ""


def test_a_class_without_a_file_is_digested_by_its_methods():
    def typed(label: str, threshold: float) -> type[Expert]:
        space = {"__name__": "typed_into_a_notebook"}
        exec(SOURCE.format(label=label).replace("1.0, (", f"{threshold}, ("), space)
        return space["Probe"]

    assert typed("cat", 0.5).source == typed("cat", 0.5).source != ""
    assert len({typed("cat", 0.5).source, typed("dog", 0.5).source, typed("cat", 0.6).source}) == 3
