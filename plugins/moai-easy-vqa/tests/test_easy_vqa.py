"""easy-VQA: splits that share no image, a draw that is seeded and nested, and errors that name the fix."""

import json

import pytest
from moai_easy_vqa import easy_vqa, kind_of

import moai
from moai.errors import AssetError, RecipeError
from moai.types import Turn

TRAIN_IMAGES, TEST_IMAGES = 40, 5
PINNED_VALIDATION = [1, 11, 18, 26]  # a change here would let trained-on images into validation


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The data set's layout with three questions per image (the images themselves are not read here)."""
    root = tmp_path_factory.mktemp("easy_vqa")
    for split, images in (("train", TRAIN_IMAGES), ("test", TEST_IMAGES)):
        (root / split).mkdir()
        rows = []
        for image in range(images):
            rows += [
                ["what shape is this?", "circle", image],
                ["what color is it?", "teal", image],
                ["is it red?", "no", image],
            ]
        (root / split / "questions.json").write_text(json.dumps(rows))
    return root


def images_of(samples):
    return {image for s in samples for image in s.image_ids}


def test_the_splits_share_no_image_and_lose_no_question(folder):
    train, validation, test = (easy_vqa(split, folder=folder) for split in ("train", "validation", "test"))
    assert len(images_of(validation)) == TRAIN_IMAGES // 10
    assert len(train) + len(validation) == 3 * TRAIN_IMAGES
    assert len(test) == 3 * TEST_IMAGES
    assert not images_of(train) & images_of(validation)
    assert not (images_of(train) | images_of(validation)) & images_of(test)
    assert len({s.id for s in train + validation + test}) == 3 * (TRAIN_IMAGES + TEST_IMAGES)


def test_the_validation_images_are_fixed(folder):
    assert sorted(images_of(easy_vqa("validation", folder=folder))) == [
        f"easy-vqa/train/{image}" for image in PINNED_VALIDATION
    ]
    assert images_of(easy_vqa("validation", seed=1, folder=folder)) == images_of(easy_vqa("validation", folder=folder))


def test_a_sample_has_path_answer_and_kind(folder):
    first, second, third = easy_vqa("test", folder=folder)[:3]
    assert first.images == (folder / "test" / "images" / "0.png",)
    assert (first.question, first.answer, first.kind) == ("what shape is this?", "circle", "shape")
    assert (second.kind, third.kind) == ("color", "yes/no")
    assert first.image_ids == second.image_ids


def test_captions_are_made_of_what_open_questions_tell(folder, tmp_path):
    [first, *others] = easy_vqa("test", folder=folder, captions=True)
    assert first.conversation.turns == (Turn("text", (moai.IMAGE, "A teal circle.\n")),)
    assert (first.kind, first.conversation.loss, first.image_ids) == ("caption", "all", ("easy-vqa/test/0",))
    assert first.images == (folder / "test" / "images" / "0.png",) and len(others) == TEST_IMAGES - 1
    (tmp_path / "test").mkdir()
    rows = [
        ["is it red?", "no", 0],  # neither colour nor shape
        ["what is the blue shape?", "rectangle", 1],
        ["what color is the shape?", "green", 2],  # no shape
        ["what color is the triangle?", "gray", 3],
    ]
    (tmp_path / "test" / "questions.json").write_text(json.dumps(rows))
    made = easy_vqa("test", folder=tmp_path, captions=True)
    assert [s.conversation.turns[0].content[1] for s in made] == ["A blue rectangle.\n", "A gray triangle.\n"]


def test_a_limit_draws_without_replacement_in_order_by_seed(folder):
    whole = easy_vqa("train", folder=folder)
    drawn = easy_vqa("train", limit=20, seed=3, folder=folder)
    assert len({s.id for s in drawn}) == 20
    assert [s for s in whole if s in drawn] == drawn
    assert drawn == easy_vqa("train", limit=20, seed=3, folder=folder)
    assert drawn != easy_vqa("train", limit=20, seed=4, folder=folder)
    assert set(drawn) < set(easy_vqa("train", limit=30, seed=3, folder=folder))
    assert len({s.kind for s in drawn}) == 3


def test_a_limit_above_the_split_gives_the_whole_split(folder):
    assert easy_vqa("test", limit=10**6, folder=folder) == easy_vqa("test", folder=folder)


@pytest.mark.parametrize(("answer", "kind"), [("yes", "yes/no"), ("triangle", "shape"), ("gray", "color")])
def test_the_kind_follows_the_answer(answer, kind):
    assert kind_of(answer) == kind


def test_an_unknown_split_and_an_empty_limit_name_the_fix(folder):
    with pytest.raises(RecipeError, match="did you mean 'validation'"):
        easy_vqa("validaton", folder=folder)
    with pytest.raises(RecipeError, match="give at least 1"):
        easy_vqa("train", limit=0, folder=folder)


def test_a_missing_or_damaged_data_set_is_a_sentence(tmp_path):
    with pytest.raises(AssetError, match="give the folder that holds"):
        easy_vqa("test", folder=tmp_path)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "questions.json").write_text('[["what", "circle"]]')
    with pytest.raises(AssetError, match="damaged.*copy the data set again"):
        easy_vqa("test", folder=tmp_path)
