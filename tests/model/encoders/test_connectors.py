"""Connectors: what they are called with, how many tokens they give, and one that reads the text of its prompt."""

import pytest
import tiny
import torch
from torch import nn

from moai.errors import RecipeError
from moai.model.encoders.connectors import VisionOutput, builtin_connectors
from moai.plugins import registry
from moai.types import Conversation


def output(grid=(4, 4), width=6, images=2):
    patches = torch.randn(images, grid[0] * grid[1], width, generator=torch.Generator().manual_seed(0))
    return VisionOutput(patches, patches.mean(dim=1), grid)


@pytest.mark.parametrize("name", ["mlp", "linear", "average"])
@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
def test_the_token_count_is_known_before_it_runs(name, grid):
    connector = builtin_connectors()[name](6, 8)
    tokens = connector(output(grid))
    assert tokens.shape == (2, connector.tokens(grid[0] * grid[1]), 8)
    assert connector.spatial


def test_average_pooling_is_the_mean_of_each_part_of_the_grid():
    connector = builtin_connectors()["average"](6, 8, side=2)
    given = output((4, 4))
    corner = given.patches.unflatten(1, (4, 4))[:, :2, :2].mean(dim=(1, 2))
    torch.testing.assert_close(connector(given)[:, 0], connector.project(corner))
    with pytest.raises(RecipeError, match="average pools a grid, and the encoder's 16 tokens form none"):
        connector(given._replace(grid=None))


class TextGuided(nn.Module):
    """A text-aware connector as a plugin would write it, after Parrot: the class token weighs the prompt's words."""

    reads_text = True

    def __init__(self, in_width, out_width):
        super().__init__()
        self.project, self.ask = nn.Linear(in_width, out_width), nn.Linear(in_width, out_width)
        self.calls = []

    def forward(self, vision, text):
        self.calls.append(text)
        tokens = self.project(vision.patches)
        if text is None:  # a panoptic map belongs to no prompt
            return tokens
        pooled = self.ask(vision.patches.mean(dim=1))
        scores = (text.embeddings.to(pooled.dtype) @ pooled[:, :, None])[..., 0].masked_fill(~text.mask, -1e9)
        return tokens + (scores.softmax(dim=1)[..., None] * text.embeddings.to(tokens.dtype)).sum(dim=1)[:, None]

    def tokens(self, patches):
        return patches


@pytest.fixture
def guided(monkeypatch):
    monkeypatch.setitem(registry().connectors, "guided", TextGuided)
    vision = tiny.recipe().vision.model_dump()
    return tiny.made(vision={**vision, "connector": {"kind": "guided"}})


def logits(model, batch):
    with torch.no_grad():
        return model(**{name: value for name, value in batch.items() if name != "labels"}).logits


def test_a_text_aware_connector_gets_the_prompt_of_each_image(guided):
    model, processor = guided
    images = [tiny.picture("red"), tiny.picture("blue"), tiny.picture("green")]
    asked = [Conversation.ask("What color?", images[:1], "red"), Conversation.ask("Which two?", images[1:], "both")]
    batch = processor.batch(asked, [[None], [None, None]], labels=True)
    model.images.connector.calls.clear()
    together = logits(model, batch)
    [text] = model.images.connector.calls
    assert text.embeddings.shape[:2] == text.mask.shape and len(text.mask) == 3
    words, table = batch["prompt_mask"] & (batch["input_ids"] != processor.image_token_id), model.get_input_embeddings()
    for image, row in enumerate((0, 1, 1)):
        assert torch.equal(text.embeddings[image][text.mask[image]], table(batch["input_ids"][row][words[row]]))
    for row, conversation in enumerate(asked):
        single = processor.batch([conversation], [[None] * len(conversation.images)], labels=True)
        real = batch["attention_mask"][row].bool()
        torch.testing.assert_close(together[row][real], logits(model, single)[0], atol=1e-4, rtol=0)


def test_answers_do_not_reach_a_text_aware_connector(guided):
    model, processor = guided
    image = [tiny.picture("red")]
    one, two = (
        processor.batch([Conversation.ask("What color?", image, answer)], [[None]], labels=True)
        for answer in ("red", "blue")
    )
    prompt = int(one["prompt_mask"].sum())
    torch.testing.assert_close(logits(model, one)[0, :prompt], logits(model, two)[0, :prompt])


def test_a_text_aware_connector_generates_as_it_reads(guided):
    model, processor = guided
    batch = dict(processor.batch([Conversation.ask("What color?", [tiny.picture("red")])], [[tiny.seen("red")]]))
    cached = model.generate(**batch, max_new_tokens=4, do_sample=False)
    assert torch.equal(cached, model.generate(**batch, max_new_tokens=4, do_sample=False, use_cache=False))
    assert (
        cached[0, batch["input_ids"].shape[1]]
        == logits(model, batch)[0, -1].index_fill(0, torch.tensor([processor.image_token_id]), -torch.inf).argmax()
    )
