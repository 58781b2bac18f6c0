"""Runs at hand, their cards, and the command."""

import json
import socket

import pytest
import tiny
from click.testing import CliRunner
from moai_studio.application import build_application, describe_run
from moai_studio.runs import Runs, card, curves, evaluations, find_runs
from studio_visitor import Visitor

from moai.cli.main import cli
from moai.errors import CheckpointError, ExpertError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``runs/`` with a tiny run, evaluated and logged, and what is no run."""
    runs = tmp_path_factory.mktemp("at-hand") / "runs"
    run = runs / "tiny"
    model, processor = tiny.made()
    model.save_pretrained(run)
    processor.save_pretrained(run)
    (runs / "notes").mkdir()
    (runs / "half").mkdir()
    (runs / "half" / "config.json").write_text("{}")
    log = [{"step": step, "stage": "modules", "loss": 4.0 / step} for step in range(1, 1001)]
    (run / "training.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log) + '{"step": 10')
    figure = {"value": 0.521, "low": 0.45, "high": 0.59}
    accuracy = {"on": figure, "off": {**figure, "value": 0.367}}
    overall = {"overall": {"n": 286, "accuracy": accuracy}}
    report = {"data": "photographs", "split": "test", "images": 33, "groups": overall}
    for name, text in (("eval", json.dumps(report)), ("eval-broken", "{"), ("eval-other", "[]")):
        (run / name).mkdir()
        (run / name / "report.json").write_text(text)
    return runs


@pytest.fixture(autouse=True)
def no_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path))


def test_finished_runs_are_found(folder, tmp_path):
    assert find_runs(folder) == [folder / "tiny"] and find_runs(tmp_path / "none") == []


def test_a_run_is_listed_with_its_figure_and_opened_once(folder):
    runs = Runs(find_runs(folder))
    [listed] = runs.at_hand()
    assert (listed["id"], listed["name"], listed["accuracy"]) == ("0", "tiny", 0.521)
    assert listed["experts"] == ["tiny-panoptic"]
    opened = runs.open("0")
    assert opened is runs.open("0") and opened.run.ask(tiny.picture("red"), "What is it?").perception.segments
    described = describe_run(opened)
    assert described["answers"] and described["follows"] is False and described["derived"] == []
    runs.warm("0")
    for name in ("1", "../tiny", str(folder / "tiny")):
        with pytest.raises(CheckpointError, match="not at hand"):
            runs.open(name)


def test_a_run_that_was_damaged_says_so_on_the_page(folder, tmp_path):
    broken = tmp_path / "runs" / "broken"
    broken.mkdir(parents=True)
    for name in ("config.json", "moai.safetensors"):
        (broken / name).write_text("{}")
    visitor = Visitor(build_application(Runs([broken])))
    last = visitor.last("runs/0")
    assert last["event"] == "error" and last["message"]


def test_the_card_has_experts_figures_and_curves(folder):
    opened = Runs([folder / "tiny"]).open("0")
    made = card(opened)
    assert made["experts"][0]["name"] == "tiny-panoptic" and made["experts"][0]["licence"]
    assert made["facts"]["Weights"].startswith("moai.safetensors")
    [evaluation] = made["evaluations"] == evaluations(folder / "tiny") and made["evaluations"]
    assert evaluation["questions"] == 286 and evaluation["accuracy"]["off"]["value"] == 0.367
    [curve] = curves(folder / "tiny")
    assert (curve["panel"], curve["name"]) == ("loss", "training") and len(curve["points"]) <= 240
    assert curve["points"][-1][0] == 1000 and curve["points"][0][1] > curve["points"][-1][1]
    json.dumps(made)


def test_experts_are_those_named_or_installed(folder, monkeypatch):
    assert [e.name for e in Runs([], ["tiny-panoptic"]).open("none").perceiver.experts] == ["tiny-panoptic"]
    monkeypatch.setattr("moai_studio.runs.installed_experts", lambda: [])
    with pytest.raises(ExpertError, match="no expert is installed"):
        Runs([]).open("none")


def invoke(*words: object):
    return CliRunner().invoke(cli, ["studio", "--no-browser", *map(str, words)])


def test_the_command_refuses_in_a_sentence(folder, tmp_path):
    assert "holds no finished run" in invoke(folder / "half").output
    assert "did you mean" in invoke("--experts", "tiny-panoptik").output
    assert "--experts names none" in invoke("--experts", ",").output
    assert "address of this machine" in invoke("--host", "http://x", "--runs", folder).output
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "give another --port" in invoke("--port", taken.getsockname()[1], "--runs", folder).output


def test_the_command_serves_the_runs_at_hand(folder, monkeypatch):
    served = {}

    def serve(self, sockets):
        served.update(app=self.config.app, port=sockets[0].getsockname()[1])

    monkeypatch.setattr("uvicorn.Server.run", serve)
    done = invoke("--port", 0, "--runs", folder.parent / "nowhere")
    assert done.exit_code == 0 and f"studio at http://127.0.0.1:{served['port']}/" in done.output
    assert served["app"].key is None and "#key" not in done.output
    done = invoke("--port", 0, "--host", "0.0.0.0", "--runs", folder)
    assert f"/#key={served['app'].key}" in done.output and len(served["app"].key) > 16
