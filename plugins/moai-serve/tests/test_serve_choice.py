"""One answer token by token: stops, text that is not certain yet, draws, and ends."""

from __future__ import annotations

import collections

import pytest
import torch
from moai_serve.asking import Sampling
from moai_serve.choice import Choice

END = 0


class Letters:
    """A tokenizer whose tokens are bytes; 0 ends an answer."""

    def decode(self, ids, skip_special_tokens=False):
        return bytes(token for token in ids if token != END).decode("utf-8", "replace")


def choice(**options) -> Choice:
    deadline = options.pop("deadline", float("inf"))
    return Choice(0, Sampling(**{"max_tokens": 100, **options}), Letters(), (END,), deadline, follow=True)


def said(one: Choice, text: str) -> list[str]:
    """What is certain after each byte of ``text``, until the answer ends."""
    seen = []
    for token in text.encode():
        if one.ended is None:
            one.add(token, torch.zeros(256))
            seen.append(one.text)
    return seen


def test_text_is_certain_once_no_stop_can_begin_in_it():
    one = choice(stop=("\n\n", "END"))
    assert said(one, "A E\nEN ENDE") == ["A", "A", "A", "A E", "A E", "A E", "A E\nEN", "A E\nEN", "A E\nEN", "A E\nEN"]
    assert (one.text, one.ended) == ("A E\nEN", "stop")


def test_spaces_around_an_answer_are_no_part_of_it():
    one = choice()
    assert said(one, " a b ") == ["", "a", "a", "a b", "a b"]
    one.add(END, torch.zeros(256))
    assert (one.text, one.ended, len(one.tokens)) == ("a b", "stop", 6)


def test_half_a_character_is_not_shown():
    one = choice()
    assert said(one, "aé😀") == ["a", "a", "aé", "aé", "aé", "aé", "aé😀"]


def test_each_text_begins_with_the_one_before():
    one, before = choice(stop=("xyz", "yx")), ""
    for text in said(one, "  xy xyy\n xx\n y xyx"):
        assert text.startswith(before)
        before = text
    assert one.text == "xy xyy\n xx\n y x"


def test_scores_are_of_the_text_before_the_stop():
    one = choice(stop=("cd",), logprobs=True)
    said(one, "abcdef")
    assert [score.token for score in one.scores] == ["a", "b"] and one.text == "ab"


@pytest.mark.parametrize(
    ("sampling", "expected"), [({}, {1: 0.2, 2: 0.3, 3: 0.5}), ({"top_p": 0.6}, {2: 0.375, 3: 0.625})]
)
def test_draws_follow_the_probabilities(sampling, expected):
    logits = torch.tensor([0.0, 0.2, 0.3, 0.5]).log()
    drawn = collections.Counter(choice(temperature=1.0, seed=seed, **sampling).draw(logits) for seed in range(2000))
    assert set(drawn) == set(expected)
    assert all(abs(drawn[token] / 2000 - share) < 0.04 for token, share in expected.items())


def test_a_low_temperature_is_nearly_greedy_and_a_draw_is_repeated():
    logits = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert {choice(temperature=1e-4, seed=seed).draw(logits) for seed in range(20)} == {int(logits.argmax())}
    one, other = (choice(temperature=1.0, seed=3) for _ in range(2))
    assert [one.draw(logits) for _ in range(9)] == [other.draw(logits + 1e-7) for _ in range(9)]


def test_an_answer_ends_by_length_and_by_time():
    one = choice(max_tokens=2)
    assert said(one, "abc") == ["a", "ab"] and one.ended == "length"
    late = choice(deadline=0.0)
    late.check()
    assert late.ended == "late"
