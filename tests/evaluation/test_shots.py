"""Few-shot prompts, answers by choosing and rationales, with models that say what they were given."""

import math

import pytest
from PIL import Image

from moai.errors import MoaiError, PromptError, RecipeError
from moai.evaluation.paired import run_conditions
from moai.evaluation.prompting import Rationale
from moai.evaluation.shots import check_fit, with_shots
from moai.types import IMAGE, Choice, Conversation, Perception, Sample, Turn


def picture(shade: int) -> Image.Image:
    return Image.new("L", (2, 2), shade).convert("RGB")


def asked(number: int, image: int, **about) -> Sample:
    return Sample.from_question(
        f"q{number}", picture(image), f"image {image}", f"question {number}?", f"a{number}", **about
    )


TRAINING = [asked(100 + n, 100 + n // 2) for n in range(40)]


def texts(sample: Sample) -> list[str]:
    return [turn.text for turn in sample.conversation.turns]


def test_shots_are_turns_before_the_question_with_their_images_in_order():
    [shot] = with_shots([asked(1, 1)], TRAINING, 3)
    roles = [turn.role for turn in shot.conversation.turns]
    assert roles == ["user", "assistant"] * 4 and texts(shot)[-2:] == ["question 1?", "a1"]
    for place, name in enumerate(shot.image_ids[:3]):
        number = int(texts(shot)[2 * place].removeprefix("question ").removesuffix("?"))
        assert texts(shot)[2 * place + 1] == f"a{number}" and name == f"image {100 + (number - 100) // 2}"
        assert shot.images[place].getpixel((0, 0)) == (100 + (number - 100) // 2,) * 3
    assert shot.image_ids[3] == "image 1" and shot.answers == ("a1",) and shot.question == "question 1?"


def test_shots_are_a_function_of_seed_and_image():
    samples = [asked(1, 1), asked(2, 1), asked(3, 2)]
    first, again, other = (with_shots(samples, TRAINING, 4, seed) for seed in (0, 0, 1))
    assert [texts(s) for s in first] == [texts(s) for s in again] != [texts(s) for s in other]
    assert first[0].image_ids == first[1].image_ids != first[2].image_ids  # two questions about one image share shots


def test_shots_never_show_the_images_of_the_question():
    for sample in with_shots(TRAINING[:10], TRAINING, 8):
        assert sample.image_ids[-1] not in sample.image_ids[:-1] and len(sample.image_ids) == 9


def test_a_system_turn_stays_first_and_shots_have_none():
    system = Turn("system", "Be short.")
    whole = asked(1, 1)
    turns = (system, *whole.conversation.turns)
    sample = Sample("s", Conversation(turns, whole.images), whole.image_ids)
    training = [Sample(s.id, Conversation((system, *s.conversation.turns), s.images), s.image_ids) for s in TRAINING]
    [made] = with_shots([sample], training, 2)
    assert [turn.role for turn in made.conversation.turns] == ["system"] + ["user", "assistant"] * 3


def test_truths_follow_their_images():
    truth = Perception()
    [with_all] = with_shots([asked(1, 1, truth=truth)], [asked(9, 9, truth=truth)], 1)
    [lacking] = with_shots([asked(1, 1, truth=truth)], [asked(9, 9)], 1)
    assert with_all.truths == (truth, truth) and lacking.truths is None


def test_too_few_questions_to_draw_from_is_a_sentence():
    document = Sample("d", Conversation((Turn("text", "words"),), loss="all"))
    with pytest.raises(RecipeError, match="2 shots need .* 1 were found for 'q1'; lower --shots"):
        with_shots([asked(1, 1)], [document, asked(2, 2), asked(3, 1)], 2)
    with pytest.raises(RecipeError, match="is a document and asks nothing; leave --shots out"):
        with_shots([document], TRAINING, 1)


def test_shots_that_do_not_fit_the_context_are_a_sentence():
    def encode(conversation):
        raise PromptError("the prompt has 300 tokens and the host's context holds 192; shorten it")

    with pytest.raises(PromptError, match="^8 shots before 'q1': the prompt has 300 tokens .*; or lower --shots$"):
        check_fit(with_shots([asked(1, 1)], TRAINING, 8), 8, encode)


# Choosing ------------------------------------------------------------------------------------------------------------


class Chooser:
    """Says "Yes" the likelier, the darker the last image; keeps how many prompts came at a time."""

    def __init__(self):
        self.sizes, self.words = [], set()

    def answer(self, conversations, perceptions, max_new_tokens=8):
        return ["generated"] * len(conversations)

    def loglikelihood(self, conversations, perceptions, answers):
        self.sizes.append(len(conversations))
        self.words |= set(answers)
        return [-float(c.images[-1].getpixel((0, 0))[0]) for c in conversations]


def chosen(id: str, shades: dict[str, int], answer: str) -> Sample:
    """An item whose first image is the question, and whose others are its candidates."""
    images = (picture(7), *(picture(shade) for shade in shades.values()))
    ids = tuple(f"{id}/{n}" for n in range(len(images)))
    turns = (Turn("user", ("Here:", IMAGE, "This:", IMAGE, "Is it correct?")),)
    choices = tuple(Choice(name, turns, (0, n + 1), "Yes") for n, name in enumerate(shades))
    whole = Conversation((Turn("user", (*(IMAGE for _ in images), "Which?")), Turn("assistant", answer)), images)
    return Sample(id, whole, ids, choices=choices)


ITEMS = [chosen("one", {"A": 90, "B": 20, "C": 50}, "B"), chosen("two", {"A": 30, "B": 40, "C": 60}, "C")]


def test_the_likeliest_choice_is_the_answer_and_is_scored_by_exact_match():
    model = Chooser()
    one, two, plain = run_conditions(model, [*ITEMS, asked(1, 1)], {}, ["off"], batch_size=3)
    assert (one.predictions["off"], two.predictions["off"], plain.predictions["off"]) == ("B", "A", "generated")
    assert one.choices["off"] == {"A": -90.0, "B": -20.0, "C": -50.0} and plain.choices == {}
    assert model.words == {"Yes"} and max(model.sizes) <= 3 and sum(model.sizes) == 6


def test_choices_keep_their_images_after_shots():
    [item] = with_shots(ITEMS[:1], TRAINING, 2)
    prompt, ids = item.prompts[1]
    assert [turn.role for turn in prompt.turns] == ["user", "assistant"] * 2 + ["user"]
    assert ids[2:] == ("one/0", "one/2") and prompt.images[-1].getpixel((0, 0)) == (20, 20, 20)
    [record] = run_conditions(Chooser(), [item], {}, ["off"])
    assert record.predictions == {"off": "B"}


def test_choices_that_do_not_fit_are_refused():
    turns = (Turn("user", (IMAGE, "?")),)
    base = asked(1, 1)
    for wrong in ([Choice("A", turns, (0,), "Yes")], [Choice("A", turns, (0,), "Yes")] * 2,
                  [Choice("A", turns, (0,), "Yes"), Choice("B", turns, (1,), "Yes")],
                  [Choice("A", turns, (0,), "Yes"), Choice("B", turns, (), "Yes")]):  # fmt: skip
        with pytest.raises(PromptError, match="choice"):
            Sample("s", base.conversation, base.image_ids, choices=tuple(wrong))


def test_a_model_that_cannot_score_says_so():
    class Talker:
        def answer(self, conversations, perceptions, max_new_tokens=8):
            return [""] * len(conversations)

    with pytest.raises(MoaiError, match="answered by choosing, and this model cannot score answers"):
        run_conditions(Talker(), ITEMS, {}, ["off"])


# Rationales ----------------------------------------------------------------------------------------------------------


class Describer:
    """Describes an image by its shade, and answers with the text of the prompt; counts the tokens as words."""

    def __init__(self):
        self.calls = []

    def answer(self, conversations, perceptions, max_new_tokens=8):
        self.calls.append(([c.turns[-1].text for c in conversations], perceptions, max_new_tokens))
        return [f"shade {c.images[-1].getpixel((0, 0))[0]}" if "detail" in c.turns[-1].text else c.turns[-1].text
                for c in conversations]  # fmt: skip

    def token_counts(self, conversations, perceptions):
        return [{"prompt": 10, "auxiliary": 1, "words": 0} for _ in conversations]


def test_a_rationale_takes_two_calls_and_stands_before_the_question():
    model = Describer()
    text_only = Sample("t", Conversation.ask("no image?", answer="x"))
    records = run_conditions(model, [asked(1, 5), text_only], {}, ["off"], 2, rationale=Rationale(max_new_tokens=33))
    assert records[0].predictions["off"] == "shade 5 question 1?" and records[0].rationales == {"off": ["shade 5"]}
    assert records[1].predictions["off"] == "no image?" and records[1].rationales == {}
    assert [(len(texts), limit) for texts, _, limit in model.calls] == [(1, 33), (2, 8)]
    assert records[0].tokens["off"]["prompt"] == 20 and records[1].tokens["off"]["prompt"] == 10


def test_the_first_call_gets_the_perception_of_the_images_that_it_shows():
    model, own, other = Describer(), Perception(), Perception()
    [shot] = with_shots([asked(1, 5)], [asked(9, 9)], 1)
    run_conditions(model, [shot], {"image 5": own, "image 9": other}, ["on"], rationale=Rationale("In detail?"))
    (described, given, _), (_, both, _) = model.calls
    assert described == ["In detail?"] and given[0][0] is own and len(given[0]) == 1
    assert both[0][0] is other and both[0][1] is own


def test_nothing_changes_without_shots_and_rationales():
    model = Describer()
    [record] = run_conditions(model, [asked(1, 5)], {}, ["off"])
    assert len(model.calls) == 1 and record.rationales == {} and math.isclose(record.tokens["off"]["prompt"], 10)
