"""Batches of training with packed rows: those with images stay apart, and the loss is that of unpacked ones."""

import pytest
import tiny

from moai.recipe.stages import Stage, Training
from moai.training.batches import AnswerBatches, Share
from moai.training.word_cache import WordCache
from moai.types import Conversation, Sample


def test_a_mixed_batch_has_the_loss_of_an_unpacked_one():
    model, processor = tiny.made(noise=0.1)
    texts = [Sample(f"t{n}", Conversation.ask(f"What is number {n}?", (), "red")) for n in range(5)]
    samples = [texts[0], tiny.dataset("train")[3], *texts[1:3], tiny.dataset("train")[5], *texts[3:]]
    seen = {image: tiny.seen("red") for sample in samples for image in sample.image_ids}
    stage = Stage(name="gates", steps=1, routing="random_module", image_dropout=0.5)
    share, losses = Share(3, list(range(7)), list(range(7))), []
    for packing in (False, True):
        training = Training(packing=packing, perception_dropout=0.5)
        made = AnswerBatches(
            model, processor, samples, seen, seed=1, training=training, stage=stage, word_cache=WordCache(model)
        )
        batch = made([share])
        losses.append(model(**batch, num_items_in_batch=9).loss.item())
        rows = len(batch["input_ids"])
        assert rows == len(batch["image_keep"]) == len(batch["attention_mask"]) == (3 if packing else 7)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
