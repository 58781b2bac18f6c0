"""A recipe's images are perceived into shards, and training and evaluation read the shards in place of the experts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny

pytest.importorskip("pyarrow", reason="shards need pyarrow: pip install 'moai-vlm[corpus]'")

from click.testing import CliRunner  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from moai.cli.main import cli  # noqa: E402
from moai.errors import CorpusError, ExpertError, RecipeError  # noqa: E402
from moai.evaluation.evaluate import evaluate_run  # noqa: E402
from moai.images import read_image  # noqa: E402
from moai.perception.corpus.run import perceive_corpus  # noqa: E402
from moai.perception.corpus.worker import ShardWorker  # noqa: E402
from moai.plugins import registry  # noqa: E402
from moai.training.corpus import open_input, recipe_images  # noqa: E402
from moai.training.trainer import train  # noqa: E402
from moai.types import Sample  # noqa: E402


def in_files(split, limit=None):
    """The tiny data set, with its images as files."""
    samples = []
    for sample in tiny.dataset(split, limit):
        path = Path("files") / f"{sample.image_ids[0]}.png"
        path.parent.mkdir(exist_ok=True)
        path.exists() or read_image(sample.images[0]).save(path)
        about = (sample.question, sample.answer, sample.kind)
        samples.append(Sample.from_question(sample.id, path, f"{split}/{sample.image_ids[0]}", *about))
    return samples


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working folder; workers run in this process, since no other has the tiny expert."""

    def run_here(job, shards, workers, advance):
        worker = ShardWorker(job)
        yield from (worker.write(number, advance) for number in shards)

    tiny.register()
    monkeypatch.setitem(registry().datasets, "files", in_files)
    monkeypatch.setattr("moai.perception.corpus.run.run_local", run_here)
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    tiny.draw_nothing(monkeypatch)


def perceive(recipe, **settings):
    return perceive_corpus(recipe_images(recipe), "shards", recipe.perception.experts, shard_size=5, **settings)


def of_files(**perception):
    return tiny.recipe(data=tiny.data("files"), perception=perception, evaluation={"limit": None, "max_new_tokens": 2})


def forbid_experts(monkeypatch):
    def refused(*_):
        raise AssertionError("an expert was run")

    monkeypatch.setattr(tiny.TinyPanoptic, "perceive", refused)


def test_the_images_of_all_splits_are_perceived_once():
    made = perceive(of_files())
    assert made.images == 3 * 8 and made.unreadable == 0  # 24 questions about 8 images in each split
    assert {shard["source"] for shard in made.shards} == {"train", "validation", "test"}


def test_the_time_limit_is_the_recipes(monkeypatch):
    seen = []

    def run_here(job, shards, workers, advance):
        seen.append(job.time_limit)
        worker = ShardWorker(job)
        yield from (worker.write(number, advance) for number in shards)

    monkeypatch.setattr("moai.perception.corpus.run.run_local", run_here)
    Path("recipe.yaml").write_text(of_files(time_limit=7.5).to_yaml())
    for number, option in enumerate(([], ["--time-limit", "3"])):
        done = CliRunner().invoke(cli, ["perceive-dataset", "recipe.yaml", "--out", f"shards-{number}", *option])
        assert done.exit_code == 0, done.output
    assert seen == [7.5, 3.0]


def test_a_corpus_that_an_expert_failed_in_is_refused(monkeypatch):
    def broken(self, images, context):
        raise ValueError("out of paint")

    monkeypatch.setattr(tiny.TinyPanoptic, "perceive", broken)
    perceive(of_files())
    reason = "'tiny-panoptic' gave nothing for 24 of 24 images in shards .ValueError: out of paint.; perceive them"
    with pytest.raises(CorpusError, match=reason):
        train(of_files(shards="shards"), "run")


@pytest.mark.slow
def test_training_and_evaluation_from_shards_equal_those_from_experts(monkeypatch):
    live, stored = of_files(), of_files(shards="shards")
    train(live, "live")
    perceive(live)
    figures = evaluate_run("live", batch_size=8).summary
    forbid_experts(monkeypatch)
    monkeypatch.setenv("MOAI_CACHE", "another")
    train(stored, "stored")
    before, after = (load_file(f"{name}/moai.safetensors") for name in ("live", "stored"))
    assert all((before[name] == after[name]).all() for name in before) and len(before) == len(after) > 5
    again = evaluate_run("stored", batch_size=8)
    assert again.summary["groups"] == figures["groups"]
    answers = [Path(name, "eval-full/predictions.jsonl").read_text() for name in ("live", "stored")]
    assert answers[0] == answers[1] and len(answers[0].splitlines()) == 24


def test_an_image_without_a_row_ends_training_before_it_begins():
    perceive(of_files(), limit=9)
    with pytest.raises(CorpusError, match="shards has no row of image 'validation/"):
        train(of_files(shards="shards"), "run")
    with pytest.raises(CorpusError, match="nowhere is no finished corpus"):
        train(of_files(shards="nowhere"), "other")


def test_an_image_that_changed_ends_training_before_it_begins_and_is_found_by_data_check():
    recipe = of_files(shards="shards")
    perceive(recipe)
    first = sorted(Path("files").glob("*.png"))[0]
    whole = first.read_bytes()
    first.write_bytes(whole + b"x")
    with pytest.raises(CorpusError, match="bytes when it was perceived and is"):
        train(recipe, "run")
    first.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    Path("recipe.yaml").write_text(recipe.to_yaml())
    outcome = CliRunner().invoke(cli, ["data", "check", "recipe.yaml"])
    assert outcome.exit_code == 1 and "bad: image that is not the one in the shards" in outcome.stdout
    assert "has another content than when it was perceived" in outcome.stdout


def test_another_data_set_is_perceived_as_ever(monkeypatch):
    recipe = of_files(shards="shards")
    perceive(recipe)
    train(recipe, "run")
    forbid_experts(monkeypatch)
    with pytest.raises(ExpertError, match="'tiny-panoptic' gave nothing for 8 of 8 images .*an expert was run"):
        evaluate_run("run", data="tiny", conditions=["on", "off"])


def test_images_in_memory_are_refused():
    with pytest.raises(CorpusError, match="image 'red-ellipse' is no file but bytes in memory"):
        list(recipe_images(tiny.recipe()))


def test_what_a_corpus_is_made_of(tmp_path):
    Path("data").mkdir()
    Path("data/list.jsonl").write_text(json.dumps({"image": "a.png"}))
    Path("data/notes.txt").write_text("x")
    assert [one[1] for one in open_input("data/list.jsonl").images] == ["data/a.png"]
    assert open_input("data").sharded and not open_input("data/list.jsonl").sharded
    with pytest.raises(CorpusError, match="notes.txt is no list of images; name one of .jsonl"):
        open_input("data/notes.txt")
    with pytest.raises(CorpusError, match="there is no file data/gone.csv"):
        open_input("data/gone.csv")
    with pytest.raises(RecipeError, match="'seed=1' changes a recipe, and data is none"):
        open_input("data", ["seed=1"])
    with pytest.raises(RecipeError, match="no recipe 'easy-vga'.*did you mean 'easy-vqa'"):
        open_input("easy-vga")
    opened = open_input("easy-vqa", ["perception.experts=[tiny-panoptic]"])
    assert opened.experts == ("tiny-panoptic",)
    with pytest.raises(RecipeError, match="easy-vqa-connector-only names no experts; set perception.experts"):
        open_input("easy-vqa-connector-only", ["perception.experts=[]"])
