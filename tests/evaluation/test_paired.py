"""Conditions differ in the perception and in nothing else; shuffled never gives an image its own."""

from dataclasses import replace

import pytest

from moai.errors import MoaiError, RecipeError
from moai.evaluation.conditions import derange
from moai.evaluation.journal import Journal
from moai.evaluation.paired import run_conditions
from moai.evaluation.summary import summarize
from moai.images import read_image
from moai.types import Perception


def test_on_off_and_shuffled_give_own_none_and_another(parrot, samples, perceptions):
    for record in run_conditions(parrot, samples, perceptions):
        assert record.predictions["on"] == record.image_id
        assert record.predictions["off"] == "nothing"
        assert record.predictions["shuffled"] == record.donor != record.image_id


def test_every_condition_sees_the_same_prompts_in_the_same_batches(parrot, samples, perceptions):
    run_conditions(parrot, samples, perceptions, batch_size=5, max_new_tokens=3)
    assert [len(questions) for _, questions, _, _ in parrot.calls] == [5] * 6 + [2] * 3
    for first in range(0, 9, 3):
        on, off, shuffled = parrot.calls[first : first + 3]
        assert on[1] == off[1] == shuffled[1]
        assert all(a is b is c for a, b, c in zip(on[0], off[0], shuffled[0], strict=True))
        assert on[3] == off[3] == shuffled[3] == 3
    asked = [question for _, questions, _, _ in parrot.calls[::3] for question in questions]
    assert asked == [s.question for s in samples]


def test_the_images_are_the_samples_own(parrot, samples, perceptions):
    run_conditions(parrot, samples, perceptions, conditions=["off"])
    assert [image.getpixel((0, 0)) for image in parrot.calls[0][0][::3]] == [
        (255, 0, 0),
        (0, 128, 0),
        (0, 0, 255),
        (0, 0, 0),
    ]


def test_progress_adds_up_to_questions_times_conditions(parrot, samples, perceptions):
    counts = []
    run_conditions(parrot, samples, perceptions, batch_size=5, progress=counts.append)
    assert counts == [5] * 6 + [2] * 3
    assert sum(counts) == 3 * len(samples)


def test_records_keep_the_order_and_the_fields_of_the_samples(parrot, samples, perceptions):
    records = run_conditions(parrot, samples, perceptions, conditions=["shuffled", "on"])
    assert [((r.image_id,), r.id, r.kind, r.question, r.answer) for r in records] == [
        (s.image_ids, s.id, s.kind, s.question, s.answer) for s in samples
    ]
    assert list(records[0].predictions) == ["shuffled", "on"]


@pytest.mark.parametrize("count", [2, 3, 10, 101])
@pytest.mark.parametrize("seed", range(5))
def test_a_derangement_moves_every_image_and_uses_each_once(count, seed):
    ids = [f"image {i}" for i in range(count)]
    donors = derange(ids, seed)
    assert sorted(donors) == sorted(donors.values()) == sorted(ids)
    assert all(image != donor for image, donor in donors.items())


def test_a_derangement_depends_on_the_seed_and_not_on_the_order():
    ids = [f"image {i}" for i in range(30)]
    assert derange(ids, 1) == derange(reversed(ids), 1)
    assert derange(ids, 1) != derange(ids, 2)


def test_a_shuffled_perception_that_reads_the_same_is_marked(parrot, samples, perceptions):
    box = {"red": 0.1, "green": 0.1, "blue": 0.1, "black": 0.3}
    circle = perceptions["red"].segments[0]
    perceptions = {
        image: replace(p, segments=(replace(circle, box=(box[image], 0.1, 0.5, 0.5)),))
        for image, p in perceptions.items()
    }
    records = run_conditions(parrot, samples, perceptions)
    assert all(r.same_objects for r in records)
    donors = {r.image_id: r.donor for r in records}
    same = {r.image_id for r in records if r.same_words}
    assert same == {image for image, donor in donors.items() if box[image] == box[donor]}
    assert 0 < len(same) < 4


def test_perceptions_that_differ_are_not_marked(parrot, samples, perceptions):
    records = run_conditions(parrot, samples, perceptions)
    assert not any(r.same_words or r.same_objects for r in records)
    plain = run_conditions(parrot, samples, perceptions, conditions=["on", "off"])
    assert {(r.donor, r.same_words, r.same_objects) for r in plain} == {(None, None, None)}


def test_off_needs_no_perceptions(parrot, samples):
    assert run_conditions(parrot, samples, {}, conditions=["off"])[0].predictions == {"off": "nothing"}


def test_an_image_in_which_nothing_was_seen_is_still_on(samples, perceptions):
    class Presence:
        def answer(self, conversations, perceptions, max_new_tokens=8):
            return ["absent" if p is None else "present" for [p] in perceptions]

    records = run_conditions(Presence(), samples, {image: Perception() for image in perceptions})
    assert {tuple(r.predictions.values()) for r in records} == {("present", "absent", "present")}


def test_mistakes_name_the_fix(parrot, samples, perceptions):
    with pytest.raises(RecipeError, match="did you mean 'shuffled'"):
        run_conditions(parrot, samples, perceptions, conditions=["shufled"])
    with pytest.raises(RecipeError, match="each condition once"):
        run_conditions(parrot, samples, perceptions, conditions=["on", "on"])
    with pytest.raises(RecipeError, match="each condition once"):
        run_conditions(parrot, samples, perceptions, conditions=[])
    with pytest.raises(RecipeError, match="give at least 1"):
        run_conditions(parrot, samples, perceptions, batch_size=0)
    with pytest.raises(MoaiError, match="no question"):
        run_conditions(parrot, [], perceptions)
    with pytest.raises(RecipeError, match="'oracle' needs ground truth, and the data set has none for 4 of 4 images"):
        run_conditions(parrot, samples, perceptions, conditions=["on", "oracle"])
    with pytest.raises(RecipeError, match="'noisy:2': give the share"):
        run_conditions(parrot, samples, perceptions, conditions=["noisy:2"])
    with pytest.raises(MoaiError, match="3 images have no perception, first 'black'"):
        run_conditions(parrot, samples, {"red": perceptions["red"]})
    with pytest.raises(MoaiError, match="at least two images"):
        run_conditions(parrot, samples[:3], perceptions)
    assert parrot.calls == []


@pytest.mark.parametrize("metric", [None, lambda prediction, answer: 1.0])
def test_a_sample_without_an_answer_is_named_before_anything_is_answered(parrot, samples, perceptions, metric):
    asked = samples[4].conversation.prompt
    samples[4] = replace(samples[4], conversation=asked, answers=())
    with pytest.raises(MoaiError, match=f"1 of 12 samples have no answer to score by, first '{samples[4].id}'; give"):
        run_conditions(parrot, samples, perceptions, metric=metric)
    assert parrot.calls == []


def test_a_conversation_that_ends_with_the_question_is_scored_by_the_samples_answers(parrot, samples, perceptions):
    asked = replace(samples[0], conversation=samples[0].conversation.prompt, answers=("scarlet", "red"))
    [first, *_] = run_conditions(parrot, [asked, *samples[1:]], perceptions)
    assert first.accepted == ["scarlet", "red"]


def test_a_model_that_loses_an_answer_is_caught(samples, perceptions):
    class Forgetful:
        def answer(self, conversations, perceptions, max_new_tokens=8):
            return ["yes"] * (len(conversations) - 1)

    with pytest.raises(MoaiError, match="11 answers to 12 questions"):
        run_conditions(Forgetful(), samples, perceptions)


# Further conditions -------------------------------------------------------------------------------------------------


def test_oracle_gives_the_data_sets_truth(parrot, samples, perceptions):
    true = [replace(s, truths=(perceptions["red"],)) for s in samples]
    records = run_conditions(parrot, true, perceptions, conditions=["on", "oracle"])
    assert {r.predictions["oracle"] for r in records} == {"red"}
    assert run_conditions(parrot, true, {}, conditions=["oracle"])[0].predictions == {"oracle": "red"}


def test_without_an_expert_the_others_words_are_given(parrot, samples, perceptions):
    reduced = {"fake": dict.fromkeys(perceptions, perceptions["blue"])}
    records = run_conditions(parrot, samples, perceptions, conditions=["on", "leave-one-out"], reduced=reduced)
    assert list(records[0].predictions) == ["on", "without:fake"]
    assert {r.predictions["without:fake"] for r in records} == {"blue"}


def test_noise_is_the_same_for_all_questions_about_an_image(parrot, samples, perceptions):
    records = run_conditions(parrot, samples, perceptions, conditions=["noisy:1"])
    told = {(r.image_id, r.predictions["noisy:1"]) for r in records}
    assert len(told) == 4 and all(image != colour for image, colour in told)


def test_records_say_how_sure_the_experts_were_and_what_answers_cost(parrot, samples, perceptions):
    parrot.token_counts = lambda asked, given: [{"prompt": len(c.question), "auxiliary": 64} for c in asked]
    samples = [replace(samples[0], language="ko"), *samples[1:]]
    first, second, *_ = run_conditions(parrot, samples, perceptions, conditions=["on", "off"])
    assert first.confidence == {"mean": 0.9, "least": 0.9, "items": 1}
    assert (first.language, second.language) == ("ko", "en")
    assert first.tokens["on"] == {"prompt": len(samples[0].question), "auxiliary": 64}


def test_the_data_sets_own_metric_scores_every_condition(parrot, samples, perceptions):
    def overlap(prediction, answer):
        return len(set(prediction) & set(answer)) / len(set(answer))

    [first, *_] = run_conditions(parrot, samples, perceptions, conditions=["on", "off"], metric=overlap)
    assert first.scores == {"on": 1.0, "off": 0.0}


# Interrupted and resumed --------------------------------------------------------------------------------------------


class Tired(Exception):
    pass


def test_an_interrupted_evaluation_goes_on_with_the_same_batches(parrot, samples, perceptions, tmp_path):
    whole = run_conditions(parrot, samples, perceptions, batch_size=5)
    calls, parrot.calls = parrot.calls, []
    answer = parrot.answer

    def tire(*arguments, **more):
        if len(parrot.calls) == 4:  # in the second of three batches
            raise Tired
        return answer(*arguments, **more)

    parrot.answer = tire
    with pytest.raises(Tired):
        run_conditions(parrot, samples, perceptions, batch_size=5, journal=Journal(tmp_path, {"seed": 0}))
    parrot.answer, parrot.calls, counts = answer, [], []
    journal = Journal(tmp_path, {"seed": 0})
    assert len(journal.rows) == 5
    resumed = run_conditions(parrot, samples, perceptions, batch_size=5, journal=journal, progress=counts.append)
    assert resumed == whole and sum(counts) == 3 * len(samples)
    assert [c[1] for c in parrot.calls] == [c[1] for c in calls[3:]], "the first batch is not answered again"


def test_another_image_comes_with_its_perception_and_the_question_stays(parrot, samples, perceptions):
    records = run_conditions(parrot, samples, perceptions, conditions=["on", "other-image"])
    donors = derange({name for s in samples for name in s.image_ids}, 0)
    colors = {name: read_image(image).getpixel((0, 0)) for s in samples for name, image in zip(s.image_ids, s.images)}
    assert all(r.predictions["other-image"] == donors[r.image_id] and r.donor is None for r in records)
    (on, *_), (other, *_) = parrot.calls[:2]
    asked = [sample.image_ids[0] for sample in sorted(samples, key=lambda s: len(s.question))]
    assert [image.getpixel((0, 0)) for image in on] == [colors[name] for name in asked]
    assert [image.getpixel((0, 0)) for image in other] == [colors[donors[name]] for name in asked]
    assert parrot.calls[0][1] == parrot.calls[1][1]


def test_each_language_has_its_own_figures_against_each_baseline(parrot, samples, perceptions):
    mixed = [replace(s, language=("en", "ko", "pt")[n % 3]) for n, s in enumerate(samples)]
    records = run_conditions(parrot, mixed, perceptions, conditions=["on", "other-image"])
    groups = summarize(records, split="test", seed=0)["groups"]
    for language in ("en", "ko", "pt"):
        group = groups[f"language: {language}"]
        assert group["n"] == sum(s.language == language for s in mixed)
        for figure in (*group["accuracy"].values(), group["differences"]["on-other-image"]):
            assert figure["low"] <= figure["value"] <= figure["high"]
