"""The data set `words`: splits that share nothing, words that are the experts', balance, and the same every time."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import pytest
from moai_words.experts import DERIVED, perceive
from moai_words.mistakes import RATES
from moai_words.names import COCO, PARTS, categories_of, is_kind_of, same, vocabulary
from moai_words.phrasings import BESIDE, ENGLISH, KOREAN, PLACE
from moai_words.printed import lists, part_of
from moai_words.questions import KINDS
from moai_words.samples import SPLITS, words
from moai_words.scene import MOST

from moai.errors import ExpertError, RecipeError
from moai.perception.words.verbalize import verbalize
from moai.plugins import registry
from moai.types import check_perception

CONNECTING = set("no the of and to do not you a in on for this up".split())


@cache
def some(split="train", scenes=300, **options):
    return words(split, scenes=scenes, **options)


def compact(sample):
    return verbalize(sample.truths[0], style="compact")


def by_name(part):
    return vocabulary(part).names


def forms(part):
    """All that a name of a part is called, in lower case."""
    return {word.lower() for name in by_name(part).values() for word in (name.text, name.plural, *name.synonyms)}


def test_there_are_names_enough_and_held_out_ones_are_no_part_of_trained_ones():
    trained = forms("train")
    assert len(by_name("train")) > 1000 and set(by_name("train")) >= COCO and len(COCO) == 80
    singles = {word for name in trained for word in name.split()}
    for part in PARTS[1:]:
        assert len(by_name(part)) > 80 and all(len(group) >= 3 for group in vocabulary(part).groups.values())
        assert not forms(part) & (trained | singles)
        assert not any(word in forms(part) for name in trained for word in name.split())
    assert not forms("validation") & forms("test")


def test_printed_words_and_phrasings_of_a_split_are_its_own():
    printed = {part: {word for line in (*lists(part)[0], *lists(part)[1]) for word in line.split()} for part in PARTS}
    held = forms("validation") | forms("test")
    assert not printed["train"] & (printed["validation"] | printed["test"]) - CONNECTING
    assert not printed["validation"] & printed["test"] - CONNECTING and not printed["train"] & held
    assert len(lists("train")[0]) > 300 and {part_of(str(number)) for number in range(99)} == set(PARTS)
    for patterns in (ENGLISH, KOREAN, BESIDE, PLACE):
        for pattern, lines in patterns.items():
            used = [line for part in PARTS for line in lines[part]]
            assert len(set(used)) == len(used) and all(lines[part] for part in PARTS), pattern
    for patterns in (ENGLISH, KOREAN):
        assert {name: len(lines["train"]) for name, lines in patterns.items() if len(lines["train"]) < 5} == {}


@pytest.mark.parametrize("split", ["train", "validation", "test-trained"])
def test_samples_are_perceptions_without_pictures(split):
    samples = some(split, 60)
    assert len({sample.id for sample in samples}) == len(samples) and not any(sample.images for sample in samples)
    for sample in samples:
        [(id, truth)] = sample.perceived.items()
        assert sample.image_ids == (id,) and id in sample.id and sample.kind in KINDS
        assert sample.answers[0] == sample.answer and len(truth.detections) <= 2 * MOST
        check_perception(truth)
    names = {d.label for s in samples for d in s.truths[0].detections}
    known = by_name(SPLITS[split][0])
    assert all(name in known or name.partition(" ")[2] in known for name in names)


def test_the_same_seed_gives_the_same_and_more_scenes_contain_fewer():
    few = words("validation", scenes=8)
    assert few == words("validation", scenes=12)[: len(few)] == words("validation", limit=len(few))
    assert few[:20] != words("validation", scenes=8, seed=1)[:20]
    assert {s.image_ids for s in few}.isdisjoint(s.image_ids for s in words("test", scenes=8))
    assert words("validation", scenes=8, kinds=["count"]) == [s for s in few if s.kind == "count"]


def test_derived_experts_run_by_their_own_code():
    geometry, tally = (registry().get_expert(name)(**options) for name, options in DERIVED.items())
    assert {relation.predicate for s in some() for relation in s.truths[0].relations} >= {
        "inside",
        "on",
        "overlapping left of",
        "above right of",
        "below",
    }
    for sample in some()[:200:10]:
        [truth] = sample.truths
        assert truth.notes.get("count", ()) == tally.to_perception(truth).notes.get("count", ())
        pairs = {frozenset((r.subject, r.object)) for r in truth.relations}
        found = geometry.to_perception(truth, (640, 480)).relations
        assert len(truth.relations) == len(found) <= 8 and pairs <= {
            frozenset((a.label, b.label)) for a in truth.detections for b in truth.detections
        }
    with pytest.raises(ExpertError, match="unknown expert"):
        perceive([], {"nobody": {}})


def test_answers_are_balanced():
    samples = [s for s in some() if s.language == "en"]
    answers = {kind: Counter(s.answer for s in samples if s.kind == kind) for kind in KINDS}
    for kind in ("existence", "relation", "text"):
        assert 0.4 < answers[kind]["yes"] / (answers[kind]["yes"] + answers[kind]["no"]) < 0.6, kind
    numbers = answers["count"]
    assert set(numbers) == set("zero one two three four five six".split())
    total, zero = numbers.total(), numbers.pop("zero")  # for "zero" one has to notice that nothing is said of it
    assert 0.25 < zero / total < 0.42 and max(numbers.values()) < 0.2 * total
    places = Counter(s.answer for s in samples if re.match("Where|In which part|What is the p", s.question))
    assert places["center"] < 0.2 * places.total() and answers["absent"].keys() == {"none"}


def test_absent_names_are_mostly_related_to_what_is_there():
    known, related, total = vocabulary("train"), 0, 0
    for sample in some():
        if sample.kind == "existence" and sample.answer == "no" and sample.truths[0].detections:
            text = compact(sample)
            asked = sample.question_translation.removeprefix("Asked: ")
            assert not re.search(rf"\b{re.escape(asked)}[,.]", text.replace("text", "")), (asked, text)
            name = known.names.get(asked) or known.names[asked.partition(" ")[2]]
            said = [
                known.names.get(d.label) or known.names[d.label.partition(" ")[2]] for d in sample.truths[0].detections
            ]
            said += [known.names[tag] for tag in sample.truths[0].notes.get("tags", ()) if tag in known.names]
            related += any(other.area == name.area for other in said)
            total += 1
    assert total > 200 and related > 0.6 * total


def test_empty_scenes_are_there_and_everything_asked_of_them_is_no():
    empty = [s for s in some() if not s.truths[0].detections and not s.truths[0].texts and not s.truths[0].notes]
    assert len({s.image_ids for s in empty}) > 5
    assert {s.answer for s in empty} <= {"no", "none", "zero"}
    assert {source.role for source in empty[0].truths[0].sources} >= {"open_world", "ocr", "tags"}


def test_what_is_asked_for_stands_in_the_words_of_the_experts():
    for sample in some()[:400]:
        asked, text = sample.question_translation, compact(sample)
        if asked is not None and sample.answer not in ("no", "none", "zero"):
            for part in asked.removeprefix("Asked: ").split("; "):
                assert re.sub(r" #\d+", "", part) in re.sub(r" #\d+", "", text), (sample.question, asked, text)
        if sample.kind in ("count", "position", "attribute") and sample.answer not in ("yes", "no", "none", "zero"):
            column = sample.answer == "center" and " or " in sample.question
            assert column or re.search(rf"\b{sample.answer}\b", text), (sample.question, text)


def test_a_tenth_is_asked_in_korean():
    samples = some()
    korean = [s for s in samples if s.language == "ko"]
    assert 0.07 < len(korean) / len(samples) < 0.13 and all(re.search("[가-힣]", s.question) for s in korean)
    assert not any(s.language == "ko" for s in words("train", scenes=20, languages={}))
    assert not any("{" in s.question for s in samples)


def test_mistakes_are_made_at_their_rates():
    right, wrong = words("train", scenes=60, mistakes={}), words("train", scenes=60, mistakes={"missed": 1.0})
    assert sum(len(s.truths[0].detections) for s in wrong) == 0 < sum(len(s.truths[0].detections) for s in right)
    doubled = words("train", scenes=30, mistakes={"doubled": 1.0})
    single = words("train", scenes=30, mistakes={})
    counts = [{s.image_ids: len(s.truths[0].detections) for s in samples} for samples in (doubled, single)]
    assert counts[0] == {id: 2 * count for id, count in counts[1].items()}
    misread = words("train", scenes=60, mistakes={"misread": 1.0})
    known = {line.casefold() for line in (*lists("train")[0], *lists("train")[1])}
    shares = [
        sum(t.text.casefold() in known for s in samples for t in s.truths[0].texts) for samples in (misread, right)
    ]
    assert shares[0] < 0.2 * shares[1] and set(RATES) == {"missed", "doubled", "misnamed", "misplaced", "misread"}


def test_names_know_what_they_are():
    names = by_name("train")
    assert is_kind_of(names["stop sign"], names["stop sign"]) is False and same(names["dog"], names["beagle"])
    assert is_kind_of(names["eagle"], names["bird"]) and not same(names["hot dog"], names["dog"])
    assert categories_of(names["eagle"]) == ("animal", "bird") and categories_of(names["bus"]) == ("vehicle",)
    assert names["person"].plural == "people" and names["bicycle"].synonyms == ("bike",)


def test_wrong_wishes_are_sentences():
    with pytest.raises(RecipeError, match="no split 'validate'; did you mean 'validation'"):
        words("validate")
    for name, value in (("limit", 0), ("scenes", -1)):
        with pytest.raises(RecipeError, match=f"{name} is {value}; give at least 1"):
            words("train", **{name: value})
    with pytest.raises(RecipeError, match="kinds has 'counts'; did you mean 'count'"):
        words("train", kinds=["counts"])
    with pytest.raises(RecipeError, match="languages has 'pt'"):
        words("train", languages={"pt": 0.1})
    with pytest.raises(RecipeError, match="mistakes.missed is 2; give a share between 0 and 1"):
        words("train", mistakes={"missed": 2})


def test_recipes_find_it_by_name():
    assert len(registry().get_dataset("words")("test", limit=3)) == 3
