"""The model card of a run folder: card data that the hub reads, and facts from the run's own files."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import ModelCard

from moai.evaluation.paired import Record
from moai.evaluation.summary import summarize
from moai.training.card import run_facts, write_card

EXPERT = {
    "role": "ocr", "version": "2", "distribution": "moai-eyes", "distribution_version": "0.1", "weights": "wheel:eyes",
    "weights_id": "f" * 64, "licence": "<b>MIT</b> | own",
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "name: toy\nseed: 7\nstart: runs/first\ndata: {sources: [{name: org/questions}, {path: a.jsonl}]}\n"
    )
    host = {"reference": "org/host", "revision": "abc", "dtype": "bfloat16", "sha256": {"model.safetensors": "a" * 64}}
    vision = {"reference": "wheel:vision", "kind": "encoder", "sha256": "b" * 64}
    (tmp_path / "config.json").write_text(json.dumps({"host": host, "vision": vision}))
    (tmp_path / "manifest.json").write_text(json.dumps({"moai.safetensors": "c" * 64}))
    about = {"experts": ["eyes"], "expert_versions": {"eyes": EXPERT}, "expert_options": {"eyes": {"least": 0.5}}}
    (tmp_path / "processor_config.json").write_text(json.dumps(about))
    (tmp_path / "training.jsonl").write_text('{"step": 1, "stage": "align"}\n{"step": 9, "stage": "gates"}\n')
    (tmp_path / "moai.safetensors").write_bytes(b"")
    return tmp_path


def test_the_facts_are_those_of_the_files(run):
    about = run_facts(run)
    facts = about["facts"]
    assert facts["Host"] == f"org/host, abc, bfloat16, SHA-256 {'a' * 16}"
    assert facts["Vision"] == f"wheel:vision, SHA-256 {'b' * 16}"
    assert (facts["Data"], facts["Starts as"], facts["Seed"]) == ("org/questions, a.jsonl", "runs/first", "7")
    assert facts["Trained"].endswith(" UTC; 9 steps (align, gates)")
    assert facts["Weights"] == f"moai.safetensors, SHA-256 {'c' * 16}"
    assert about["experts"]["eyes"] == {**EXPERT, "options": {"least": 0.5}}


def test_the_card_is_read_by_the_hub(run):
    texts = {"on": "x", "off": "y", "shuffled": "y"}
    records = [Record(f"q{i}", f"i{i}", "color", "what?", "x", texts) for i in range(6)]
    summary = summarize(records, split="test", seed=0, resamples=50, name="toy", data="questions")
    card = ModelCard.load(write_card(run, summary))
    assert (card.data.library_name, card.data.base_model, card.data.datasets) == ("moai", "org/host", ["org/questions"])
    figures = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert figures["accuracy, perception on"] == 100.0 and figures["accuracy, perception off"] == 0.0
    assert "| eyes | ocr | 2 | moai-eyes 0.1 | wheel:eyes ffffffffffffffff | \\<b\\>MIT\\</b\\> \\| own |" in card.text
    assert "| overall | 6 | 100.0 | 0.0 | 0.0 |" in card.text


def test_a_run_without_evaluation_or_with_damaged_files_has_a_card(run):
    (run / "config.json").write_text("{")
    text = write_card(run).read_text()
    assert "Evaluation" not in text and "base_model" not in text and "| Seed | 7 |" in text
