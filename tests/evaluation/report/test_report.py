"""The summary says what was measured; table, JSON, predictions and chart hold the same numbers."""

import json
from dataclasses import replace

import pytest
from PIL import Image
from rich.console import Console

from moai.errors import CheckpointError
from moai.evaluation.paired import Record
from moai.evaluation.report.save import read_records, save_report, with_baseline
from moai.evaluation.report.table import format_p, render_table
from moai.evaluation.summary import headline, summarize


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


def test_questions_without_an_image_are_resampled_one_by_one(records):
    textual = [replace(r, image_id="") for r in records]
    group = summarize(textual, split="test", seed=7, available=100, resamples=200)["groups"]["overall"]
    assert group["images"] == 0
    off = group["accuracy"]["off"]
    assert 0.1 < off["low"] < off["value"] < off["high"] < 0.5  # one cluster would have no spread at all


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
    assert [p.name for p in paths] == ["report.json", "predictions.jsonl", "report.png", "report.md", "report.html"]
    assert json.loads(paths[0].read_text()) == summary
    lines = [json.loads(line) for line in paths[1].read_text().splitlines()]
    assert lines == [r.to_dict() for r in records] and read_records(tmp_path / "report") == records
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == sorted(path.name for path in paths)


def test_the_chart_shows_one_bar_per_condition(summary, records, tmp_path):
    picture = Image.open(save_report(summary, records, tmp_path)[2]).convert("RGB")
    assert picture.width > 800
    colours = {colour for count, colour in picture.getcolors(1 << 20) if count > 1000}
    assert {(0x0B, 0x6E, 0x8F), (0xA9, 0xAE, 0xB6), (0xE3, 0x9B, 0x4C)} <= colours


def test_small_p_values_are_not_printed_as_zero():
    assert format_p(0.0) == "p < 0.001"
    assert format_p(0.0341) == "p = 0.034"


# Further conditions, languages and metrics --------------------------------------------------------------------------


def console_text(summary, width=100):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))
    console.print(render_table(summary))
    return console.export_text()


def test_more_conditions_than_fit_side_by_side_stand_below_one_another(records):
    more = [replace(r, predictions={**r.predictions, "oracle": "x", "noisy:0.3": "y"}) for r in records]
    text = console_text(summarize(more, split="test", seed=0, resamples=200), width=80)
    lines = [line.split() for line in text.splitlines()]
    assert ["overall", "40", "on", "97.5", "92.5..100.0"] in lines
    oracle = next(line for line in lines if line[:1] == ["oracle"])
    assert oracle[1:4] == ["100.0", "83.9..100.0", "-2.5"]


def test_there_is_no_open_row_without_yes_no_questions(records):
    summary = summarize(records[20:], split="test", seed=0, resamples=200)
    assert list(summary["groups"]) == ["overall", "color", "shape"]


def test_several_languages_get_rows_and_one_gets_none(records, summary):
    assert not any(title.startswith("language") for title in summary["groups"])
    mixed = [replace(r, language="ko" if int(r.id) >= 36 else "en") for r in records]
    groups = summarize(mixed, split="test", seed=0, resamples=200)["groups"]
    assert {title: groups[title]["n"] for title in ("language: en", "language: ko")} == {
        "language: en": 36,
        "language: ko": 4,
    }


def test_the_data_sets_own_metric_has_its_own_intervals(records, summary):
    assert "score" not in summary["groups"]["overall"]
    scored = [replace(r, scores={"on": 0.75, "off": 0.25, "shuffled": 0.25}) for r in records]
    with_score = summarize(scored, split="test", seed=0, resamples=200, metric="overlap")
    overall = with_score["groups"]["overall"]
    assert overall["score"]["on"] == {"value": 0.75, "low": 0.75, "high": 0.75}
    assert overall["score_differences"]["on-off"]["value"] == 0.5
    assert overall["accuracy"]["on"]["value"] == 0.975
    assert "overlap: on 0.750 (0.750 to 0.750)" in " ".join(console_text(with_score).split())


def test_tokens_are_averaged_and_said(records):
    cost = {"on": {"prompt": 10, "auxiliary": 64, "words": 30}, "off": {"prompt": 10, "auxiliary": 0, "words": 0}}
    priced = [replace(r, tokens=cost) for r in records]
    summary = summarize(priced, split="test", seed=0, resamples=200)
    assert summary["tokens"]["on"] == {"prompt": 10, "auxiliary": 64, "words": 30, "read": 74}
    assert set(summary["tokens"]) == {"on", "off"}
    assert "Read per question (off): 10.0 prompt tokens." in " ".join(console_text(summary).split())


# Baselines ----------------------------------------------------------------------------------------------------------


def test_a_baseline_becomes_a_condition_paired_by_question(records):
    other = [replace(r, predictions={"off": "x" if i < 20 else "y"}) for i, r in enumerate(reversed(records))]
    both = with_baseline(records, other, None, "bare")
    assert [r.id for r in both] == [r.id for r in records]
    accuracy = summarize(both, split="test", seed=0, resamples=200)["groups"]["overall"]["accuracy"]
    assert accuracy["bare"]["value"] == 0.5
    assert [both[39].predictions["bare"], both[0].predictions["bare"]] == ["x", "y"]


def test_a_baselines_own_perception_counts_where_it_has_one(records):
    other = [replace(r, predictions={"off": "y", "on": "x"}) for r in records]
    assert with_baseline(records, other, None, "text")[0].predictions["text"] == "x"
    assert with_baseline(records, other, "off", "text")[0].predictions["text"] == "y"


def test_runs_that_answered_other_questions_are_not_compared(records):
    for other in (records[1:], [*records, replace(records[0], id="more")], [replace(r, answer="z") for r in records]):
        with pytest.raises(CheckpointError, match="did not answer the same questions under 'on'"):
            with_baseline(records, other, None, "bare")
    with pytest.raises(CheckpointError, match="under 'oracle'"):
        with_baseline(records, records, "oracle", "bare")
    with pytest.raises(CheckpointError, match="'off' is a condition already"):
        with_baseline(records, records, None, "off")


def test_separators_inside_an_answer_do_not_tear_the_file(summary, records, tmp_path):
    odd = [replace(records[0], predictions={**records[0].predictions, "on": "a\u2028b\x85c\ud800"}), *records[1:]]
    save_report(summary, odd, tmp_path)
    assert read_records(tmp_path) == odd


def test_the_chart_takes_hostile_names_for_words(records, tmp_path):
    evil = "$\\frac{$\x1b[31m\n<b>"
    hostile = [replace(r, kind=evil) for r in records]
    summary = summarize(hostile, split="test", seed=0, resamples=200, name=evil)
    with Image.open(save_report(summary, hostile, tmp_path)[2]) as picture:
        assert picture.width > 800
