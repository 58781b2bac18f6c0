"""A tree against an older revision: what is counted, in which order, and what a wrong revision says."""

import json
import subprocess

import pytest
from test_benchmarks import FOLDER, on_path  # noqa: F401

from moai.recipe.loading import load_recipe


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of one commit, in place of this one."""
    import training_against

    place = tmp_path / "here"
    (place / "recipes").mkdir(parents=True)
    (place / "recipes/easy-vqa.yaml").write_text("name: old\n")
    me = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], [*me, "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", str(place), *words], check=True)
    monkeypatch.setattr(training_against, "HERE", place)
    return place


def test_both_trees_take_turns_and_the_other_is_removed(repository):
    from training_against import compare

    calls = []

    def turn(tree, steps):
        assert (tree / "recipes/easy-vqa.yaml").read_text() == "name: old\n" and steps == 7
        calls.append(tree)
        return [2.0, 9.0, 2.0] if tree == repository else [1.0, 1.0, 4.0]

    made = compare("HEAD", 7, 4, 1, turn)
    other = next(tree for tree in calls if tree != repository)
    assert calls == [repository, other, other, repository, repository, other, other, repository]
    assert made["ratios"] == [2.0] * 4 and made["interval"] == (2.0, 2.0) and made["ratio"] == 2.0
    assert not other.exists()
    listed = subprocess.run(["git", "-C", str(repository), "worktree", "list"], capture_output=True, text=True)
    assert len(listed.stdout.splitlines()) == 1


def test_an_unknown_revision_is_a_sentence(repository):
    from training_against import compare

    with pytest.raises(SystemExit, match="git worktree add: .*; name a revision of this repository"):
        compare("nowhere", 1, 1, 1, lambda tree, steps: [1.0])


def test_the_interval_holds_the_mean_and_grows_with_the_spread():
    from training_against import interval

    low, high = interval([1.0, 1.1, 0.9, 1.0])
    assert 0.9 < low < 1.0 < high < 1.1 and interval([1.0, 1.1, 0.9, 1.0]) == (low, high)
    wide = interval([1.0, 1.4, 0.6, 1.0])
    assert wide[0] < low and wide[1] > high


def test_only_whole_steps_that_teach_to_answer_count(tmp_path):
    from training_against import WARM, seconds_of

    rows = [{"attention": 1.0, "seconds": 99.0}, *({"loss": 1.0, "seconds": float(n)} for n in range(WARM + 3))]
    (tmp_path / "training.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert seconds_of(tmp_path / "training.jsonl") == [float(WARM), WARM + 1.0]


def test_a_recipe_of_either_form_is_cut():
    from training_against import overrides, recipe_of

    path = recipe_of(FOLDER.parent)
    recipe = load_recipe(str(path), overrides(path.read_text(), 9))
    assert [(stage.name, stage.steps) for stage in recipe.stages] == [("align", 1), ("modules", 9), ("gates", 1)]
    assert recipe.training.monitor_every > 1000 < recipe.training.checkpoint_every
    assert "training.step1.steps=9" in overrides("version: 1\ntraining:\n  step1: {steps: 160}\n", 9)


def test_the_recipe_of_an_older_revision_has_another_name(tmp_path):
    from training_against import recipe_of

    with pytest.raises(SystemExit, match="has neither recipes/easy-vqa.yaml nor recipes/quickstart.yaml; name another"):
        recipe_of(tmp_path)
    (tmp_path / "recipes").mkdir()
    for name in ("quickstart", "easy-vqa"):  # today's quickstart is another recipe, beside which easy-vqa is
        (tmp_path / f"recipes/{name}.yaml").touch()
        assert recipe_of(tmp_path) == tmp_path / f"recipes/{name}.yaml"


def test_against_is_for_training_alone(capsys):
    import run

    for given in (["--against", "HEAD"], ["training", "mixing", "--against", "HEAD"]):
        with pytest.raises(SystemExit):
            run.arguments(given)
        assert "--against REV is for training alone" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run.arguments(["training", "--against", "HEAD", "--repeats", "1"])
    assert "one turn of each has no interval" in capsys.readouterr().err
    assert run.arguments(["training", "--against", "HEAD"]).steps == 30


def test_the_row_has_its_target_and_interval(monkeypatch):
    import run
    import training_against

    found = {"ratio": 1.02, "interval": (0.99, 1.06), "ratios": [1.02]}
    monkeypatch.setattr(training_against, "compare", lambda *given: {**found, "given": given})
    [row] = run.measured(
        "training", run.arguments(["training", "--against", "abc", "--repeats", "2", "--threads", "1"])
    )
    assert row.passed and row.name == "training step over abc, 0.990 to 1.060" and row.target == 1.05
    assert row.detail["given"] == ("abc", 30, 2, 1)
