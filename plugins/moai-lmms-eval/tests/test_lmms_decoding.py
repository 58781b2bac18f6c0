"""What a benchmark's settings mean, and where answers stop."""

import logging

import pytest
import tiny
import torch
from moai_lmms_eval.decoding import Stops, cut, read_decoding

from moai.errors import RecipeError


@pytest.mark.parametrize(
    ("settings", "length", "until", "options"),
    [
        ({}, 32, (), {"do_sample": False}),
        ({"max_new_tokens": 5, "until": "\n"}, 5, ("\n",), {"do_sample": False}),
        ({"max_gen_toks": 7, "until": ["a", ""]}, 7, ("a",), {"do_sample": False}),
        ({"temperature": 0, "do_sample": True, "top_p": 0.5}, 32, (), {"do_sample": False}),
        ({"num_beams": 3}, 32, (), {"do_sample": False, "num_beams": 3}),
        ({"temperature": 0.7, "do_sample": False}, 32, (), {"do_sample": False}),
        ({"temperature": 0.7, "top_p": None}, 32, (), {"do_sample": True, "temperature": 0.7}),
        ({"do_sample": True, "top_k": 4, "max_new_tokens": None}, 32, (), {"do_sample": True, "top_k": 4}),
    ],
)  # fmt: skip
def test_settings_are_read(settings, length, until, options):
    given = dict(settings)
    decoding = read_decoding(settings, 32)
    assert (decoding.max_new_tokens, decoding.until, dict(decoding.options)) == (length, until, options)
    assert settings == given, "the task's own settings were changed"


def test_settings_that_mean_nothing_here_are_named_once(caplog):
    with caplog.at_level(logging.WARNING, logger="moai"):
        for _ in range(2):
            assert read_decoding({"image_aspect_ratio_of_a_test": "pad"}, 8).options == {"do_sample": False}
    assert [r.getMessage() for r in caplog.records if "image_aspect_ratio_of_a_test" in r.getMessage()] != []
    assert len(caplog.records) == 1


def test_no_room_for_an_answer_is_an_error():
    with pytest.raises(RecipeError, match="asks for 0 new tokens"):
        read_decoding({"max_new_tokens": 0}, 8)


@pytest.mark.parametrize(
    ("text", "until", "expected"),
    [
        ("yes\nno", ["\n"], "yes"),
        ("a b c", ["c", "b"], "a "),
        ("abc", ["x"], "abc"),
        ("abc", [], "abc"),
        ("x", ["x"], ""),
    ],
)
def test_an_answer_ends_before_the_first_stop(text, until, expected):
    assert cut(text, until) == expected


def stopped(prompt, answer, until, room=100):
    words = tiny.tokenizer()
    ids = [words(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer)]
    rows = torch.tensor([ids[0] + ids[1]])
    return Stops(words, until, len(ids[0]), torch.tensor([room]))(rows, None).tolist()


def test_a_stop_ends_a_row_only_when_the_answer_holds_it():
    assert stopped("a", "yes\n\n", ["\n\n"]) == [True]
    assert stopped("a", "yes\n", ["\n\n"]) == [False]
    assert stopped("a\n", "\nyes", ["\n\n"]) == [False], "half of the stop is the prompt's"
    assert stopped("stop", "yes", ["stop"]) == [False]
    assert stopped("a", "ß → ¶", ["→ ¶"]) == [True], "characters of several tokens"


def test_a_row_ends_when_its_own_room_is_used_up():
    words = tiny.tokenizer()
    criterion = Stops(words, (), 1, torch.tensor([1, 2, 3]))
    assert criterion(torch.ones(3, 3, dtype=torch.long), None).tolist() == [True, True, False]
    assert criterion(torch.ones(6, 3, dtype=torch.long), None).tolist() == [True, True, True, True, False, False]
