"""Pairs, crops and prompts of the predicate scorer, and a tiny CLIP through all of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from moai_transformers import Predicates
from moai_transformers.predicates import ACTIONS, crop, gap, near_pairs, prompts
from PIL import Image

from moai.testing import check_expert
from moai.types import Detection, Perception, Relation, check_perception

HORSE, MAN = ("horse", (0.1, 0.3, 0.6, 0.9)), ("man", (0.2, 0.1, 0.5, 0.6))
TREE = ("tree", (0.9, 0.1, 1.0, 0.9))
SEEN = Perception(detections=tuple(Detection(name, 0.9, box) for name, box in (HORSE, MAN, TREE)))


@pytest.mark.slow
def test_it_keeps_the_contract(engine):
    check_expert(Predicates(model=engine("clip"), min_score=0.0, reach=1.0))


def test_near_pairs_come_first_and_far_ones_not_at_all():
    boxes = (HORSE, MAN, TREE)
    assert gap(HORSE[1], MAN[1]) == 0 and gap(HORSE[1], TREE[1]) == pytest.approx(0.3)
    assert near_pairs(boxes, 0.1, 9) == [(HORSE, MAN)]
    assert near_pairs(boxes, 1, 2) == [(HORSE, MAN), (HORSE, TREE)]


def test_recorded_logits_become_relations_in_both_directions():
    expert = Predicates(predicates=("riding", "holding"), min_score=0.7)
    there = [0.0, 0.0, 4.0, 0.0, 0.0]  # nothing, horse riding man, horse holding man, man riding horse, ...
    back, none, unsure = [0.0, 0.0, 0.0, 9.0, 0.0], [9.0, 0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0, 0.0]
    raw = np.array([there, back, none, unsure])
    perceived = expert.to_perception(raw, [(HORSE, MAN), (HORSE, MAN), (HORSE, MAN), (HORSE, TREE)])
    check_perception(perceived)
    assert [(r.subject, r.predicate, r.object) for r in perceived.relations] == [
        ("man", "riding", "horse"),
        ("horse", "holding", "man"),
    ]
    assert perceived.relations[0] == Relation("man", "riding", "horse", 0.9995, MAN[1], HORSE[1])


def test_the_prompts_are_in_the_order_that_the_logits_are_read():
    assert prompts("horse", "man", ("riding",)) == [
        "a photo of a horse and a man",
        "a photo of a horse riding a man",
        "a photo of a man riding a horse",
    ]


def test_a_crop_is_never_empty():
    image = Image.new("RGB", (50, 40))
    corner = (1.0, 1.0, 1.0, 1.0)
    assert min(crop(image, corner, corner).size) >= 1
    assert crop(image, (0.0, 0.5, 0.5, 1.0), (0.4, 0.0, 1.0, 0.5)).size == (50, 40)


def test_the_scores_are_the_models_own(engine):
    expert = Predicates(model=engine("clip"), predicates=("riding", "holding"), min_score=0.0, reach=0.0)
    expert.load()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))
    texts = prompts("horse", "man", ("riding", "holding"))
    with torch.inference_mode():
        inputs = expert._processor(
            text=texts, images=crop(image, HORSE[1], MAN[1]), return_tensors="pt", padding="max_length", truncation=True
        )
        own = expert._model(**inputs).logits_per_image.softmax(-1)[0]
    (perceived,) = expert.perceive([image], [SEEN])
    best = int(own.argmax())
    if best == 0:
        assert perceived == Perception()
    else:
        assert [r.score for r in perceived.relations] == [pytest.approx(float(own[best]), abs=1e-4)]


def test_it_is_careful_unless_told_otherwise(engine):
    assert Predicates().options.min_score >= 0.8 and not Predicates.by_default
    assert len(set(ACTIONS)) == len(ACTIONS)
    expert = Predicates(model=engine("clip"))
    expert.load()
    assert expert.perceive([Image.new("RGB", (60, 60))], [SEEN]) == [Perception()]
