"""Conversations and samples: what they take, what they refuse, and the parts that are read from them."""

from pathlib import Path

import pytest

import moai
from moai.errors import PromptError
from moai.types import IMAGE, Conversation, Perception, Sample, Turn

ASKED = Turn("user", (IMAGE, "What is it?"))


def test_a_turn_holds_texts_and_images_in_any_order():
    turn = Turn("user", ["Is ", IMAGE, " like ", IMAGE, "?", ""])
    assert turn.content == ("Is ", IMAGE, " like ", IMAGE, "?") and turn.images == 2 and turn.text == "Is  like ?"
    assert Turn("user", "alone").content == ("alone",) and Turn("user", IMAGE).content == (IMAGE,)


@pytest.mark.parametrize(
    ("role", "content", "message"),
    [
        ("human", "a", "role is one of system, user, assistant, text, not 'human'"),
        ("user", (IMAGE, b"pixels"), "a tuple of texts and moai.IMAGE marks; put the images into images="),
        ("user", 3, "a tuple of texts and moai.IMAGE marks"),
    ],
)
def test_what_a_turn_cannot_be(role, content, message):
    with pytest.raises(PromptError, match=message):
        Turn(role, content)


@pytest.mark.parametrize(
    ("turns", "images", "message"),
    [
        ((), (), "made of one Turn or more"),
        (("What?",), (), "made of one Turn or more"),
        ((ASKED,), (), "0 images for 1 image marks; put moai.IMAGE into a turn's content"),
        ((Turn("user", "no mark"),), ("a.jpg",), "1 images for 0 image marks"),
        ((ASKED,), "a.jpg", "a list with one image per mark, not one str"),
        ((ASKED,), b"pixels", "not one bytes"),
        ((ASKED,), Path("a.jpg"), "not one "),
        ((Turn("text", "a"), Turn("user", "b")), (), "not both"),
    ],
)
def test_what_a_conversation_cannot_be(turns, images, message):
    with pytest.raises(PromptError, match=message):
        Conversation(turns, images)


def test_a_loss_that_is_none():
    with pytest.raises(PromptError, match="loss is 'assistant' or 'all', not 'none'"):
        Conversation((ASKED,), ("a.jpg",), loss="none")


def test_the_prompt_ends_before_the_answer_that_ends_it():
    turns = (ASKED, Turn("assistant", "red"), Turn("user", (IMAGE, "And this?")), Turn("assistant", "blue"))
    whole = Conversation(turns, ("a.jpg", "b.jpg"))
    assert whole.prompt == Conversation(turns[:3], ("a.jpg", "b.jpg"))
    assert whole.question == "And this?" and whole.answer == "blue"
    assert whole.prompt.prompt == whole.prompt and whole.prompt.question == "And this?" and whole.prompt.answer == ""
    asked = Conversation(turns[:1], ("a.jpg",))
    assert asked.prompt is asked and asked.answer == ""


@pytest.mark.parametrize("one", ["a.jpg", b"pixels", Path("a.jpg")])
def test_one_image_in_the_place_of_a_list_is_refused(one):
    for make in (Conversation.ask, lambda text, images: Conversation.from_messages([], images)):
        with pytest.raises(PromptError, match="a list with one image per mark, not one"):
            make("What?", one)


def test_messages_become_a_conversation():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image", "url": "a.jpg"}, {"type": "text", "text": "Is this"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
        {"role": "user", "content": [{"type": "text", "text": "or "}, {"type": "image"}]},
    ]
    made = Conversation.from_messages(messages, ["b.jpg"])
    assert made.images == ("a.jpg", "b.jpg") and [turn.role for turn in made.turns][:2] == ["system", "user"]
    assert made.turns[1].content == (IMAGE, "Is this") and made.turns[3].content == ("or ", IMAGE)
    with pytest.raises(PromptError, match="a message holds video, and moai takes text and images"):
        Conversation.from_messages([{"role": "user", "content": [{"type": "video"}]}])
    with pytest.raises(PromptError, match="1 images for 2 image marks"):
        Conversation.from_messages(messages)


def test_a_sample_of_one_question():
    made = Sample.from_question("1", "a.jpg", "a", "What is it?", "red", "color", truth=Perception())
    assert made.images == ("a.jpg",) and made.image_ids == ("a",) and made.answers == ("red",)
    assert made.question == "What is it?" and made.answer == "red" and made.truths == (Perception(),)
    text = Sample("2", Conversation.ask("Hello?", answer="hi"))
    assert text.images == () and text.answers == ("hi",) and text.truths is None


def test_a_sample_with_other_numbers_is_named():
    whole = Conversation.ask("What?", ("a.jpg", "b.jpg"), "red")
    with pytest.raises(PromptError, match="sample '3' has 2 images and image_ids for another number"):
        Sample("3", whole, ("a",))
    with pytest.raises(PromptError, match="sample '3' has 2 images and image_ids"):
        Sample("3", whole, "ab")
    with pytest.raises(PromptError, match="sample '3' has 2 images and truths"):
        Sample("3", whole, ("a", "b"), truths=(Perception(),))


def test_they_are_public():
    assert (moai.Conversation, moai.Turn, moai.Sample, moai.IMAGE) == (Conversation, Turn, Sample, IMAGE)
