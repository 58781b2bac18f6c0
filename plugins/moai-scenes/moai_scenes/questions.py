"""Ask questions about a scene of `scenes`; an answer is one word, or two for a figure or a place.

Knows: wording, in English, Korean and Portuguese. All questions have English answers, as the printed words are English
and one set of answers is scored by one rule. A place or relation is asked for only where the arrangement leaves no
doubt (`layouts`); the answer's chances do not depend on the question's words, except that yes and no have a half each.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from moai_scenes import portuguese as pt
from moai_scenes.layouts import OPPOSITE, STEPS, open_pairs, shape_pairs, word_pairs
from moai_scenes.plan import Scene
from moai_scenes.words import COLORS, KOREAN, NUMBERS, PLACES, SHAPES, in_korean

KINDS = ("existence", "position", "count", "relation", "text", "text_relation")
ALL_KINDS = (*KINDS, "color")  # the last where a data set's `kinds` names it


class Question(NamedTuple):
    """Hold a question; ``wordings`` maps a language to wordings that all mean the same."""

    kind: str
    wordings: dict[str, tuple[str, ...]]
    answer: str


def ask(scene: Scene, rng: random.Random) -> list[Question]:
    """Ask all questions about a scene: two each of existence, position and relation, one to each word, two more, and
    one for the colour of each shape of which there is one."""
    questions = [
        _existence(rng.choice(scene.figures).name, "yes"),
        _existence(_absent(scene, rng), "no"),
        _place(scene),
        _side(scene, rng),
        _count(scene),
        _open_relation(scene, rng),
        _yes_no_relation(scene, rng),
        *_texts(scene),
        _text_relation(scene, rng),
        *_colors(scene),  # last and without a draw: the others are the same with and without them
    ]
    return questions


def caption(scene: Scene) -> str:
    """Name all figures in reading order, each after its place: "Top left red star, center blue circle."."""
    figures = sorted(scene.figures, key=lambda figure: figure.cell)
    text = ", ".join(f"{PLACES[figure.cell]} {figure.name}" for figure in figures)
    return f"{text[0].upper()}{text[1:]}."


def word_question(question: Question, language: str, rng: random.Random) -> str:
    """Choose one of the wordings."""
    return rng.choice(question.wordings[language])


def _existence(name: str, answer: str) -> Question:
    article = "an" if name[0] in "aeiou" else "a"
    english = (f"Is there {article} {name}?", f"Does the image show {article} {name}?")
    portuguese = (f"Há {pt.a(name)}?", f"A imagem mostra {pt.a(name)}?")
    return Question("existence", {"en": english, "ko": (f"{in_korean(name)}이 있나요?",), "pt": portuguese}, answer)


def _absent(scene: Scene, rng: random.Random) -> str:
    """Choose a name that is not there: mostly a colour and a shape that both are, else one of the two."""
    there = {(figure.color, figure.shape) for figure in scene.figures}
    colors, shapes = ({pair[k] for pair in there} for k in (0, 1))
    absent = [(c, s) for c in COLORS for s in SHAPES if (c, s) not in there and (c in colors or s in shapes)]
    both = [(c, s) for c, s in absent if c in colors and s in shapes]
    return " ".join(rng.choice(both if both and rng.random() < 0.7 else absent))


def _place(scene: Scene) -> Question:
    cell = scene.asked[0]
    name = scene.at(cell).name
    english = (f"Where is the {name}?", f"In which part of the image is the {name}?")
    wordings = {
        "en": english,
        "ko": (f"{in_korean(name)}은 어디에 있나요?",),
        "pt": (f"Onde está {pt.the(name)}?", f"Em que parte da imagem está {pt.the(name)}?"),
    }
    return Question("position", wordings, PLACES[cell])


def _side(scene: Scene, rng: random.Random) -> Question:
    row, column = divmod(scene.asked[1], 3)
    name = scene.at(scene.asked[1]).name
    korean, portuguese = f"{in_korean(name)}은", f"{pt.the(name).capitalize()} está"
    if rng.random() < 0.5:
        english = f"Is the {name} on the left, in the center or on the right?"
        korean = f"{korean} 왼쪽, 가운데, 오른쪽 중"
        portuguese = f"{portuguese} à esquerda, no centro ou à direita?"
        answer = ("left", "center", "right")[column]
    else:
        english, korean = f"Is the {name} at the top, in the center or at the bottom?", f"{korean} 위, 가운데, 아래 중"
        portuguese = f"{portuguese} na parte de cima, no centro ou na parte de baixo?"
        answer = ("top", "center", "bottom")[row]
    return Question("position", {"en": (english,), "ko": (f"{korean} 어디에 있나요?",), "pt": (portuguese,)}, answer)


def _count(scene: Scene) -> Question:
    wanted = scene.counted
    count = sum(wanted in (figure.color, figure.shape) for figure in scene.figures)
    many, korean = (
        (f"{wanted}s", KOREAN[wanted]) if wanted in SHAPES else (f"{wanted} shapes", f"{KOREAN[wanted]} 도형")
    )
    english = (f"How many {many} are there?", f"How many {many} are in the image?")
    portuguese = (f"{pt.how_many(wanted)} há?", f"{pt.how_many(wanted)} há na imagem?")
    return Question("count", {"en": english, "ko": (f"{korean}은 몇 개인가요?",), "pt": portuguese}, NUMBERS[count])


def _open_relation(scene: Scene, rng: random.Random) -> Question:
    pair = rng.choice(open_pairs(scene.layout))
    name = scene.at(pair.object).name
    english = (f"What shape is {pair.predicate} the {name}?", f"Which shape is {pair.predicate} the {name}?")
    korean = f"{in_korean(name)}의 {KOREAN[pair.predicate]}에 어떤 도형이 있나요?"
    where = pt.beside(pair.predicate, name)
    portuguese = (f"Que forma está {where}?", f"Qual é a forma {where}?")
    return Question("relation", {"en": english, "ko": (korean,), "pt": portuguese}, scene.at(pair.subject).name)


def _yes_no_relation(scene: Scene, rng: random.Random) -> Question:
    pair = rng.choice(shape_pairs(scene.layout))
    answer = rng.choice(("yes", "no"))
    predicate = pair.predicate if answer == "yes" else _wrong(pair.predicate, rng)
    subject, object_ = scene.at(pair.subject).name, scene.at(pair.object).name
    korean = f"{in_korean(subject)}은 {in_korean(object_)}의 {KOREAN[predicate]}에 있나요?"
    wordings = {
        "en": (f"Is the {subject} {predicate} the {object_}?",),
        "ko": (korean,),
        "pt": (f"{pt.the(subject).capitalize()} está {pt.beside(predicate, object_)}?",),
    }
    return Question("relation", wordings, answer)


def _wrong(predicate: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return OPPOSITE[predicate]
    return rng.choice([other for other in STEPS if other not in (predicate, OPPOSITE[predicate])])


def _texts(scene: Scene) -> Iterator[Question]:
    words = sorted(scene.words, key=lambda word: word.cell)
    if len(words) == 1:
        english = ("What word is written in the image?", "What does the text say?")
        portuguese = ("Que palavra está escrita na imagem?", "O que diz o texto?")
        yield Question("text", {"en": english, "ko": ("어떤 단어가 적혀 있나요?",), "pt": portuguese}, words[0].text)
        return
    for word, which in zip(words, ("upper", "lower"), strict=True):
        english = (f"What is the {which} word?", f"What does the {which} text say?")
        place = pt.WORD_PLACES[which]
        wordings = {
            "en": english,
            "ko": (f"{KOREAN[which]} 단어는 무엇인가요?",),
            "pt": (f"Qual é a palavra {place}?", f"O que diz o texto {place}?"),
        }
        yield Question("text", wordings, word.text)


def _text_relation(scene: Scene, rng: random.Random) -> Question:
    pair = rng.choice(word_pairs(scene.layout))
    name = scene.at(pair.object).name
    english = (f"What word is {pair.predicate} the {name}?", f"Which word is {pair.predicate} the {name}?")
    korean = f"{in_korean(name)}의 {KOREAN[pair.predicate]}에 어떤 단어가 있나요?"
    where = pt.beside(pair.predicate, name)
    portuguese = (f"Que palavra está {where}?", f"Qual é a palavra {where}?")
    return Question("text_relation", {"en": english, "ko": (korean,), "pt": portuguese}, scene.at(pair.subject).text)


def _colors(scene: Scene) -> Iterator[Question]:
    for shape in SHAPES:
        of_shape = [figure for figure in scene.figures if figure.shape == shape]
        if len(of_shape) == 1:
            english = (f"What color is the {shape}?", f"What is the color of the {shape}?")
            article = pt.the_shape(shape)
            portuguese = (f"De que cor é {article}?", f"Qual é a cor d{article}?")
            wordings = {"en": english, "ko": (f"{KOREAN[shape]}은 무슨 색인가요?",), "pt": portuguese}
            yield Question("color", wordings, of_shape[0].color)
