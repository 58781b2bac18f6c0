"""Comparing runs from the answers that their evaluations wrote."""

from __future__ import annotations

import json

import pytest

from moai.errors import CheckpointError
from moai.evaluation.compare import compare_runs, names_of
from moai.evaluation.paired import Record
from moai.evaluation.report.save import write_json
from moai.evaluation.summary import summarize


def evaluated(run, predictions, folder="eval"):
    """A run folder whose evaluation gave these answers, condition -> answer, to each of six questions."""
    records = [Record(f"q{i}", f"i{i // 2}", "color", "what?", "red", dict(predictions)) for i in range(6)]
    (run / folder).mkdir(parents=True)
    write_json(run / folder / "report.json", summarize(records, split="test", seed=0, available=9, data="toy"))
    lines = [json.dumps(record.to_dict()) for record in records]
    (run / folder / "predictions.jsonl").write_text("\n".join(lines) + "\n")
    return run


def test_a_comparison_in_python_returns_what_the_command_prints(tmp_path):
    run = evaluated(tmp_path / "ours", {"on": "red", "off": "blue"})
    baseline = evaluated(tmp_path / "bare", {"off": "blue"})
    made = compare_runs(run, [baseline])
    assert made.summary["conditions"] == ["on", "off", "bare"] and made.summary["available"] == 9
    [sentence] = made.verdicts
    assert sentence.startswith("ours beats bare: 100.0 % against 0.0 %")
    assert [path.name for path in made.files] == ["against-bare.json", "against-bare.md"]
    assert json.loads(made.files[0].read_text())["baselines"] == ["bare"]


def test_runs_that_answered_the_whole_split_alone_are_compared_on_it(tmp_path):
    ours = evaluated(tmp_path / "ours", {"on": "red"}, "eval-full")
    bare = evaluated(tmp_path / "bare", {"off": "blue"}, "eval-full")
    assert compare_runs(ours, [bare]).files[0].parent == ours / "eval-full"
    evaluated(ours, {"on": "red"})
    with pytest.raises(CheckpointError, match="there is no .*bare/eval/predictions.jsonl"):
        compare_runs(ours, [bare])


def test_a_run_without_perception_on_cannot_be_compared(tmp_path):
    run = evaluated(tmp_path / "ours", {"off": "blue"})
    with pytest.raises(CheckpointError, match="was not evaluated with perception on"):
        compare_runs(run, [evaluated(tmp_path / "bare", {"off": "blue"})])


def test_baselines_of_one_name_are_told_apart(tmp_path):
    assert names_of([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]
    assert names_of([tmp_path / "a" / "one", tmp_path / "b" / "two"]) == ["one", "two"]
    with pytest.raises(CheckpointError, match="name each once"):
        names_of([tmp_path / "run", tmp_path / "run"])
