"""Languages of `scenes`: how many questions are asked in each, and Portuguese that agrees in gender and number."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import pytest
from moai_scenes import portuguese
from moai_scenes.questions import KINDS
from moai_scenes.scenes import scenes
from moai_scenes.words import COLORS, SHAPES

pytest.importorskip("skimage", reason="the backgrounds of scenes come with scikit-image")


@pytest.fixture(autouse=True)
def unpainted(tmp_path, monkeypatch):
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("moai_scenes.scenes.render", lambda scene: b"not painted")


def test_by_default_the_draws_are_those_of_english_and_korean_alone():
    splits = [scenes(split, images=60) for split in ("train", "test-unseen")]
    drawn = [(s.id, s.question, s.answer, s.language, s.question_translation) for split in splits for s in split]
    assert hashlib.sha256(repr(drawn).encode()).hexdigest()[:16] == "4067fb288f1bd0ca"


def test_each_language_has_its_share():
    shares = {"ko": 0.3, "pt": 0.2}
    asked = scenes("train", images=200, languages=shares)
    count = Counter(sample.language for sample in asked)
    assert all(abs(count[language] / len(asked) - share) < 0.03 for language, share in shares.items())
    assert count["en"] + count["ko"] + count["pt"] == len(asked)
    kinds = {(sample.language, sample.kind) for sample in asked}
    assert kinds == {(language, kind) for language in ("en", "ko", "pt") for kind in KINDS}
    backwards = scenes("train", images=200, languages={"pt": 0.2, "ko": 0.3})
    assert [s.question for s in backwards] == [s.question for s in asked]


PORTUGUESE = {  # English -> Portuguese, one of each form and gender
    "Is there an orange star?": "Há uma estrela laranja?",
    "Does the image show a red circle?": "A imagem mostra um círculo vermelho?",
    "Where is the purple star?": "Onde está a estrela roxa?",
    "In which part of the image is the blue square?": "Em que parte da imagem está o quadrado azul?",
    "Is the purple square on the left, in the center or on the right?": "O quadrado roxo está à esquerda, no centro ou "
    "à direita?",
    "Is the green circle at the top, in the center or at the bottom?": "O círculo verde está na parte de cima, no "
    "centro ou na parte de baixo?",
    "How many stars are there?": "Quantas estrelas há?",
    "How many triangles are in the image?": "Quantos triângulos há na imagem?",
    "How many blue shapes are there?": "Quantas formas azuis há?",
    "How many orange shapes are there?": "Quantas formas laranja há?",
    "What shape is left of the yellow star?": "Que forma está à esquerda da estrela amarela?",
    "Which shape is above the blue circle?": "Qual é a forma acima do círculo azul?",
    "Is the green star below the blue triangle?": "A estrela verde está abaixo do triângulo azul?",
    "What word is right of the green star?": "Que palavra está à direita da estrela verde?",
    "What word is written in the image?": "Que palavra está escrita na imagem?",
    "What is the upper word?": "Qual é a palavra de cima?",
    "What does the lower text say?": "O que diz o texto de baixo?",
}  # fmt: skip


def test_questions_of_every_form_are_asked_in_portuguese():
    there = {sample.question for sample in scenes("train", images=200, languages={"pt": 1})}
    assert [wanted for wanted in PORTUGUESE.values() if wanted not in there] == []


def test_every_name_agrees_wherever_it_stands():
    """By a list of its own of what agrees: articles, contractions and adjectives of either gender."""
    forms = {
        "m": ("um", "o", "do", "vermelho|laranja|amarelo|verde|azul|roxo"),
        "f": ("uma", "a", "da", "vermelha|laranja|amarela|verde|azul|roxa"),
    }
    for shape in SHAPES:
        indefinite, definite, contracted, adjectives = forms["f" if shape == "star" else "m"]
        for color in COLORS:
            name = f"{color} {shape}"
            noun = rf"{portuguese.SHAPES[shape]} ({adjectives})"
            assert re.fullmatch(f"{indefinite} {noun}", portuguese.a(name))
            assert re.fullmatch(f"{definite} {noun}", portuguese.the(name))
            assert re.fullmatch(f"à direita {contracted} {noun}", portuguese.beside("right of", name))
    asked = [s for s in scenes("train", images=100, languages={"pt": 1})]
    assert all(re.fullmatch(r"[A-ZÀ-Ú][a-zà-úç ,]+\?", s.question) and s.answer.isascii() for s in asked)
