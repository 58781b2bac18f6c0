"""Causes of wrong answers: read wrongly, lost in words, seen wrongly, not seen."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from moai.types import Conversation, Detection, Perception, Sample

FOLDER = Path(__file__).parents[3] / "benchmarks"
DOG, CAT = (0.1, 0.1, 0.4, 0.4), (0.6, 0.6, 0.9, 0.9)


@pytest.fixture
def errors(monkeypatch):
    if not FOLDER.is_dir():
        pytest.skip("what finds the causes is in a clone of moai")
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("photograph_errors")
    for name in ("photograph_errors", "rule_reader", "compact_words"):
        sys.modules.pop(name, None)


def perceived(*things):
    return Perception(detections=tuple(Detection(label, 0.9, box) for label, box in things))


@pytest.mark.parametrize(
    "question, answer, found, cause",
    [
        ("Is there a dog?", "yes", [("dog", DOG)], "read wrongly"),
        ("What is the dog thinking of?", "bones", [("dog", DOG)], "lost in words"),
        ("Is there a dog?", "yes", [("cat", CAT)], "not seen"),
        ("Is there a dog?", "yes", [("horse", DOG)], "seen wrongly"),
        ("Is there a horse?", "no", [("horse", DOG)], "seen wrongly"),
        ("How many dogs are there?", "one", [("dog", DOG), ("dog", (0.1, 0.12, 0.4, 0.42))], "seen wrongly"),
        ("Where is the dog?", "top left", [("dog", (0.7, 0.1, 0.9, 0.3))], "seen wrongly"),
    ],
)
def test_a_wrong_answer_has_one_cause(question, answer, found, cause, errors):
    sample = Sample(id="a", conversation=Conversation.ask(question, (), answer), answers=(answer,))
    truth = perceived(("dog", DOG), ("cat", CAT))
    assert errors.cause_of(sample, perceived(*found), truth) == cause
