"""`moai eval`."""

from __future__ import annotations

import json
import sys
import types

import pytest

from moai.perception.running.perceiver import Perceiver


@pytest.fixture
def run(tmp_path, recipe, model, monkeypatch):
    """A run folder; nothing is drawn, since drawing has its own tests."""
    model.perceiver = Perceiver(["spots", "reader"])
    folder = tmp_path / "runs" / "toy"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("name: toy\n")
    fake = types.ModuleType("moai.evaluation.report.chart")
    fake.draw_chart = lambda summary, path: path
    monkeypatch.setitem(sys.modules, "moai.evaluation.report.chart", fake)
    monkeypatch.setattr("moai.evaluation.report.page.draw_all", lambda summary: {"accuracy": "data:,"})
    return folder


def report(run):
    [path] = run.glob("eval*/report.json")
    return json.loads(path.read_text())


def test_the_recipes_limit_is_the_default_and_said(run_cli, run):
    result = run_cli("eval", run)
    assert result.exit_code == 0, result.stderr
    assert "a random sample of 4 of 6 questions, seed 0" in result.stdout
    assert report(run)["n"] == 4 and report(run)["conditions"] == ["on", "off", "shuffled"]
    assert "report.json" in result.stdout and (run / "eval" / "predictions.jsonl").is_file()


def test_full_asks_everything_and_pairs_the_conditions(run_cli, run):
    assert "all 6 questions" in run_cli("eval", run, "--full").stdout
    groups = report(run)["groups"]
    assert groups["overall"]["accuracy"]["on"]["value"] == 0.5
    assert groups["open"]["differences"]["on-off"]["value"] == 1.0


def test_limit_seed_and_conditions(run_cli, run):
    run_cli("eval", run, "--limit", 2, "--seed", 7, "--perception", "off,on", "--batch-size", 1)
    found = report(run)
    assert (found["n"], found["seed"], found["conditions"]) == (2, 7, ["off", "on"])


def test_shots_and_a_rationale_are_asked_for_and_have_a_folder_of_their_own(run_cli, run, model):
    asked = []

    def answer(conversations, perceptions, max_new_tokens=8):
        asked.append((len(conversations[0].images), conversations[0].turns[-1].text, max_new_tokens))
        return ["red"] * len(conversations)

    model.answer, model.processor = answer, types.SimpleNamespace(encode=lambda conversation: None)
    given = ("--rationale-prompt", "What is there?", "--rationale-tokens", 9)
    done = run_cli("eval", run, "--perception", "off", "--limit", 2, "--shots", 2, "--rationale", *given)
    assert done.exit_code == 0, done.stderr
    assert [path.parent.name for path in run.glob("eval*/report.json")] == ["eval-2-shot-rationale"]
    (shown, request, limit), (images, _, last) = asked
    assert (shown, request, limit) == (1, "What is there?", 9) and (images, last) == (3, 8)
    assert "need --rationale" in run_cli("eval", run, *given).stderr


def test_perception_off_alone_perceives_nothing(run_cli, run, known):
    run_cli("eval", run, "--perception", "off")
    assert known.experts["spots"].calls == 0


def test_each_image_is_perceived_once(run_cli, run, known):
    run_cli("eval", run, "--full")
    assert known.experts["spots"].calls == 3


def test_an_expert_that_fails_for_most_images_stops_the_evaluation(run_cli, run, model):
    model.perceiver = Perceiver(["spots", "broken"])
    result = run_cli("eval", run, "--full")
    assert result.exit_code == 1
    assert "error: expert 'broken' gave nothing for 3 of 3 images (RuntimeError: no battery); give it" in result.stderr


def test_the_time_limit_is_the_runs_or_the_options(run_cli, run, model):
    assert run_cli("eval", run, "--time-limit", "3,spots=none", "--perception", "on").exit_code == 0
    assert [isolated.time_limit for isolated in model.perceiver._isolated.values()] == [None, 3.0]
    result = run_cli("eval", run, "--time-limit", "spot=3")
    assert result.exit_code == 1 and "did you mean 'spots'?" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--limit", "3", "--full"), 2, "not both"),
        (("--perception", "onn"), 1, "no condition 'onn'; did you mean 'on'?"),
        (("--split", "empty"), 1, "the split 'empty' of toy is empty"),
        (("--data", "toys"), 1, "unknown data set 'toys'; did you mean 'toy'?"),
        (("--perception", "on,oracle"), 1, "the data set has none for"),
        (("--perception", "without:spot"), 1, "no expert 'spot'; did you mean 'spots'?"),
        (("--perception", "noisy:3"), 1, "give the share of words to replace"),
        (("--limit", "0"), 2, "limit"),
    ],
)
def test_a_wrong_argument_is_a_sentence(run_cli, run, arguments, code, words):
    result = run_cli("eval", run, *arguments)
    assert result.exit_code == code and words in result.stderr


def test_a_folder_that_is_no_run_is_a_sentence(run_cli, tmp_path):
    result = run_cli("eval", tmp_path)
    assert result.exit_code == 1 and "no run folder" in result.stderr


# What is written ----------------------------------------------------------------------------------------------------


def test_every_format_is_written_and_named(run_cli, run):
    shown = run_cli("eval", run).stdout
    for name in ("report.json", "predictions.jsonl", "report.md", "report.html"):
        assert (run / "eval" / name).is_file() and f"eval/{name}" in shown
    assert "<!doctype html>" in (run / "eval" / "report.html").read_text()


def test_leave_one_out_asks_once_per_expert_and_looks_only_with_the_others(run_cli, run, known):
    result = run_cli("eval", run, "--full", "--perception", "on,leave-one-out,noisy:0.5")
    assert result.exit_code == 0, result.stderr
    accuracy = report(run)["groups"]["overall"]["accuracy"]
    assert list(accuracy) == ["on", "without:spots", "without:reader", "noisy:0.5"]
    assert known.experts["spots"].calls == 6, "with all experts, and without the other one: no cache in this test"
    assert "perceiving without spots: 3/3" in result.stderr


def test_another_data_set_or_split_has_its_own_folder(run_cli, run, known, recipe):
    known.datasets["other"] = known.datasets["toy"]
    run_cli("eval", run, "--full", "--data", "other")
    run_cli("eval", run, "--full", "--split", "unseen")
    run_cli("eval", run, "--full", "--data", "toy", "--split", "test")
    assert sorted(path.name for path in run.glob("eval*")) == ["eval-full", "eval-other-full", "eval-unseen-full"]
    assert json.loads((run / "eval-other-full" / "report.json").read_text())["data"] == "other"


def test_the_data_sets_own_metric_is_found_at_its_factory(run_cli, run, known):
    def first_letter(prediction, answer):
        return float(prediction[:1] == answer[:1])

    def letters(split, **options):
        return known.datasets["toy"](split)

    letters.metric = first_letter
    known.datasets["letters"] = letters
    shown = run_cli("eval", run, "--full", "--data", "letters", "--perception", "on,off").stdout
    assert "first_letter: on 0.500" in shown


def test_an_interrupted_evaluation_goes_on_and_another_one_does_not_see_it(run_cli, run, model, monkeypatch):
    answer, asked = model.answer, []

    def stop(conversations, perceptions, max_new_tokens=8):
        asked.append(len(conversations))
        if len(asked) == 5:
            raise KeyboardInterrupt
        return answer(conversations, perceptions)

    model.answer = stop
    arguments = ("eval", run, "--full", "--batch-size", 2, "--perception", "on,off")
    stopped = run_cli(*arguments)
    assert stopped.exit_code == 130
    assert f"continue with: moai eval {run} --full --perception on,off --batch-size 2\n" in stopped.stderr
    assert not (run / "eval-full" / "report.json").exists()
    other = run_cli("eval", run, "--full", "--batch-size", 3, "--perception", "on,off")
    assert other.exit_code == 0 and "going on" not in other.stderr
    asked.clear()
    resumed = run_cli(*arguments)
    assert "going on with an interrupted evaluation: 4 questions are answered" in resumed.stderr
    assert asked == [2, 2] and report(run)["n"] == 6
    assert not list((run / "eval-full").glob(".answers*"))
    asked.clear()
    assert "going on" not in run_cli(*arguments).stderr


# moai compare -------------------------------------------------------------------------------------------------------


def evaluated(run_cli, folder, model, answer, *arguments):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text("name: toy\n")
    model.answer = lambda conversations, given, max_new_tokens=8: [answer(p) for [p] in given]
    assert run_cli("eval", folder, "--full", *arguments).exit_code == 0


def test_a_run_is_set_beside_several_baselines(run_cli, run, model):
    model.token_counts = lambda conversations, given: [
        {"prompt": 20, "auxiliary": 64 if p else 0, "words": 40 if p else 0} for [p] in given
    ]
    evaluated(run_cli, run, model, lambda p: "red" if p else "yes")
    evaluated(run_cli, run.parent / "bare", model, lambda p: "no", "--perception", "off")
    model.token_counts = lambda conversations, given: [{"prompt": 168, "auxiliary": 0, "words": 0} for _ in given]
    evaluated(run_cli, run.parent / "text", model, lambda p: "red" if p else "no", "--perception", "on,off")
    result = run_cli("compare", run, run.parent / "bare", run.parent / "text", "--full")
    assert result.exit_code == 0, result.stderr
    assert "toy beats bare: 50.0 % against 0.0 %" in result.stdout
    assert (
        "toy matches text: 50.0 % against 50.0 %, +0.0 points (+0.0 to +0.0), an interval that includes 0."
        in result.stdout
    )
    assert "It reads 84.0 tokens a question against 168.0: 50% of the tokens." in result.stdout
    summary = json.loads((run / "eval-full" / "against-bare-and-text.json").read_text())
    assert summary["conditions"] == ["on", "off", "shuffled", "bare", "text"] and summary["baselines"] == [
        "bare",
        "text",
    ]


def test_a_comparison_that_cannot_be_made_is_a_sentence(run_cli, run, model, tmp_path):
    evaluated(run_cli, run, model, lambda p: "red")
    result = run_cli("compare", run, tmp_path / "nothing", "--full")
    assert result.exit_code == 1 and "`moai eval` on that run writes it" in result.stderr
    evaluated(run_cli, run.parent / "off", model, lambda p: "red", "--perception", "off")
    result = run_cli("compare", run.parent / "off", run, "--full")
    assert result.exit_code == 1 and "was not evaluated with perception on" in result.stderr
    result = run_cli("compare", run, run.parent / "off", "--full")
    assert result.exit_code == 1 and "'off' is a condition already" in result.stderr
