"""The rule reader of the benchmarks answers what perfect words hold."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from moai_words.samples import words

from moai.evaluation.metrics import exact_match
from moai.perception.words.verbalize import verbalize

FILE = Path(__file__).parents[3] / "benchmarks" / "rule_reader.py"


@pytest.fixture(scope="module")
def reader():
    if not FILE.is_file():
        pytest.skip("the rule reader is in a clone of moai")
    sys.path.insert(0, str(FILE.parent))
    yield importlib.import_module("rule_reader")
    sys.path.remove(str(FILE.parent))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_it_answers_from_perfect_words(split, reader):
    samples = [s for s in words(split, limit=300, mistakes={}) if s.language == "en"]
    texts = [reader.parse(verbalize(s.truths[0], style="compact")) for s in samples]
    right = [exact_match(reader.answer(s.question, t), s.answers) for s, t in zip(samples, texts, strict=True)]
    assert sum(right) / len(right) >= 0.95
    other = texts[40:] + texts[:40]  # another scene's words
    wrong = [exact_match(reader.answer(s.question, t), s.answers) for s, t in zip(samples, other, strict=True)]
    assert sum(wrong) / len(wrong) < 0.5


WORDS = (
    "top left dog, center red car, right bicycle, bottom right person, bottom person. dog left of bicycle, "
    "person #1 on bicycle, red car overlapping left of bicycle, bicycle overlapping right of red car. "
    "top text EXIT ONLY, bottom text 42. two people. one dog. one red car. the picture shows dog, beagle."
)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Is there a dog?", "yes"),
        ("Is there a cat in the picture?", "no"),
        ("Do you see a bike?", "yes"),
        ("How many people are there?", "two"),
        ("How many cats are in the photo?", "zero"),
        ("Where is the dog?", "top left"),
        ("Is the dog on the left or on the right?", "left"),
        ("Is the dog on the right side of the picture?", "no"),
        ("What is to the right of the dog?", "bicycle"),
        ("Is the car touching the bicycle?", "yes"),
        ("Is the person on top of the bicycle?", "yes"),
        ("Is the dog to the left of the cat?", "no"),
        ("What is the person on?", "bicycle"),
        ("What does the text at the top say?", "EXIT ONLY"),
        ("What is written in the image?", "EXIT ONLY 42"),
        ("What color is the car?", "red"),
        ("What animal is in the picture?", "dog"),
        ("What fruit is in the picture?", "none"),
        ("What is in the center?", "red car"),
    ],
)
def test_it_reads_one_perception(question, answer, reader):
    assert reader.answer(question, reader.parse(WORDS)) == answer


@pytest.mark.parametrize(
    ("question", "answer"),
    [("Is there a dog?", "no"), ("What is in the image?", "none"), ("How many dogs are there?", "zero")],
)
@pytest.mark.parametrize("words", ["", "no objects."])
def test_it_reads_that_nothing_was_found(question, answer, words, reader):
    assert reader.answer(question, reader.parse(words)) == answer
