"""The data set `scenes`: splits that share nothing, answers that the truth gives, the same every time."""

from __future__ import annotations

import io
import re
from collections import Counter
from itertools import combinations

import pytest
from moai_scenes import backdrops
from moai_scenes.backdrops import SOURCES
from moai_scenes.layouts import CELLS, PARTS, layouts
from moai_scenes.plan import MARGIN, SIZE, box_of, plan_scene
from moai_scenes.prior import question_prior
from moai_scenes.questions import KINDS
from moai_scenes.render import render
from moai_scenes.scenes import scenes
from moai_scenes.words import (
    COLORS,
    LANGUAGES,
    NUMBERS,
    PLACES,
    SHAPES,
    SPLITS,
    TEST_WORDS,
    TRAIN_WORDS,
    VALIDATION_WORDS,
)
from PIL import Image

from moai.errors import AssetError, RecipeError
from moai.plugins import registry
from moai.types import IMAGE, check_perception, describe

pytest.importorskip("skimage", reason="the backgrounds of scenes come with scikit-image")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def unpainted(monkeypatch):
    """Questions and truth do not need the pixels, which take most of the time."""
    monkeypatch.setattr("moai_scenes.scenes.render", lambda scene: b"not painted")


def plans(split, count=150):
    return [plan_scene(split, index, 0, backdrops.sources(split)) for index in range(count)]


def truth_in(sample):
    [truth] = sample.truths
    return truth


def middle(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def side_of(one, other):
    """Where the centre of one box lies from another's, when it is clear which axis counts; boxes in [0, 1]."""
    (x, y), (u, v) = middle(one), middle(other)
    if abs(y - v) < 0.1:
        return "left of" if x < u else "right of"
    return ("above" if y < v else "below") if abs(x - u) < 0.2 else None


def beyond(one, other, word):
    """Any distance to that side, aligned or not."""
    axis, sign = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}[word]
    return (middle(one)[axis] - middle(other)[axis]) * sign > 0.2


def solve(question, truth):
    """Answer an English question from the boxes and words of the truth alone."""
    boxes = {describe(segment): segment.box for segment in truth.segments}
    words = {line.text: (*map(min, zip(*line.polygon)), *map(max, zip(*line.polygon))) for line in truth.texts}
    if match := re.match(r"Is there an? (.+)\?|Does the image show an? (.+)\?", question):
        return "yes" if (match[1] or match[2]) in boxes else "no"
    if match := re.match(r"How many (\w+?)s? (?:shapes )?are ", question):
        return NUMBERS[sum(match[1] in name.split() for name in boxes)]
    if match := re.match(r"(?:Where|In which part of the image) is the (.+)\?", question):
        x, y = middle(boxes[match[1]])
        return PLACES[int(y * 3) * 3 + int(x * 3)]
    if match := re.match(r"Is the (.+) (on the left|at the top), in the center", question):
        x, y = middle(boxes[match[1]])
        sides = ("left", "center", "right") if "left" in match[2] else ("top", "center", "bottom")
        return sides[int((x if "left" in match[2] else y) * 3)]
    if match := re.match(r"Is the (.+) (left of|right of|above|below) the (.+)\?", question):
        return "yes" if side_of(boxes[match[1]], boxes[match[3]]) == match[2] else "no"
    if match := re.match(r"(?:What|Which) (shape|word) is (left of|right of|above|below) the (.+)\?", question):
        those = boxes if match[1] == "shape" else words
        there = [name for name, box in those.items() if beyond(box, boxes[match[3]], match[2])]
        assert len(there) == 1, f"{question} could mean any of {there}"
        return there[0]
    by_height = sorted(words, key=lambda word: middle(words[word])[1])
    return by_height[-1] if "lower" in question else by_height[0]


@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_can_be_read_from_the_truth(split, unpainted):
    samples = scenes(split, images=60, languages={})
    assert {sample.kind for sample in samples} == set(KINDS)
    for sample in samples:
        assert (sample.question, solve(sample.question, truth_in(sample))) == (sample.question, sample.answer)


def test_the_words_of_a_split_are_its_own():
    printed = {split: {word.text for plan in plans(split, 400) for word in plan.words} for split in SPLITS}
    assert printed["train"] == printed["validation"] == printed["test"] == set(TRAIN_WORDS)
    assert printed["validation-unseen"] == set(VALIDATION_WORDS) and printed["test-unseen"] == set(TEST_WORDS)
    lists = [set(TRAIN_WORDS), set(VALIDATION_WORDS), set(TEST_WORDS)]
    for one, other in combinations(lists, 2):
        assert not one & other
    taken = {*COLORS, *SHAPES, *NUMBERS, *" ".join(PLACES).split()}
    for word in set().union(*lists):
        assert 4 <= len(word) <= 6 and word.isascii() and word.islower() and word not in taken


def test_backgrounds_and_arrangements_are_disjoint():
    for one, other in combinations(PARTS, 2):
        assert not set(SOURCES[one]) & set(SOURCES[other])
        drawn = [{(plan.layout, plan.backdrop.source) for plan in plans(part)} for part in (one, other)]
        for k in (0, 1):
            assert not {pair[k] for pair in drawn[0]} & {pair[k] for pair in drawn[1]}
    shared = [set().union(*(layouts(part, s, w) for s in (3, 4) for w in (1, 2))) for part in PARTS]
    assert all(shared) and not any(one & other for one, other in combinations(shared, 2))


def test_things_keep_apart_and_inside_and_names_are_unique():
    for plan in plans("train"):
        things = [*plan.figures, *plan.words]
        assert len({figure.name for figure in plan.figures}) == len(plan.figures) in (3, 4)
        assert len({word.text for word in plan.words}) == len(plan.words) in (1, 2)
        boxes = [box_of(thing.outline) for thing in things]
        for thing, box in zip(things, boxes, strict=True):
            assert 0 < box[0] and 0 < box[1] and box[2] < SIZE and box[3] < SIZE
            column, row = (int(value * 3 / SIZE) for value in middle(box))
            assert CELLS[thing.cell] == row * 3 + column
        for a, b in combinations(boxes, 2):
            assert max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3]) >= MARGIN


def test_questions_alone_give_little_away(unpainted):
    train, validation = scenes("train", images=500), scenes("validation", images=200)
    prior = question_prior(train, validation)
    assert 0.4 < prior["existence"] < 0.6
    assert prior["count"] < 0.32 and prior["position"] < 0.32
    assert prior["text"] < 0.08 and prior["text_relation"] < 0.08
    relations = [
        [s for s in group if s.kind == "relation" and s.answer not in ("yes", "no")] for group in (train, validation)
    ]
    assert question_prior(*relations)["relation"] < 0.15
    answers = {kind: Counter(s.answer for s in train if s.kind == kind) for kind in KINDS}
    assert answers["existence"]["yes"] == answers["existence"]["no"]
    assert all(0.15 < answers["count"][number] / 500 < 0.25 for number in NUMBERS)
    places = Counter(s.answer for s in train if re.match("Where|In which", s.question))
    assert set(places) == set(PLACES) and max(places.values()) < 0.18 * sum(places.values())


def test_what_is_not_there_is_nearly_there(unpainted):
    for sample in scenes("train", images=60, languages={}):
        if sample.kind == "existence" and sample.answer == "no":
            color, shape = sample.question.rstrip("?").split()[-2:]
            names = {describe(segment) for segment in truth_in(sample).segments}
            assert f"{color} {shape}" not in names
            assert any(color in name or shape in name for name in names)


def test_a_tenth_is_asked_in_korean_and_answered_in_english(unpainted):
    samples = scenes("train", images=200)
    korean = [sample for sample in samples if sample.language == "ko"]
    assert 0.07 < len(korean) / len(samples) < 0.13
    assert {sample.kind for sample in korean} == set(KINDS)
    assert all(re.fullmatch(r"[가-힣 ,]+\?", sample.question) and sample.answer.isascii() for sample in korean)
    assert all(s.question.isascii() and s.language == "en" for s in scenes("train", images=20, languages={}))
    assert all(s.language == "ko" for s in scenes("train", images=20, languages={"ko": 1}))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_question_in_another_language_comes_with_what_it_asks_in_english(language, unpainted):
    asked, plain = (scenes("train", images=40, languages=shares) for shares in ({language: 1}, {}))
    for foreign, english in zip(asked, plain, strict=True):
        names = [word for word in (*COLORS, *SHAPES) if re.search(rf"\b{word}s?\b", english.question)]
        assert foreign.answer == english.answer and english.question_translation is None
        assert names == [
            word for word in (*COLORS, *SHAPES) if re.search(rf"\b{word}s?\b", foreign.question_translation)
        ]


def test_the_same_seed_gives_the_same_bytes_and_more_scenes_contain_fewer(tmp_path):
    few = scenes("validation", images=2, folder=tmp_path / "a")
    more = scenes("validation", images=3, folder=tmp_path / "b")
    assert [(s.id, s.question, s.answer, s.truths) for s in few] == [
        (s.id, s.question, s.answer, s.truths) for s in more[: len(few)]
    ]
    assert [s.images[0].read_bytes() for s in few] == [s.images[0].read_bytes() for s in more[: len(few)]]
    other = scenes("validation", images=2, seed=1, folder=tmp_path / "a")
    assert {s.image_ids for s in few}.isdisjoint(s.image_ids for s in other)
    assert few[0].images[0].read_bytes() != other[0].images[0].read_bytes()
    with Image.open(few[0].images[0]) as picture:
        assert (picture.format, picture.size, picture.mode) == ("JPEG", (SIZE, SIZE), "RGB")


def test_a_limit_draws_questions_and_only_their_pictures_are_drawn(unpainted, tmp_path):
    few = scenes("train", limit=5, images=40, folder=tmp_path)
    drawn = sorted(tmp_path.rglob("*.jpg"))
    assert len(few) == 5 and drawn == sorted({sample.images[0] for sample in few})
    more = scenes("train", limit=20, images=40, folder=tmp_path)
    assert {s.id for s in few} < {s.id for s in more}
    assert len({s.id for s in scenes("train", images=40, folder=tmp_path)}) > 300


def test_kinds_are_chosen_without_another_draw(unpainted):
    every = scenes("train", images=30)
    some = scenes("train", images=30, kinds=["count", "position"])
    assert some == [sample for sample in every if sample.kind in ("count", "position")]
    assert len(scenes("train", limit=9, images=30, kinds=["count"])) == 9
    with pytest.raises(RecipeError, match="kinds has 'counts'; did you mean 'count'"):
        scenes("train", kinds=["counts"])


def test_pictures_on_disk_are_not_drawn_again(unpainted, tmp_path, monkeypatch):
    first = scenes("train", images=2, folder=tmp_path)
    monkeypatch.setattr("moai_scenes.scenes.render", lambda scene: pytest.fail("drawn again"))
    assert scenes("train", images=2, folder=tmp_path) == first


def test_a_picture_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("moai_scenes.scenes.render", lambda scene: "text where bytes belong")
    with pytest.raises(TypeError):
        scenes("train", images=1, folder=tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_truth_keeps_the_contract_and_lies_where_the_picture_shows_it():
    for index, plan in enumerate(plans("train", 8)):
        with Image.open(io.BytesIO(render(plan))) as picture:
            for figure in plan.figures:
                x, y = middle(box_of(figure.outline))
                colour = picture.getpixel((int(x), int(y)))
                assert max(abs(a - b) for a, b in zip(colour, figure.rgb, strict=True)) < 20, (index, figure.name)
    for sample in scenes("validation", images=3):
        check_perception(truth_in(sample))
        assert truth_in(sample).has_panoptic
        for segment in truth_in(sample).segments:
            height, width = segment.mask.height, segment.mask.width
            x, y = middle(segment.box)
            assert segment.mask.decode()[int(y * height), int(x * width)]


@pytest.mark.parametrize("both_ways", [False, True])
def test_the_truth_says_what_geometry_says(both_ways, unpainted):
    geometry = pytest.importorskip("moai_geometry", reason="the plugin moai-geometry").Geometry
    expert = geometry(aligned_only=True, both_ways=both_ways)
    for sample in scenes("test", images=60, both_ways=both_ways):
        found = expert.to_perception(truth_in(sample), (SIZE, SIZE)).relations
        assert [(r.subject, r.predicate, r.object) for r in found] == [
            (r.subject, r.predicate, r.object) for r in truth_in(sample).relations
        ]


@pytest.mark.slow
def test_the_truth_counts_as_tally_does(unpainted):
    expert = pytest.importorskip("moai_tally", reason="the plugin moai-tally").Tally()
    for sample in scenes("test", images=60, counts=True):
        found = expert.to_perception(truth_in(sample)).notes["count"]
        assert sorted(found) == sorted(truth_in(sample).notes["count"]) and "count" in {
            s.role for s in truth_in(sample).sources
        }
        numbers = [NUMBERS.index(sentence.split()[0]) for sentence in truth_in(sample).notes["count"]]
        assert numbers == sorted(numbers, reverse=True)


def test_colors_are_asked_on_request_in_every_language(unpainted):
    plain = scenes("validation", images=60, languages={"ko": 0.3, "pt": 0.3})
    more = scenes("validation", images=60, languages={"ko": 0.3, "pt": 0.3}, kinds=[*KINDS, "color"])
    colors = [sample for sample in more if sample.kind == "color"]
    assert [sample for sample in more if sample.kind != "color"] == plain
    assert {sample.language for sample in colors} == {"en", *LANGUAGES}
    for sample in colors:
        english = sample.question_translation or sample.question
        [shape] = [shape for shape in SHAPES if shape in english]
        assert [s.attributes for s in truth_in(sample).segments if s.label == shape] == [{"color": sample.answer}]


def test_captions_name_all_figures_in_reading_order(unpainted):
    made = scenes("validation", captions=True, limit=20)
    assert len(made) == 20 and {(s.kind, s.conversation.loss) for s in made} == {("caption", "all")}
    for sample in made:
        [turn] = sample.conversation.turns
        index = int(sample.image_ids[0].rpartition("/")[2])
        plan = plan_scene("validation", index, 0, backdrops.sources("validation"))
        figures = {f"{PLACES[figure.cell]} {figure.name}": figure.cell for figure in plan.figures}
        said = turn.content[1].strip(".\n").lower().split(", ")
        assert turn.content[0] is IMAGE and said == sorted(figures, key=figures.get)


def test_wrong_wishes_are_sentences(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'test-unseen'"):
        scenes("test_unseen")
    with pytest.raises(RecipeError, match="images is 0; give at least 1"):
        scenes("train", images=0)
    with pytest.raises(RecipeError, match="limit is -1"):
        scenes("train", limit=-1)
    with pytest.raises(RecipeError, match="languages.ko is 2; give a share between 0 and 1"):
        scenes("train", languages={"ko": 2})
    with pytest.raises(RecipeError, match="languages has 'de'; known: ko, pt"):
        scenes("train", languages={"de": 0.1})
    with pytest.raises(RecipeError, match="the shares of languages add up to 1.2; give 1 at most"):
        scenes("train", languages={"ko": 0.6, "pt": 0.6})
    (tmp_path / "file").write_text("")
    with pytest.raises(AssetError, match="cannot write .*another folder"):
        scenes("train", images=1, folder=tmp_path / "file")


def test_without_scikit_image_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    backdrops.folder.cache_clear()
    with pytest.raises(AssetError, match="pip install scikit-image"):
        scenes("train", images=1)


def test_recipes_find_it_by_name(unpainted):
    assert len(registry().get_dataset("scenes")("test", limit=3)) == 3
