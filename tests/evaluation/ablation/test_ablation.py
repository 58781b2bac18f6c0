"""The ablations' table: figures of known answers, three formats and a picture, and `moai ablate` on tiny recipes."""

import json
import os
from dataclasses import replace

import pytest
import tiny
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

from moai.cli.main import cli
from moai.errors import CheckpointError
from moai.evaluation.ablation.run import Outcome, seconds_per_step, summarize_ablations, trained_parameters
from moai.evaluation.ablation.table import draw_ablations, render_ablations, render_markdown, save_ablations
from moai.evaluation.paired import Record
from moai.evaluation.report.save import write_json
from moai.evaluation.summary import summarize
from moai.plugins import registry


def evaluated(folder, rights, kinds=("yes/no", "color")):
    """A run folder whose evaluation answered the n-th question right where ``rights`` says so; off knows nothing."""
    records = []
    for index, right in enumerate(rights):
        given = {"on": "red" if right else "blue", "off": "none", "shuffled": "none"}
        kind = kinds[index % len(kinds)]
        records.append(Record(str(index), f"image-{index // 2}", kind, "what?", "red", given, donor="x"))
    evaluation = folder / "eval"
    evaluation.mkdir(parents=True)
    write_json(evaluation / "report.json", summarize(records, split="validation", seed=0, available=50, data="toy"))
    lines = [json.dumps(record.to_dict()) for record in records]
    (evaluation / "predictions.jsonl").write_text("\n".join(lines) + "\n")
    tensors = {"mixers.0.gate_image.weight": torch.zeros(3, 8), "mixers.0.attention.x": torch.zeros(2, 5)}
    save_file(tensors, folder / "moai.safetensors")
    (folder / "training.jsonl").write_text(
        "".join(f'{{"step": {i}, "seconds": {s}}}\n' for i, s in enumerate((1, 2, 9)))
    )
    return evaluation


@pytest.fixture
def outcomes(tmp_path):
    half, all_right = [True, False] * 10, [True] * 20
    return [
        Outcome("base", {}, tmp_path / "base", evaluated(tmp_path / "base", half)),
        Outcome("more", {"a.b": 16}, tmp_path / "more", evaluated(tmp_path / "more", all_right)),
        Outcome("broken", {"mixer.layers": [9]}, tmp_path / "broken", failure="no layer [9]\x1b"),
    ]


def test_rows_are_the_runs_own_figures_and_the_paired_difference(outcomes):
    summary = summarize_ablations(outcomes)
    assert (summary["base"], summary["n"], summary["available"], summary["split"]) == ("base", 20, 50, "validation")
    base, more, broken = summary["rows"]
    assert (base["on"]["value"], base["open"]["value"], base["against_base"]) == (0.5, 0.0, None)
    assert (more["on"]["value"], more["on-off"]["value"], more["on-shuffled"]["value"]) == (1.0, 1.0, 1.0)
    assert more["against_base"]["value"] == 0.5 and more["open_against_base"]["value"] == 1.0
    assert more["against_base"]["low"] <= 0.5 <= more["against_base"]["high"]
    assert more["against_base"]["mcnemar_p"] == pytest.approx(2 * 0.5**10)
    assert broken["failure"] == "no layer [9]\x1b" and "on" not in broken


def test_all_saved_parameters_count_and_one_long_step_does_not(outcomes):
    assert trained_parameters(outcomes[0].run) == 34
    assert seconds_per_step(outcomes[0].run) == 2


def test_without_open_questions_or_without_others_there_is_no_such_column(tmp_path):
    paths = [evaluated(tmp_path / name, [True] * 6, kinds=("color",)) for name in ("a", "b")]
    rows = summarize_ablations([Outcome(p.parent.name, {}, p.parent, p) for p in paths])["rows"]
    assert rows[1]["open"] is None and rows[1]["open_against_base"] is None and rows[1]["against_base"]["value"] == 0


def test_a_base_without_an_evaluation_and_other_questions_are_sentences(outcomes, tmp_path):
    with pytest.raises(CheckpointError, match="the base 'broken' has no evaluation to compare with: no layer"):
        summarize_ablations([outcomes[2], outcomes[0]])
    fewer = Outcome("fewer", {}, tmp_path / "fewer", evaluated(tmp_path / "fewer", [True] * 4))
    with pytest.raises(CheckpointError, match="did not answer the same questions"):
        summarize_ablations([outcomes[0], fewer])


def test_every_format_holds_the_figures_and_no_control_characters(outcomes, tmp_path):
    from rich.console import Console

    summary = summarize_ablations(outcomes)
    console = Console(width=140, record=True, file=open(os.devnull, "w"))
    console.print(render_ablations(summary))
    for text in (console.export_text(), render_markdown(summary)):
        assert "Ablations of base: toy, validation split, 20 of 50 questions" in text
        assert "a.b=16" in text and "+50.0" in text and "failed: no layer" in text and "\x1b" not in text
    assert "| +100.0 (+100.0 to +100.0) | 0.0 M | 2.00 |" in render_markdown(summary), "open - base comes last"
    paths = save_ablations(summary, tmp_path / "table")
    assert [path.name for path in paths] == ["ablations.json", "ablations.md", "ablations.png"]
    assert json.loads(paths[0].read_text()) == json.loads(json.dumps(summary))
    assert not list((tmp_path / "table").glob(".*"))


def test_the_picture_marks_what_was_measured(outcomes, tmp_path):
    summary = summarize_ablations(outcomes)
    image = Image.open(draw_ablations(summary, tmp_path / "a.png")).convert("RGB")
    alone = summarize_ablations(outcomes[:1])
    single = Image.open(draw_ablations(alone, tmp_path / "b.png")).convert("RGB")
    assert image.height > single.height
    orange = [bytes((227, 155, 76)) in set(batched(picture.tobytes())) for picture in (image, single)]
    assert orange == [True, False], "open - base is drawn where there is one"


def batched(raw):
    """The bytes of an RGB picture, pixel by pixel."""
    return (raw[at : at + 3] for at in range(0, len(raw), 3))


# The command --------------------------------------------------------------------------------------------------------

RECIPES = {
    "few": "compressor: {latents: 4}",
    "one": "stages: [{name: gates, routing: random_module, train: {gates: null}}]",
    "off": "mixer: {layers: [9]}",
}


def kinds(split, limit=None):
    """The tiny data set with yes/no questions called so."""
    made = [replace(s, kind="yes/no" if s.answer in ("yes", "no") else "color") for s in tiny.dataset(split)]
    return made[:limit]


def ablate(folder, *arguments):
    root = folder.parent / "runs"
    return CliRunner().invoke(cli, ["ablate", str(folder), "--run", str(root), "--limit", "12", *map(str, arguments)])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder of tiny ablations that was worked off once, and what the command printed."""
    root = tmp_path_factory.mktemp("ablate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOAI_CACHE", str(root / "cache"))
        tiny.draw_nothing(patch)
        tiny.register()
        patch.setitem(registry().datasets, "tiny-kinds", kinds)
        recipe = tiny.recipe(name="base", data=tiny.data("tiny-kinds"))
        (root / "base.yaml").write_text(recipe.to_yaml())
        (root / "ablations").mkdir()
        for name, text in RECIPES.items():
            (root / "ablations" / f"{name}.yaml").write_text(f"extends: ../base.yaml\nname: {name}\n{text}\n")
        yield root / "ablations", ablate(root / "ablations", "--steps", 4)


def test_all_are_trained_and_evaluated_on_the_same_validation_questions(world):
    folder, result = world
    root = folder.parent / "runs"
    summary = json.loads((root / "ablations.json").read_text())
    assert [row["name"] for row in summary["rows"]] == ["base", "few", "off", "one"]
    assert (summary["split"], summary["n"], summary["available"]) == ("validation", 12, 24)
    asked = [(root / name / "eval-validation" / "predictions.jsonl").read_text() for name in ("base", "few", "one")]
    ids = [[json.loads(line)["id"] for line in text.splitlines()] for text in asked]
    assert ids[0] == ids[1] == ids[2] and len(ids[0]) == 12
    few = summary["rows"][1]
    assert few["open"] is not None and few["against_base"] is not None and few["seconds_per_step"] > 0
    assert few["parameters"] < summary["rows"][0]["parameters"], "fewer latents"
    steps = (root / "one" / "training.jsonl").read_text().splitlines()
    assert len(steps) == 4
    assert (root / "ablations.png").read_bytes().startswith(b"\x89PNG")


def test_one_that_fails_is_a_row_and_an_exit_code(world):
    _, result = world
    assert result.exit_code == 1
    assert "off failed; the table says why" in result.stderr
    assert "failed: mixer in layer 9" in result.stdout and "latents" in result.stdout
    assert result.stdout.count("Ablations of base") == 1 and "s/step" in result.stdout


@pytest.mark.slow
def test_the_same_command_trains_and_evaluates_nothing_again(world, monkeypatch):
    folder, first = world

    def refuse(recipe, run_dir, **others):
        assert recipe.name == "off", f"{recipe.name} is finished"
        raise RuntimeError("still broken")

    monkeypatch.setattr("moai.training.trainer.train", refuse)
    monkeypatch.setattr("moai.evaluation.ablation.run.evaluate_run", lambda *a, **b: pytest.fail("evaluated already"))
    again = ablate(folder, "--steps", 4)
    assert "failed: still broken" in again.stdout and again.exit_code == 1
    fine = ablate(folder, "--steps", 4, "--only", "few")
    assert fine.exit_code == 0, fine.stderr
    summary = json.loads((folder.parent / "runs" / "ablations.json").read_text())
    assert [row["name"] for row in summary["rows"]] == ["base", "few"] and "few" in fine.stdout


def test_other_settings_want_another_folder(world):
    folder, _ = world
    result = ablate(folder, "--steps", 5)
    assert result.exit_code == 1 and "holds a run of another recipe; name another folder with --run" in result.stderr
    result = ablate(folder, "--steps", 5, "--dry-run")
    assert result.exit_code == 0 and "compressor.latents=4" in result.stdout and "trained" in result.stdout


def test_a_stop_says_how_to_go_on(world, monkeypatch):
    folder, _ = world

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("moai.evaluation.ablation.run._train", stop)
    result = ablate(folder, "--steps", 4, "--only", "few", "--only", "one")
    assert result.exit_code == 130
    root = folder.parent / "runs"
    assert f"moai ablate {folder} --only few --only one --steps 4 --run {root} --limit 12\n" in result.stderr
