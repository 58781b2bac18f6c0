"""Every format of docs/data.md reads the page's own sample, and every format of moai has one."""

from __future__ import annotations

import json
import sys

import pytest
import tiny
import yaml
from pages import Page

from moai.data.sources import open_source
from moai.plugins import load_registry, registry
from moai.recipe.sections import Data, DataSource

PAGE = Page("docs/data.md")
FORMATS = [line[4:-1] for line in PAGE.text.splitlines() if line.startswith("## `")]


def blocks(format: str, language: str) -> list[str]:
    section = PAGE.section(f"`{format}`")
    return [block.text for block in PAGE.blocks if block.language == language and block.text in section]


def test_every_format_has_a_section():
    assert set(FORMATS) == set(load_registry(plugins=()).formats)


@pytest.mark.parametrize("format", FORMATS)
def test_the_sample_file_is_read(format, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [settings] = [DataSource(**yaml.safe_load(text)) for text in blocks(format, "yaml")]
    files = [path for path in [settings.path, settings.options.get("annotations")] if path is not None]
    assert settings.format == format and len(files) == len(blocks(format, "json"))
    for path, text in zip(files, blocks(format, "json"), strict=True):
        if path.endswith(".parquet"):
            rows = [json.loads(line) for line in text.splitlines()]
            pytest.importorskip("datasets").Dataset.from_list(rows).to_parquet(tmp_path / path)
        else:
            (tmp_path / path).write_text(text)
    if format == "dataset":
        monkeypatch.setitem(registry().datasets, settings.name, tiny.dataset)
    samples = open_source(settings, "train")
    assert len(samples) >= 2 and all(sample.answer or sample.conversation.loss == "all" for sample in samples)


def test_the_first_recipe_fits_the_schema():
    first = next(block.text for block in PAGE.blocks if block.language == "yaml")
    assert len(Data(**yaml.safe_load(first)["data"]).sources) == 2


def test_the_format_of_a_plugin_registers_and_reads(photos, tmp_path, monkeypatch):
    (tmp_path / "moai_notes.py").write_text(PAGE.file("moai_notes.py"))
    monkeypatch.syspath_prepend(tmp_path)
    import moai_notes

    known = load_registry(plugins=[moai_notes])
    assert known.problems == []
    monkeypatch.setitem(registry().formats, "notes", known.formats["notes"])
    (photos / "notes.jsonl").write_text('{"file": "red.png", "note": "red"}\n{"file": "red.png"}\n')
    samples = open_source(DataSource(format="notes", path=str(photos / "notes.jsonl")), "train")
    assert samples[0].answer == "red"
    sys.modules.pop("moai_notes")
