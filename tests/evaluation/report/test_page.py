"""The page stands alone, says what the summary says, and takes nothing that was read in an image for HTML."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from moai.evaluation.paired import Record
from moai.evaluation.report.markdown import render_markdown
from moai.evaluation.report.page import render_page
from moai.evaluation.summary import summarize
from moai.types import Detection, Perception

EVIL = "<script>alert(1)</script>\x1b[31m\u202e$\\frac{$|`*\n<img src=x onerror=alert(2)>"


class Reader(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self):
        super().__init__()
        self.tags, self.links, self.handlers, self.text = [], [], [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.text += data


def read(page):
    reader = Reader()
    reader.feed(page)
    return reader


def records(kind="color", word="x"):
    made = []
    for index in range(12):
        texts = {"on": "x" if index else EVIL, "off": "y" if index else "x", "shuffled": "y", "without:shapes": "y"}
        sure = {"mean": 0.5 + index / 24, "least": 0.5, "items": 1}
        made.append(Record(f"{index}", f"i{index // 2}", kind, f"{word} {index}?", "x", texts, confidence=sure))
    return made


@pytest.fixture(scope="module")
def summary():
    made = summarize(records(), split="test", seed=0, resamples=100, name="toy", data="drawings")
    flat = {"mean": 1 / 3, "histogram": [0.0] * 6 + [1.0] + [0.0] * 13}
    streams = {stream: dict.fromkeys(("auxiliary", "language", "image"), flat) for stream in ("image", "language")}
    made["gates"] = {"questions": 9, "layers": [{"layer": 4, **streams}]}
    return made


def test_the_page_needs_nothing_else(summary, tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    images = {f"i{i}": tmp_path / "red.png" for i in range(6)}
    page = read(render_page(summary, records(), images, {"i0": "A red thing."}))
    beside = ["predictions.jsonl", "report.json", "report.md"]  # named, not needed
    assert [link for link in page.links if not link.startswith("data:image/")] == beside
    assert {"script", "link", "iframe", "object"}.isdisjoint(page.tags)
    assert len([link for link in page.links if link.startswith("data:image/svg+xml")]) == 5
    assert len([link for link in page.links if link.startswith("data:image/png")]) == 12
    assert "A red thing." in page.text


def test_the_page_says_what_the_summary_says(summary):
    text = " ".join(read(render_page(summary, records(), {}, {})).text.split())
    assert "toy: drawings, test split, all 12 questions, 6 images" in text
    assert text.count("91.7") >= 4 and "perception off 8.3" in text
    assert "right with perception off and wrong with it on: 1." in text
    assert "wrong with perception off and right with it on: 11." in text
    assert f"{100 * 11 / 12:.1f}" in text and "layer 4" in text and "What each expert contributes" in text


def test_sections_without_figures_are_left_out():
    bare = [replace(r, predictions={"off": "x"}, confidence=None) for r in records()]
    page = read(render_page(summarize(bare, split="test", seed=0, resamples=100), bare, {}, {}))
    for title in ("What perception gains", "What the gates choose", "Do surer experts", "Worst regressions"):
        assert title not in page.text
    assert len(page.links) == 4 and "100.0 % of the answers are right" in page.text


def test_hostile_words_stay_words_wherever_they_come_from():
    hostile = records(kind=EVIL, word=EVIL)
    summary = summarize(hostile, split=EVIL, seed=0, resamples=100, name=EVIL, data=EVIL)
    source = render_page(summary, hostile, {"i0": "no such file.png"}, {"i0": EVIL})
    page = read(source)
    assert "script" not in page.tags and not page.handlers and "x" not in page.links
    assert "<script>alert(1)</script>" in page.text, "shown as it was read"
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", source)
    assert "default-src 'none'" in source


def drawn_texts(monkeypatch) -> list[str]:
    """Collect what the plots write."""
    from matplotlib.axes import Axes

    found, write = [], Axes.text
    monkeypatch.setattr(Axes, "text", lambda self, x, y, s, *a, **k: found.append(s) or write(self, x, y, s, *a, **k))
    return found


def test_bars_and_tables_have_equal_figures(summary, monkeypatch, tmp_path):
    from moai.evaluation.report.chart import draw_chart

    found = drawn_texts(monkeypatch)
    render_page(summary, records(), {}, {})
    draw_chart(summary, tmp_path / "chart.png")
    assert found.count("91.7") == 4 and "92" not in found, "overall and color, on the page and in the picture"


def test_the_page_begins_with_what_was_found_out(summary):
    source = render_page(summary, records(), {}, {})
    overall = summary["groups"]["overall"]["differences"]["on-shuffled"]
    low, high = (f"{100 * overall[key]:+.1f}" for key in ("low", "high"))
    assert f"<h1>Perception is read: +91.7 points over another image&#39;s ({low} to {high}).</h1>" in source
    assert "prefers-color-scheme: dark" in source


def test_the_facts_of_the_run_its_curves_and_overlays_are_on_the_page(summary, tmp_path):
    versions = {"shapes": {"role": "panoptic", "version": "3", "distribution": "moai-shapes", "licence": EVIL}}
    (tmp_path / "recipe.yaml").write_text("name: toy\nseed: 7\n")
    (tmp_path / "processor_config.json").write_text(json.dumps({"experts": ["shapes"], "expert_versions": versions}))
    Image.new("RGB", (30, 30), "white").save(tmp_path / "curves.png")
    found = Perception(detections=(Detection("cat", 0.5, (0.1, 0.1, 0.5, 0.5)),))
    image = Image.new("RGB", (64, 64), "white")
    pages = [read(render_page(summary, records(), {"i0": image}, {}, seen, tmp_path)) for seen in ({}, {"i0": found})]
    pictures = [[link for link in page.links if link.startswith("data:image/jpeg")] for page in pages]
    assert not pictures[0] and len(set(pictures[1])) == 1, "with findings drawn"
    assert "Training" in pages[0].text and "moai-shapes" in pages[0].text and "panoptic" in pages[0].text
    assert re.search(r"Recipetoy, SHA-256 [0-9a-f]{16}", "".join(pages[0].text.split("\n")))
    assert "script" not in pages[0].tags


def test_markdown_has_the_figures_and_no_markup_of_strangers(summary):
    text = render_markdown(summary)
    assert "| overall | 12 | 91.7 (" in text and "| on - without:shapes |" in text
    hostile = records(kind=EVIL)
    text = render_markdown(summarize(hostile, split="test", seed=0, resamples=100, name=EVIL))
    assert "<" not in text.replace("p < 0.001", "") and "\x1b" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows and {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7, 5}


def test_the_verdicts_on_baselines_are_on_both(summary):
    compared = {**summary, "baselines": ["off"]}
    assert "toy beats off: 91.7 % against 8.3 %" in render_markdown(compared)
    assert "toy beats off: 91.7 % against 8.3 %" in render_page(compared, records(), {}, {})
