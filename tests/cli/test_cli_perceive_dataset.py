"""``moai perceive-dataset`` and the plan that follows from it: what is printed, and every way to fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="shards need pyarrow: pip install 'moai-vlm[corpus]'")

from moai.perception.corpus.stopping import Terminated  # noqa: E402
from moai.perception.corpus.worker import ShardWorker  # noqa: E402
from moai.training.corpus import CorpusInput  # noqa: E402

pytestmark = pytest.mark.usefixtures("known")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, picture):
    """A working folder with three pictures, one of them damaged; workers run in this process."""

    def run_here(job, shards, workers, advance):
        worker = ShardWorker(job)
        yield from (worker.write(number, advance) for number in shards)

    monkeypatch.setattr("moai.perception.corpus.run.run_local", run_here)
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    for name in "abc":
        picture.save(f"pictures/{name}.png")
    Path("pictures/b.png").write_bytes(b"x")


def test_a_folder_is_perceived_and_the_counts_are_printed(run_cli):
    result = run_cli("perceive-dataset", "pictures", "--out", "out", "--experts", "spots,broken", "--shard-size", "2")
    assert result.exit_code == 0, result.stderr
    assert "perceived: 2 of 3 images, 2 shards" in result.stdout and "unread:    1 images" in result.stdout
    assert "'broken' gave nothing for 2 images" in result.stdout
    assert "perception.shards=out reads it" in result.stdout
    assert "images/s" in result.stderr and "s left" in result.stderr
    again = run_cli("perceive-dataset", "pictures", "--out", "out", "--experts", "spots,broken", "--shard-size", "2")
    assert again.stdout == result.stdout and "going on: 3 of 3 images are done" in again.stderr


def test_other_options_are_one_sentence(run_cli):
    assert run_cli("perceive-dataset", "pictures", "--out", "out", "--experts", "spots").exit_code == 0
    options = ["--option", "spots.least=0.7"]
    result = run_cli("perceive-dataset", "pictures", "--out", "out", "--experts", "spots", *options)
    assert result.exit_code == 1 and result.stderr.startswith("error: ")
    assert "was made with options" in result.stderr and "name another --out" in result.stderr


@pytest.mark.parametrize("out", ["pictures", "pictures/shards", "other/../pictures"])
def test_shards_among_their_own_input_are_refused_before_any_work(run_cli, out):
    result = run_cli("perceive-dataset", "pictures", "--out", out, "--experts", "spots")
    assert result.exit_code == 1 and f"--out {out} lies in pictures, whose files are the input" in result.stderr
    assert sorted(path.name for path in Path("pictures").iterdir()) == ["a.png", "b.png", "c.png"]


def test_a_recipe_names_its_experts(run_cli, monkeypatch):
    opened = CorpusInput(iter([("train", "a", "pictures/a.png")]), ("spots",), {"spots": {"least": 0.7}})
    monkeypatch.setattr("moai.training.corpus.open_input", lambda *_: opened)
    result = run_cli("perceive-dataset", "some", "--out", "out", "--experts", "reader")
    assert result.exit_code == 1 and "a recipe names its experts; leave out --experts" in result.stderr
    assert run_cli("perceive-dataset", "some", "--out", "out").exit_code == 0
    [expert] = json.loads(Path("out/manifest.json").read_text())["experts"]
    assert expert["name"] == "spots" and expert["options"]["least"] == 0.7


@pytest.mark.parametrize(("error", "code"), [(Terminated(), 143), (KeyboardInterrupt(), 130)])
def test_what_stops_it_says_how_to_go_on(run_cli, monkeypatch, error, code):
    def stopped(*_, **__):
        raise error

    monkeypatch.setattr("moai.perception.corpus.run.perceive_corpus", stopped)
    result = run_cli("perceive-dataset", "pictures", "--out", "out", "--experts", "spots", "--workers", "2")
    assert result.exit_code == code
    line = "stopped; continue with: moai perceive-dataset pictures --out out --experts spots --workers 2"
    assert line in result.stderr


def test_an_unknown_expert_is_a_sentence(run_cli):
    result = run_cli("perceive-dataset", "pictures", "--out", "out", "--experts", "spot")
    assert result.exit_code == 1 and "did you mean 'spots'" in result.stderr and not Path("out").exists()


def test_a_plan_follows_from_what_was_measured(run_cli):
    result = run_cli("plan", "--images", "10M", "--shards", "pictures")
    assert result.exit_code == 1 and "nothing was measured in pictures" in result.stderr
    run_cli("perceive-dataset", "pictures", "--out", "out", "--experts", "spots")
    [measured] = json.loads(Path("out/measured.json").read_text())
    found = json.loads(run_cli("plan", "--images", "10M", "--shards", "out", "--json").stdout)
    assert found["hours"]["4"] == pytest.approx(10**7 * measured["work_seconds"] / 3 / 4 / 3600)
    text = run_cli("plan", "--images", "10M", "--shards", "out").stdout
    assert "10,000,000 images:" in text and f"{found['hours']['1']:,.1f}" in text and "as measured" in text


@pytest.mark.parametrize(
    "arguments", [["--images", "10M"], ["--shards", "out"], ["quickstart", "--images", "5", "--shards", "out"], []]
)
def test_a_plan_is_of_a_recipe_or_of_a_corpus(run_cli, arguments):
    result = run_cli("plan", *arguments)
    assert result.exit_code == 2 and "--images and --shards" in result.stderr
