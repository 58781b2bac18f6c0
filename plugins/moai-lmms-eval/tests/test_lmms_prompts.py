"""Conversations of benchmarks: where images stand, few-shot conversations and chain of thought."""

import pytest
import tiny
from moai_lmms_eval.prompts import few_shot_messages, from_messages, from_text

from moai import IMAGE
from moai.errors import ImageError, PromptError
from moai.types import describe_images, with_rationale

RED, BLUE, GREEN = (tiny.picture(color) for color in ("red", "blue", "green"))


def shape(conversation):
    """The conversation in one line: roles, texts, and # for an image."""
    texts = [(turn.role[0], ["#" if part is IMAGE else part for part in turn.content]) for turn in conversation.turns]
    return " | ".join(f"{role}: {''.join(parts)}" for role, parts in texts)


@pytest.mark.parametrize(
    ("text", "images", "expected"),
    [
        ("What is it?", [RED], "u: #What is it?"),
        ("What is it?", [RED, BLUE], "u: ##What is it?"),
        ("First <image>, then <image>.", [RED, BLUE], "u: First #, then #."),
        ("<image>What is it?", [RED], "u: #What is it?"),
        ("The tag <image> is one word.", [RED, BLUE], "u: ##The tag <image> is one word."),
        ("No image, and <image> is a word.", [], "u: No image, and <image> is a word."),
        ("", [RED], "u: #"),
    ],
)
def test_images_stand_at_their_markers_or_in_front(text, images, expected):
    prompt = from_text(text, images)
    assert shape(prompt) == expected
    assert [image.getpixel((32, 32)) for image in prompt.images] == [image.getpixel((32, 32)) for image in images]


def test_a_conversation_keeps_its_turns_and_the_order_of_its_images():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "image", "url": RED}]},
        {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
        {"role": "user", "content": [{"type": "image", "image": tiny.png(BLUE)}, {"type": "text", "text": " b"}]},
    ]
    prompt = from_messages(messages)
    assert shape(prompt) == "s: Be brief. | u: a # | a: red | u: # b"
    assert prompt.turns[-1].text == " b"
    assert [image.getpixel((32, 32)) for image in prompt.images] == [(255, 0, 0), (0, 0, 255)]


def test_examples_are_turns_that_are_answered():
    messages = few_shot_messages([([RED], "color?", "red"), ([], "two?", "2")], [BLUE, GREEN], "colors?")
    assert shape(from_messages(messages)) == "u: #color? | a: red | u: two? | a: 2 | u: ##colors?"


@pytest.mark.parametrize(
    ("messages", "error", "words"),
    [
        ([], PromptError, "does not end with the user's turn"),
        ([{"role": "assistant", "content": "yes"}], PromptError, "does not end with the user's turn"),
        ([{"role": "user", "content": [{"type": "video", "url": "a.mp4"}]}], PromptError, "holds video"),
        ([{"role": "user", "content": [{"type": "image", "url": "none.png"}]}], ImageError, "does not exist"),
    ],
)
def test_what_cannot_be_read_is_said(messages, error, words):
    with pytest.raises(error, match=words):
        from_messages(messages)


def test_chain_of_thought_describes_the_last_images_and_keeps_them():
    messages = few_shot_messages([([RED], "color?", "red")], [BLUE, GREEN], "colors?")
    prompt = from_messages(messages)
    first = describe_images(prompt)
    assert shape(first) == "u: ##Introduce this picture in detail:"
    assert [image.getpixel((32, 32)) for image in first.images] == [(0, 0, 255), (0, 128, 0)]
    second = with_rationale(prompt, " A blue shape.\n")
    assert shape(second) == "u: #color? | a: red | u: ##A blue shape. colors?"
    assert second.images == prompt.images
    assert describe_images(from_text("two?")).images == ()
    assert shape(with_rationale(from_text("", [RED]), "Red.")) == "u: #Red. "
