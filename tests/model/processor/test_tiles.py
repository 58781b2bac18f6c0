"""Images that are several pictures: crops and the whole, in batches, prompts, answers, plans and the context."""

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from pydantic import ValidationError

import moai
from moai.data.context_fit import fit_context
from moai.errors import DataError, PromptError, RecipeError
from moai.model.processor.processor import MoaiProcessor
from moai.model.processor.tiles import Tiles
from moai.types import IMAGE, Conversation, Sample, Turn

FIVE = {"grid": [2, 2], "thumbnail": True}
COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 0)]
TOKENS = tiny.IMAGE_TOKENS


def parts(tiles=None, **vision):
    return tiny.made(vision={"tiles": tiles, **vision}, mixer={"layers": [0, 2]})


@pytest.fixture(scope="module")
def five():
    return parts(FIVE)


@pytest.fixture(scope="module")
def mixed():
    return parts({**FIVE, "last": 1})


def quarters(width: int = 100, height: int = 60) -> Image.Image:
    """An image with a colour in each quarter, row by row."""
    image = Image.new("RGB", (width, height))
    for index, colour in enumerate(COLOURS):
        image.paste(colour, (index % 2 * width // 2, index // 2 * height // 2, *(
            (index % 2 + 1) * width // 2, (index // 2 + 1) * height // 2)))  # fmt: skip
    return image


def shots(*colours: str) -> Conversation:
    """Questions with one image each, all but the last answered."""
    turns = []
    for colour in colours:
        turns += [Turn("user", (IMAGE, "What color?")), Turn("assistant", colour)]
    return Conversation(tuple(turns[:-1]), [tiny.picture(colour) for colour in colours])


# Cutting ----------------------------------------------------------------------------------------------------------


def test_crops_come_row_by_row_and_the_whole_last():
    whole = quarters()
    cut = Tiles().cut(whole, (32, 32), Image.Resampling.BILINEAR)
    assert [picture.size for picture in cut[:4]] == [(32, 32)] * 4 and cut[4] is whole
    assert [picture.getpixel((16, 16)) for picture in cut[:4]] == COLOURS
    three = Tiles(grid=(3, 1), thumbnail=False)
    assert [picture.size for picture in three.cut(whole, (20, 30), Image.Resampling.BICUBIC)] == [(30, 20)] * 3


def test_the_crops_together_are_the_image_at_twice_the_size():
    whole = tiny.picture("red")
    first, second, third, fourth = map(np.asarray, Tiles().cut(whole, (64, 64), Image.Resampling.BILINEAR)[:4])
    joined = np.vstack([np.hstack([first, second]), np.hstack([third, fourth])])
    assert np.array_equal(joined, np.asarray(whole.resize((128, 128), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize("last, counts", [(None, [5, 5, 5]), (2, [1, 5, 5]), (0, [1, 1, 1]), (9, [5, 5, 5])])
def test_only_the_last_images_are_cut(last, counts):
    assert Tiles(last=last).counts(3) == counts and Tiles(last=last).counts(0) == []


# Batches ----------------------------------------------------------------------------------------------------------


def test_every_count_of_tokens_is_that_of_the_batch(five, mixed):
    for (model, processor), pictures in ((five, [15, 5, 0]), (mixed, [7, 5, 0])):
        asked = [shots("red", "green", "blue"), shots("red"), Conversation.ask("Why?", ())]
        off = [[None] * len(one.images) for one in asked]
        batch = processor.batch(asked, off)
        is_image = batch["input_ids"] == processor.image_token_id
        assert is_image.sum(dim=1).tolist() == [TOKENS * count for count in pictures]
        assert len(batch["pixel_values"]) == sum(pictures)
        used = batch["attention_mask"].sum(dim=1).tolist()
        assert processor.lengths(asked, labels=False) == used
        assert len(processor.prompt_ids("What color?")) == processor.lengths([shots("red")], labels=False)[0]
        counted = moai.Augmented(model, processor, processor.perceiver).token_counts(asked, off)
        assert [one["prompt"] for one in counted] == used
        assert batch["prompt_mask"].sum() >= is_image.sum() == (is_image & batch["prompt_mask"]).sum()


def test_a_row_is_what_it_is_alone_whatever_its_neighbours_are(mixed):
    model, processor = mixed
    asked = [shots("red", "green", "blue"), shots("green"), shots("blue", "red")]
    seen = [[tiny.seen(turn) for turn in ("red", "green", "blue")], [None], [None, tiny.seen("red")]]
    with torch.no_grad():
        batch = processor.batch(asked, seen)
        together = model(**batch).logits
        for row, (one, own) in enumerate(zip(asked, seen, strict=True)):
            alone = model(**processor.batch([one], [own])).logits[0]
            torch.testing.assert_close(together[row, -len(alone) :], alone, atol=1e-4, rtol=1e-4)


def test_each_picture_has_the_features_that_it_has_alone(mixed):
    model, processor = mixed
    images = [tiny.picture("red"), quarters()]
    ids = processor.batch([Conversation.ask("Which?", images)], [[None, None]])
    features = model.images.encode(ids["pixel_values"], ids["input_ids"])[0].split(TOKENS)
    pictures = [images[0], *Tiles().cut(images[1], (64, 64), processor.image_processor.resample)]
    assert len(features) == len(pictures) == 6
    for found, picture in zip(features, pictures, strict=True):
        pixels = processor.image_processor([picture], return_tensors="pt")["pixel_values"]
        alone = model.images.connector(model.images.vision(pixels))[0]
        torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(features[1], features[2], atol=1e-2)


@pytest.mark.parametrize("cached", [True, False])
def test_answers_are_generated_over_several_images(mixed, cached):
    model, processor = mixed
    asked = [shots("red", "green"), shots("blue")]
    batch = processor.batch(asked, [[None, None], [None]])
    out = model.generate(**batch, max_new_tokens=4, do_sample=False, use_cache=cached)
    alone = model.generate(**processor.batch(asked[1:], [[None]]), max_new_tokens=4, do_sample=False)
    assert torch.equal(out[1, -4:], alone[0, -4:])


def test_rows_with_labels_learn_no_image(five):
    _, processor = five
    sample = Sample.from_question("a", tiny.picture("red"), "a", "What?", "red")
    batch = processor.batch([sample.conversation], [[None]], labels=True)
    is_image = batch["input_ids"] == processor.image_token_id
    assert is_image.sum() == 5 * TOKENS and (batch["labels"][is_image] == -100).all()


def test_panoptic_maps_and_explanations_work(five):
    augmented = moai.Augmented(*five, five[1].perceiver)
    seen = augmented.processor.perceive([[tiny.picture("red")]])
    [explanation] = augmented.explain([shots("red")], seen)
    assert explanation.grid is None  # five grids are none; the mean of their tokens is shown
    assert explanation.gates("image").shape == (5 * TOKENS, 3)
    batch = five[1].batch([shots("red")], seen)
    assert batch["aux_pixel_values"].shape == (1, 1, 3, 64, 64)


# Recipes and folders -----------------------------------------------------------------------------------------------


def test_a_saved_processor_cuts_as_before(mixed, tmp_path):
    model, processor = mixed
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = MoaiProcessor.from_pretrained(tmp_path)
    assert again.tiles == processor.tiles
    old, new = (one.batch([shots("red", "green")], [[None, None]]) for one in (processor, again))
    assert torch.equal(old["pixel_values"], new["pixel_values"]) and torch.equal(old["input_ids"], new["input_ids"])


def test_what_does_not_fit_the_context_loses_its_last_exchanges(five):
    _, processor = five
    turns = [Turn("user", (IMAGE, "What color?")), Turn("assistant", "red")] * 8
    images = [tiny.picture("red")] * 8
    sample = Sample("long", Conversation(tuple(turns), images), tuple("abcdefgh"))
    fitted = fit_context(sample, processor, "drop_turns").sample
    [length] = processor.lengths([fitted.conversation])
    assert 0 < len(fitted.images) < 8 and length < tiny.CONTEXT
    with pytest.raises(DataError, match="tokens and the host's context holds 192"):
        fit_context(sample, processor)
    with pytest.raises(PromptError, match="use fewer images"):
        processor.batch([sample.conversation.prompt], [[None] * 8])


def test_a_grid_that_does_not_fit_is_a_sentence():
    tiny.register()
    with pytest.raises(RecipeError, match="an image takes 260 tokens and the host's context holds 192; give vision.ti"):
        parts({"grid": [8, 8]})
    with pytest.raises(ValidationError, match="a grid of one crop cuts nothing"):
        parts({"grid": [1, 1]})
    with pytest.raises(ValidationError, match="tiles"):
        tiny.recipe(vision={"kind": "host", "tiles": FIVE})
