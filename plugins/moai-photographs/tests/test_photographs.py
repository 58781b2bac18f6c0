"""The list of `photographs`: balance, truth and answers that fit each other, the freeze; the pictures are slow."""

from __future__ import annotations

import re
from collections import Counter
from itertools import groupby
from pathlib import Path

import pytest
from moai_photographs.answers import NUMBERS, accepted
from moai_photographs.photographs import KINDS, SPLITS, list_hash, photographs, questions, truths
from moai_photographs.pictures import Picture, pictures

from moai.errors import AssetError, RecipeError
from moai.evaluation.metrics import exact_match, normalize
from moai.types import check_perception, describe

ROOT = Path(__file__).parents[3]
# Other words by which questions call what the truth has.
CALLED = {
    "animal": {"quokka", "squirrel", "dog", "cat", "butterfly", "monkey", "bird"},
    "building": {"castle", "house"},
    "computer mouse": {"mouse"},
    "fruit": {"apple", "orange", "banana", "lemon", "lime", "kiwi"},
    "insect": {"butterfly"},
    "leaf": {"leaves"},
    "street": {"road"},
    "vehicle": {"car", "van", "bus", "motorcycle", "airplane", "rocket", "space shuttle"},
    "sheet of paper": {"paper"},
    "bunch of flowers": {"flower"},
    "pair of scissors": {"scissors"},
    "skier": {"person"},
    "yellow traffic cone": {"yellow traffic cone"},
}
PLURALS = {
    "people": "person",
    "computer mice": "computer mouse",
    "boxes": "box",
    "buses": "bus",
    "arches": "arch",
    "ties": "tie",
}


@pytest.fixture
def without_pictures(monkeypatch):
    """As if every picture had been found; nothing is downloaded."""
    monkeypatch.setattr(Picture, "find", lambda picture: Path(f"{picture.name}.png"))


def of_kind(kind, split):
    return [question for question in questions() if question["kind"] == kind and question["split"] == split]


def share_of_yes(rows):
    said = [row["answers"][0] for row in rows if row["answers"][0] in ("yes", "no")]
    return said.count("yes"), said.count("no")


def names_in(name):
    """What the truth of a photograph has: labels, with and without their colour."""
    truth = truths()[name]
    found = [*truth.segments, *truth.detections]
    return [item.label for item in found] + [describe(item) for item in found if getattr(item, "attributes", None)]


def single(noun):
    noun = PLURALS.get(noun, noun)
    kept = noun.endswith(("us", "ss", "ies")) or noun in ("scissors", "glasses", "leaves", "medals")
    return noun[:-1] if noun.endswith("s") and not kept else noun


def there(name, noun):
    """How many things of the truth a noun names."""
    noun = re.sub(r"^(a|an|any|some) ", "", noun)
    wanted = {noun, single(noun)} | CALLED.get(single(noun), set()) | CALLED.get(noun, set())
    return sum(label in wanted for label in names_in(name))


def boxes_of(name, noun):
    """The boxes of the things or lines of text that a noun names, with or without their colour."""
    truth = truths()[name]
    found = [(item.box, {item.label, describe(item)}) for item in (*truth.segments, *truth.detections)]
    found += [((*line.polygon[0], *line.polygon[2]), {line.text}) for line in truth.texts]
    return [box for box, called in found if {noun, single(noun)} & called]


def test_there_are_fifty_photographs_and_a_third_is_set_aside():
    by_split = {split: {row["name"] for row in questions() if row["split"] == split} for split in SPLITS}
    assert len(by_split["test"]) == 33 and len(by_split["tuning"]) == 17
    assert not by_split["test"] & by_split["tuning"]
    assert by_split["test"] | by_split["tuning"] == set(pictures()) == set(truths())
    assert len({picture.sha256 for picture in pictures().values()}) == len(pictures())
    assert len(questions()) >= 400 and len(of_kind("existence", "test")) >= 100
    assert min(Counter(row["name"] for row in questions()).values()) >= 5


def test_the_list_is_frozen():
    frozen = re.findall(r"`photographs`[^`]*`([0-9a-f]{64})`", (ROOT / "docs" / "log.md").read_text(encoding="utf-8"))
    assert frozen and frozen[-1] == list_hash(), "the list differs from the one in docs/log.md"


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", ["existence", "position", "relation"])
def test_half_of_the_yes_no_answers_of_each_kind_are_yes(kind, split):
    yes, no = share_of_yes(of_kind(kind, split))
    assert yes == no > 0


@pytest.mark.parametrize("split", SPLITS)
def test_no_answer_to_a_place_or_number_is_a_good_guess(split):
    for kind, most in (("count", 0.46), ("position", 0.25)):
        answers = Counter(row["answers"][0] for row in of_kind(kind, split))
        assert max(answers.values()) <= most * sum(answers.values()), (kind, answers)
    assert set(Counter(row["answers"][0] for row in of_kind("count", split))) <= set(NUMBERS)


def test_what_is_absent_is_asked_for_in_the_words_that_ask_for_what_is_there():
    asked = {kind: {row["question"] for row in questions() if row["kind"] == kind} for kind in ("absent", "identity")}
    shared = asked["absent"] & asked["identity"]
    part = [row for row in questions() if row["kind"] == "absent" and row["question"] in shared]
    assert len(part) >= 0.75 * len([row for row in questions() if row["kind"] == "absent"])


def test_every_question_is_asked_once_of_a_photograph_and_is_a_sentence():
    for _, rows in groupby(questions(), lambda row: row["name"]):
        asked = [row["question"] for row in rows]
        assert len(set(asked)) == len(asked)
        assert all(re.fullmatch(r"[A-Z][^?]*[^? ]\?", text) for text in asked)
    assert len({row["id"] for row in questions()}) == len(questions())
    assert {row["kind"] for row in questions()} == set(KINDS)


def test_existence_fits_the_truth():
    checked = 0
    for row in questions():
        if row["kind"] == "existence":
            noun = re.match(
                r"(?:Is|Are) there (.+?)(?: (?:in the picture|on the table|on the flower))?\?", row["question"]
            )[1]
            text = "text" in noun
            found = len(truths()[row["name"]].texts) if text else there(row["name"], noun)
            assert (found > 0) == (row["answers"][0] == "yes"), (row["name"], row["question"], names_in(row["name"]))
            checked += 1
    assert checked > 150


def test_numbers_fit_the_truth():
    checked = 0
    for row in questions():
        plain = re.fullmatch(r"How many ([a-z ]+?) are there\?", row["question"])
        if row["kind"] == "count" and plain:
            assert there(row["name"], plain[1]) == NUMBERS.index(row["answers"][0]), (row["name"], row["question"])
            checked += 1
    assert checked > 45


def test_left_and_right_top_and_bottom_fit_the_boxes():
    checked = 0
    for row in questions():
        asked = re.fullmatch(
            r"(?:Is|Are) the ([\w ]+) (?:on|at) the (left|top) or (?:on|at) the \w+\?", row["question"]
        )
        boxes = boxes_of(row["name"], re.sub(r"^(number|word) (?=[A-Z\d])", "", asked[1])) if asked else []
        if len(boxes) == 1:
            [box], axis = boxes, ("left", "top").index(asked[2])
            first = box[axis] + box[axis + 2] < 1
            assert row["answers"][0] == (("left", "top") if first else ("right", "bottom"))[axis], row
            checked += 1
    assert checked >= 10


def test_places_are_those_of_the_cells_in_which_boxes_have_their_centre():
    checked = 0
    for row in questions():
        asked = re.fullmatch(r"Where is the (?:number )?([\w ]+)\?", row["question"])
        if not asked:
            continue
        [box] = boxes_of(row["name"], asked[1])
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        across, down = (("left", "", "right")[min(int(x * 3), 2)], ("top", "", "bottom")[min(int(y * 3), 2)])
        assert any(exact_match(f"{down} {across}".strip(), answer) for answer in row["answers"]), (row, x, y)
        checked += 1
    assert checked >= 8


def test_sides_of_one_another_fit_the_boxes():
    checked = 0
    for row in questions():
        asked = re.fullmatch(
            r"Is the ([\w ]+?) (to the left of|to the right of|above|below) the ([\w ]+)\?", row["question"]
        )
        if not asked:
            continue
        centres = []
        for noun in (asked[1], asked[3]):
            boxes = boxes_of(row["name"], re.sub(r"^(number|words?|book) (?=[A-Z\d])", "", noun))
            centres.append([((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for box in boxes])
        if not all(centres):
            continue
        axis, sign = {"left": (0, 1), "right": (0, -1)}.get(
            asked[2].split()[-2:][0], (1, 1 if asked[2] == "above" else -1)
        )
        holds = {sign * (two[axis] - one[axis]) > 0 for one in centres[0] for two in centres[1]}
        assert holds == {row["answers"][0] == "yes"}, row
        checked += 1
    assert checked >= 20


def test_printed_answers_are_in_the_truth_and_open_ones_are_names_of_it():
    for row in questions():
        truth = truths()[row["name"]]
        if row["kind"] == "text":
            lines = normalize(" ".join(line.text for line in truth.texts))
            assert normalize(row["answers"][0]) in lines, row
        if row["kind"] == "identity" or (row["kind"] == "relation" and row["answers"][0] not in ("yes", "no")):
            names = {normalize(name) for name in names_in(row["name"])}
            assert any(single(normalize(answer)) in names for answer in row["answers"]), (row, names)


def test_the_truth_keeps_the_contract_of_experts():
    for name, truth in truths().items():
        check_perception(truth)
        assert truth.sources and (truth.segments or truth.detections or truth.texts), name
        assert all(relation.subject_box and relation.object_box for relation in truth.relations)
        assert type(truth).from_dict(truth.to_dict()) == truth


def test_every_accepted_answer_is_one_after_normalisation():
    for row in questions():
        assert all(normalize(answer) and exact_match(answer, row["answers"]) for answer in row["answers"]), row
        if row["answers"][0] in ("yes", "no"):
            assert len(row["answers"]) == 1
        either = re.search(r"(left|top) or (?:on|at) the (right|bottom)", row["question"])
        if either:
            wrong = either[1] if row["answers"][0] == either[2] else either[2]
            assert not any(wrong in answer.split() for answer in row["answers"]), row


def test_numbers_places_and_nothing_are_accepted_in_other_words():
    assert exact_match("2", accepted("count", ["two"])) and not exact_match("3", accepted("count", ["two"]))
    assert exact_match("0", accepted("count", ["zero"])) and exact_match("None.", accepted("count", ["zero"]))
    assert exact_match("On the left side", accepted("position", ["left"]))
    assert exact_match("in the upper right", accepted("position", ["top right"]))
    assert not exact_match("right", accepted("position", ["top right"]))
    assert exact_match("Nothing", accepted("absent", ["none"])) and accepted("existence", ["no"]) == ("no",)


def test_samples_have_question_answers_and_truth(without_pictures):
    samples = photographs("tuning")
    first = samples[0]
    assert (first.id, first.kind, first.answer) == ("photographs/chelsea/1", "existence", "yes")
    assert first.image_ids == ("photographs/chelsea",) and first.truths == (truths()["chelsea"],)
    assert [sample.id for sample in samples] == [row["id"] for row in questions() if row["split"] == "tuning"]
    assert {sample.kind for sample in photographs(kinds=["count", "text"])} == {"count", "text"}


def test_a_draw_nests(without_pictures):
    few, more = (photographs(limit=limit, seed=3) for limit in (10, 40))
    assert len(few) == 10 and {sample.id for sample in few} < {sample.id for sample in more}
    assert {sample.id for sample in photographs(limit=10, seed=4)} != {sample.id for sample in few}


@pytest.mark.parametrize("split", ["train", "validation", "tunning"])
def test_there_is_nothing_to_train_on(split):
    with pytest.raises(
        RecipeError, match=rf"^the data set photographs has no split '{split}'.*for tests only"
    ) as caught:
        photographs(split)
    assert ("did you mean 'tuning'" in str(caught.value)) == (split == "tunning")


def test_an_unknown_kind_or_limit_is_a_sentence():
    with pytest.raises(RecipeError, match="no questions of the kind 'counts'; did you mean 'count'"):
        photographs(kinds=["counts"])
    with pytest.raises(RecipeError, match="the limit is 0; give at least 1"):
        photographs(limit=0)


def test_another_picture_under_the_name_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "coffee.png"
    path.write_bytes(b"another picture")
    monkeypatch.setattr("moai_photographs.pictures.resolve", lambda reference: path)
    with pytest.raises(
        AssetError, match=r"coffee\.png has SHA-256 .*the picture of scikit-image .*install that version"
    ):
        pictures()["coffee"].find()


def test_experts_that_build_on_others_add_to_the_truth(tmp_path, monkeypatch):
    from PIL import Image

    path = tmp_path / "coffee.png"
    Image.new("RGB", (60, 40)).save(path)
    monkeypatch.setattr(Picture, "find", lambda picture: path)
    wanted = {"geometry": {}, "tally": {}}
    [sample, *_] = [one for one in photographs("tuning", experts=wanted) if one.image_ids == ("photographs/coffee",)]
    [truth] = sample.truths
    assert "one cup." in truth.notes["count"] and truths()["coffee"].notes == {}
    assert set(truth.relations) > set(truths()["coffee"].relations)
    assert {source.expert for source in truth.sources} == {"truth", "geometry", "tally"}


def test_the_page_lists_every_photograph_with_package_and_licence():
    page = (ROOT / "docs" / "photographs.md").read_text(encoding="utf-8")
    for picture in pictures().values():
        [row] = [line for line in page.splitlines() if line.startswith(f"| `{picture.name}` |")]
        assert picture.package in row and picture.licence in row and f"{picture.size[0]} x {picture.size[1]}" in row


@pytest.mark.slow
def test_every_picture_is_found_and_opens():
    """Downloads 140 MB where the cache does not have them."""
    from PIL import Image

    import moai

    for picture in pictures().values():
        path = picture.find()
        with Image.open(path) as image:
            assert image.size == picture.size, picture.name
        assert moai.read_image(path).mode == "RGB"
    assert len(photographs("test")) + len(photographs("tuning")) == len(questions())
