"""`moai ask`."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
from PIL import Image

from moai.perception.explaining.explanation import build_explanation


def test_the_answer_stands_beside_what_was_seen(run_cli, model, picture_file):
    result = run_cli("ask", "runs/toy", picture_file, "What color?")
    assert result.exit_code == 0
    assert "question: What color?" in result.stdout and "answer:   red" in result.stdout
    assert "perceived by spots 3" in result.stdout and "0.75" in result.stdout and "in words: a spot" in result.stdout
    assert "\x1b" not in result.stdout
    assert "expert 'broken' gave nothing, answered without it: RuntimeError: no battery" in result.stderr


def test_json_holds_the_answer_and_what_it_rests_on(run_cli, model, picture_file):
    found = json.loads(run_cli("ask", "runs/toy", picture_file, "What color?", "--json").stdout)
    assert found["question"] == "What color?" and found["verbalized"] == "a spot"
    assert found["perception"]["segments"][0]["label"] == "spot"
    assert found["failures"] == [{"expert": "broken", "reason": "RuntimeError: no battery"}]


def test_experts_can_be_chosen_and_keep_their_options(run_cli, model, picture_file):
    run_cli("ask", "runs/toy", picture_file, "What?", "--experts", "spots,reader", "--max-new-tokens", 3)
    assert [expert.name for expert in model.perceiver.experts] == ["spots", "reader"]
    assert model.perceiver.experts[0].options.least == 0.75
    assert model.asked == [("What?", 3)]
    assert {isolated.time_limit for isolated in model.perceiver._isolated.values()} == {7.0}, "the run's"


def test_the_time_limit_can_be_another_than_the_runs(run_cli, model, picture_file):
    assert run_cli("ask", "runs/toy", picture_file, "What?", "--time-limit", "9,broken=none").exit_code == 0
    assert [isolated.time_limit for isolated in model.perceiver._isolated.values()] == [9.0, None]


def test_no_expert_can_be_chosen(run_cli, model, picture_file):
    result = run_cli("ask", "runs/toy", picture_file, "What?", "--experts", "")
    assert result.exit_code == 0 and model.perceiver.experts == ()
    assert "perceived by no expert" in result.stdout


def test_an_unknown_expert_is_a_sentence(run_cli, model, picture_file):
    result = run_cli("ask", "runs/toy", picture_file, "What?", "--experts", "redaer")
    assert result.exit_code == 1 and "did you mean 'reader'?" in result.stderr


def test_experts_can_be_left_out(run_cli, model, picture_file, monkeypatch):
    asked = []
    ask = type(model).ask
    monkeypatch.setattr(model, "ask", lambda *a, without=(), **k: asked.append(without) or ask(model, *a, **k), False)
    assert run_cli("ask", "runs/toy", picture_file, "What?", "--without", "broken, reader").exit_code == 0
    assert run_cli("ask", "runs/toy", picture_file, "What?").exit_code == 0
    assert asked == [["broken", "reader"], ()]


def test_an_explanation_is_drawn_and_put_into_the_json(run_cli, model, picture_file, monkeypatch, tmp_path):
    numbers = [(0, np.full((1, 3), 1 / 3), np.full((2, 3), 1 / 3), np.ones((1, 1)), np.ones((2, 1)))]
    explanation = build_explanation("spot", [], [(0, 4)], ["What", "?"], numbers, np.ones(1))
    ask = type(model).ask

    def explaining(*args, explain=False, **options):
        assert explain
        return SimpleNamespace(**vars(ask(model, *args, **options)), explanation=explanation)

    monkeypatch.setattr(model, "ask", explaining, False)
    cut = SimpleNamespace(images=SimpleNamespace(fitted=lambda image: image.crop((0, 0, 8, 8))))
    monkeypatch.setattr(model, "processor", cut, False)
    target = tmp_path / "new" / "why.png"
    result = run_cli("ask", "runs/toy", picture_file, "What?", "--explain", target)
    assert result.exit_code == 0 and f"explained in {target}" in result.stdout
    assert Image.open(target).size[0] > 1000
    found = json.loads(run_cli("ask", "runs/toy", picture_file, "What?", "--explain", target, "--json").stdout)
    assert found["explanation"]["words"] == ["spot", "(panoptic map)"]


def test_another_kind_of_picture_is_refused_before_the_model_is_loaded(run_cli, picture_file, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "moai.answering", None)  # importing it would raise
    result = run_cli("ask", "runs/toy", picture_file, "What?", "--explain", "why.txt")
    assert result.exit_code == 1 and result.stderr == "error: 'why.txt' would be a PNG file; end the name in .png\n"


def test_an_unreadable_image_is_found_before_the_model_is_loaded(run_cli, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "moai.answering", None)  # importing it would raise
    result = run_cli("ask", "runs/toy", tmp_path / "missing.png", "What?")
    assert result.exit_code == 1 and result.stderr.startswith("error: ") and "missing.png" in result.stderr
