"""The summary says what was measured; table, JSON, predictions and chart hold the same numbers."""

import json

import pytest
from PIL import Image
from rich.console import Console

from moai.evaluation.paired import Record
from moai.evaluation.report import format_p, headline, render_table, save_report, summarize


def record(index, kind, on, off, shuffled, **more):
    """A record whose right answer is "x"; ``on`` and so on say whether it was given."""
    predictions = {"on": on, "off": off, "shuffled": shuffled}
    texts = {condition: "X." if right else "y" for condition, right in predictions.items()}
    more = {"donor": "other", "same_words": False, "same_objects": False, **more}
    return Record(str(index), f"image {index // 2}", kind, "question?", "x", texts, **more)


@pytest.fixture
def records():
    """Forty questions: yes/no (half right with perception off), color and shape (right only with perception on)."""
    made = [record(i, "yes/no", True, i % 2 == 0, i % 4 == 0) for i in range(20)]
    made += [record(i, "color", True, False, False, same_objects=i < 24) for i in range(20, 30)]
    return made + [record(i, "shape", i != 30, i == 30, False, same_words=i == 31) for i in range(30, 40)]


@pytest.fixture
def summary(records):
    return summarize(records, split="test", seed=7, available=100, resamples=200, name="quick")


def test_groups_are_overall_yes_no_open_and_each_kind(summary):
    assert list(summary["groups"]) == ["overall", "yes/no", "open", "color", "shape"]
    assert [group["n"] for group in summary["groups"].values()] == [40, 20, 20, 10, 10]
    assert summary["groups"]["color"]["images"] == 5


def test_accuracies_and_differences_are_counted_right(summary):
    accuracy = {title: g["accuracy"] for title, g in summary["groups"].items()}
    assert accuracy["overall"]["on"]["value"] == 39 / 40
    assert accuracy["yes/no"]["off"]["value"] == 0.5
    assert accuracy["open"]["off"]["value"] == 1 / 20
    assert accuracy["color"]["shuffled"]["value"] == 0
    difference = summary["groups"]["open"]["differences"]["on-off"]
    assert difference["value"] == pytest.approx(18 / 20)
    assert (difference["only_first"], difference["only_second"]) == (19, 1)
    assert difference["mcnemar_p"] == pytest.approx(2 * (1 + 20) / 2**20)


def test_every_interval_holds_its_value(summary):
    for group in summary["groups"].values():
        for value in (*group["accuracy"].values(), *group["differences"].values()):
            assert value["low"] <= value["value"] <= value["high"]


def test_the_intervals_cluster_by_image(records):
    by_image = summarize(records[:20], split="test", seed=0)["groups"]["overall"]["accuracy"]["off"]
    assert (by_image["low"], by_image["high"]) == (0.5, 0.5)  # each image has one right and one wrong: no spread


def test_the_summary_says_what_was_measured(summary):
    assert {key: summary[key] for key in ("n", "available", "sampled", "images", "split", "seed", "conditions")} == {
        "n": 40,
        "available": 100,
        "sampled": True,
        "images": 20,
        "split": "test",
        "seed": 7,
        "conditions": ["on", "off", "shuffled"],
    }
    assert summary["shuffled"] == {"same_words": 1 / 40, "same_objects": 4 / 40}
    assert headline(summary) == "quick: test split, a random sample of 40 of 100 questions, seed 7, 20 images"


def test_the_whole_split_is_not_called_a_sample(records):
    whole = summarize(records, split="test", seed=7)
    assert not whole["sampled"]
    assert headline(whole) == "test split, all 40 questions, 20 images"


def test_a_condition_that_was_not_run_is_left_out(records):
    plain = [Record(r.id, r.image_id, r.kind, r.question, r.answer, {"on": "x"}) for r in records]
    summary = summarize(plain, split="test", seed=0)
    assert summary["groups"]["overall"]["differences"] == {}
    assert summary["shuffled"] is None
    Console(file=open("/dev/null", "w")).print(render_table(summary))


def test_no_records_and_mixed_conditions_are_refused(records):
    with pytest.raises(ValueError, match="at least one record"):
        summarize([], split="test", seed=0)
    other = Record("z", "image z", "color", "question?", "x", {"on": "x"})
    with pytest.raises(ValueError, match="same conditions"):
        summarize([*records, other], split="test", seed=0)


def test_the_table_fits_into_80_columns_with_numbers_and_intervals(summary):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))
    console.print(render_table(summary))
    text = console.export_text()
    assert "random sample of 40 of 100 questions, seed 7" in " ".join(text.split())
    overall = next(line for line in text.splitlines() if "overall" in line)
    assert overall.split() == ["overall", "40", "97.5", "27.5", "12.5", "+70.0", "+85.0"]
    assert "same objects for 10.0%" in " ".join(text.split())


def test_the_files_hold_the_summary_and_every_prediction(summary, records, tmp_path):
    paths = save_report(summary, records, tmp_path / "report")
    assert [path.name for path in paths] == ["report.json", "predictions.jsonl", "report.png"]
    assert json.loads(paths[0].read_text()) == summary
    lines = [json.loads(line) for line in paths[1].read_text().splitlines()]
    assert lines == [r.to_dict() for r in records]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == sorted(path.name for path in paths)


def test_the_chart_shows_one_bar_per_condition(summary, records, tmp_path):
    picture = Image.open(save_report(summary, records, tmp_path)[2]).convert("RGB")
    assert picture.width > 800
    colours = {colour for count, colour in picture.getcolors(1 << 20) if count > 1000}
    assert {(0x0B, 0x6E, 0x8F), (0xC9, 0xCC, 0xD1), (0xE3, 0x9B, 0x4C)} <= colours


def test_small_p_values_are_not_printed_as_zero():
    assert format_p(0.0) == "p < 0.001"
    assert format_p(0.0341) == "p = 0.034"
