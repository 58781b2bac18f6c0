"""Raven's matrices: the paper's prompt, one right candidate of six, rules that decide it, and scoring by "Yes"."""

from collections import Counter

import pytest
import tiny
from moai_kosmos.raven import ATTRIBUTES, LAYOUTS, draw, draw_item, questions, raven

from moai import IMAGE
from moai.answering import Augmented
from moai.errors import RecipeError
from moai.evaluation.paired import run_conditions
from moai.perception.running.perceiver import Perceiver


def test_the_prompt_is_the_papers():
    for sample in raven("test", items=30):
        shown = {"3 images": ("three", 3), "4 images": ("four", 4), "8 images": ("eight", 8)}[sample.kind]
        for choice in sample.choices:
            [turn] = choice.turns
            assert turn.content == (f"Here are {shown[0]} images:", *(IMAGE,) * shown[1], "The following image is:",
                                    IMAGE, "Is it correct?")  # fmt: skip
            assert choice.word == "Yes" and choice.images[:-1] == tuple(range(shown[1]))
    assert {sample.kind for sample in raven("test")} == {"3 images", "4 images", "8 images"}


def test_a_matrix_of_ones_own_is_asked_about_like_the_items():
    sample = next(sample for sample in raven("test", items=30) if sample.kind == "4 images")
    shown, candidates = sample.images[:4], sample.images[4:]
    asked = questions(shown, candidates)
    assert [one.turns for one in asked] == [choice.turns for choice in sample.choices]
    assert [one.images[-1].tobytes() for one in asked] == [image.tobytes() for image in candidates]
    assert all([image.tobytes() for image in one.images[:4]] == [image.tobytes() for image in shown] for one in asked)
    assert questions(shown[:2], candidates[:1])[0].turns[0].content[0] == "Here are 2 images:"


def test_every_item_has_six_different_candidates_and_places_are_even():
    samples = raven("test", items=120)
    assert all(len({image.tobytes() for image in s.images[-6:]}) == 6 for s in samples)
    places = Counter(s.answer for s in samples)
    assert set(places) == set("ABCDEF") and max(places.values()) < 40  # chance is 20 of 120


def test_the_right_candidate_follows_from_the_rules():
    """Each attribute of the missing figure is decided by those that are shown: by its row, or by the row above."""
    import random

    for number in range(60):
        item = draw_item(random.Random(number))
        rows, columns = LAYOUTS[len(item.shown)]
        right = item.candidates[item.right]
        for name in ATTRIBUTES:
            values = [getattr(figure, name) for figure in item.shown]
            row = values[(rows - 1) * columns :]
            step = values[1] - values[0]
            assert getattr(right, name) == row[-1] + step
        assert sum(candidate == right for candidate in item.candidates) == 1


def test_splits_are_functions_of_the_seed_and_share_no_matrix():
    def pictures(split, seed):
        return [tuple(image.tobytes() for image in s.images) for s in raven(split, items=20, seed=seed)]

    assert pictures("test", 0) == pictures("test", 0) != pictures("test", 1)
    assert raven("test", items=5) == raven("test", items=9)[:5]
    assert not set(pictures("train", 0)) & set(pictures("validation", 0))


def test_training_has_a_right_and_a_wrong_candidate_of_each_matrix():
    samples = raven("train", items=10)
    assert Counter(s.answer for s in samples) == {"Yes": 10, "No": 10}
    for yes, no in zip(samples[::2], samples[1::2], strict=True):
        assert yes.images[-1].tobytes() != no.images[-1].tobytes() and yes.image_ids[:-1] == no.image_ids[:-1]


def test_the_likeliest_yes_wins():
    """A model that knows which images belong together gets all right, whatever else it says more of."""
    samples = raven("test", items=12)

    def bytes_of(conversation):
        return tuple(image.tobytes() for image in conversation.images)

    known = {bytes_of(s.prompts["ABCDEF".index(s.answer)][0]) for s in samples}

    class Knowing:
        def answer(self, conversations, perceptions, max_new_tokens=8):
            raise AssertionError("an item is scored, never generated")

        def loglikelihood(self, conversations, perceptions, answers):
            assert set(answers) == {"Yes"}
            return [-3.0 if bytes_of(c) in known else -3.1 for c in conversations]

    records = run_conditions(Knowing(), samples, {}, ["off"])
    assert all(record.predictions["off"] == record.answer for record in records)


def test_any_run_scores_the_items():
    """Also one with mixers, of another host: the candidate with the highest probability of "Yes" is the answer."""
    model, processor = tiny.made()
    augmented, samples = Augmented(model, processor, Perceiver([])), raven("test", items=3)
    for record in run_conditions(augmented, samples, {}, ["off"]):
        scores = record.choices["off"]
        assert list(scores) == list("ABCDEF") and len(set(scores.values())) > 1
        assert record.predictions["off"] == max(scores, key=scores.get)


def test_figures_of_every_kind_are_drawn_and_differ():
    from moai_kosmos.raven import Figure

    drawn = {draw(Figure(*values)).tobytes() for values in
             [(a, b, c, d) for a in range(5) for b in range(5) for c in range(5) for d in range(5)]}  # fmt: skip
    assert len(drawn) == 625


def test_what_it_has_not_is_refused():
    with pytest.raises(RecipeError, match="raven has no split 'tset'; did you mean 'test'"):
        raven("tset")
    with pytest.raises(RecipeError, match="items is 0; give at least 1"):
        raven("test", items=0)
