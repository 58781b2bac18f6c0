"""Which picture of a split is shown, and which of its questions are asked."""

from __future__ import annotations

import itertools

import pytest
from PIL import Image

from moai.data.example import LOOKED_AT, find_example
from moai.errors import DataError
from moai.images import read_image
from moai.types import IMAGE, Choice, Conversation, Perception, Sample, Turn


def asked(image: str, *questions: tuple[str, str]) -> list[Sample]:
    """A sample for each kind and answer."""
    return [
        Sample.from_question(f"{image}-{n}", f"{image}.png", image, f"{kind} {n}?", answer, kind)
        for n, (kind, answer) in enumerate(questions)
    ]


ONE = asked("one", ("count", "two"), ("existence", "yes"))
THREE = asked("three", ("existence", "yes"), ("existence", "no"), ("count", "two"), ("count", "one"), ("place", "left"))


def chosen(samples) -> tuple[str, list[str]]:
    found = find_example(samples)
    return found.image, [sample.question for sample in found.samples]


def test_it_is_the_first_picture_with_three_questions_wherever_these_stand():
    later = asked("later", ("count", "six"), ("place", "top"), ("text", "EXIT"))
    assert chosen([*ONE, *THREE, *later])[0] == "three.png"
    assert chosen([THREE[0], *later, *THREE[1:]])[0] == "three.png"


def test_else_it_is_the_first():
    assert chosen([*ONE, *asked("other", ("text", "EXIT"))]) == ("one.png", ["count 0?", "existence 1?"])


def test_open_questions_come_first_and_each_kind_once():
    assert chosen(THREE) == ("three.png", ["count 2?", "place 4?", "existence 0?"])
    many = asked("many", *((f"kind{n}", "red") for n in range(5)))
    assert chosen(many)[1] == ["kind0 0?", "kind1 1?", "kind2 2?"]
    assert chosen(asked("sure", ("a", "Yes."), ("b", " NO"), ("c", "none")))[1] == ["c 2?", "a 0?", "b 1?"]


def test_what_does_not_ask_about_one_picture_is_left_out():
    choice = tuple(Choice(name, (Turn("user", (IMAGE,)),), (0,), "Yes") for name in ("a", "b"))
    others = [
        Sample.from_question("words", None, "scene", "how many?", "two", truth=Perception()),
        Sample("pair", Conversation.ask("Which?", ("a.png", "b.png"), "left"), ("a", "b")),
        Sample("document", Conversation((Turn("text", (IMAGE, "a garden")),), ("a.png",)), ("a",)),
        Sample("matrix", Conversation.ask("Which?", ("a.png",)), ("a",), answers=("a",), choices=choice),
    ]
    assert find_example(others) is None and find_example([]) is None
    assert chosen([*others, *ONE])[0] == "one.png"


def test_its_picture_is_saved_as_it_is_perceived(tmp_path):
    turned = Image.new("L", (4, 2), 100)
    turned.getexif()[0x0112] = 6  # lies on its side
    turned.save(tmp_path / "one.png", exif=turned.getexif())
    [sample] = asked(str(tmp_path / "one"), ("count", "two"))
    picture = find_example([sample]).save_picture(tmp_path / "run" / "picture.png")
    assert picture.mode == "RGB" and picture.size == (2, 4)
    again = read_image(tmp_path / "run" / "picture.png")
    assert again.size == picture.size and again.tobytes() == picture.tobytes()


def test_a_large_split_is_not_read_to_its_end():
    def rows():
        for number in itertools.count():
            if number == LOOKED_AT:
                raise DataError("too far")
            yield from asked(f"{number}", ("count", "one"))

    assert chosen(rows())[0] == "0.png"


def test_a_row_that_cannot_be_read_is_an_error():
    def rows():
        yield from ONE
        raise DataError("list.jsonl:3: no JSON")

    with pytest.raises(DataError, match="list.jsonl:3"):
        find_example(rows())
