"""Any number of turns and images in one batch: rows stay apart, turns stay apart, and answers are never mixed."""

import pytest
import tiny
import torch

from moai.types import IMAGE, Conversation, Turn

TURNS = (
    Turn("user", (IMAGE, "What is it?")), Turn("assistant", "red"),
    Turn("user", ("And ", IMAGE, " this?")), Turn("assistant", "blue"),
    Turn("user", "Sure?"), Turn("assistant", "yes"),
)  # fmt: skip
IMAGES = (tiny.picture("red"), tiny.picture("blue"))
SEEN = [tiny.seen("red circle"), tiny.seen("blue", text="hi")]
LONG = Conversation(TURNS, IMAGES)


@pytest.fixture(scope="module")
def made():
    return tiny.made(mixer={"layers": [0, 2], "rank": 8, "heads": 2, "question_context": 1.0})


def logits(model, batch):
    with torch.no_grad():
        return model(**{name: value for name, value in batch.items() if name != "labels"}).logits


@pytest.mark.parametrize("labels", [True, False])
def test_rows_of_two_one_and_no_images_are_as_if_alone(made, labels):
    model, processor = made
    rows = [
        (Conversation.ask("Hello there?", (), "hi"), []),
        (LONG, SEEN),
        (Conversation.ask("What color?", (tiny.picture("green"),), "green"), [None]),
        (Conversation.ask("Which of the two?", IMAGES[::-1], "both"), [SEEN[1], None]),
    ]
    rows = rows if labels else [(conversation.prompt, seen) for conversation, seen in rows]
    together = processor.batch(*zip(*rows, strict=True), labels=labels)
    found = logits(model, together)
    for index, (conversation, seen) in enumerate(rows):
        single = processor.batch([conversation], [seen], labels=labels)
        alone, real = logits(model, single)[0], together["attention_mask"][index].bool()
        torch.testing.assert_close(found[index][real], alone, atol=1e-4, rtol=0)
        if labels:
            assert together["labels"][index][real].tolist() == single["labels"][0].tolist()


@pytest.mark.parametrize("turn", [1, 2, 3, 4, 5])
def test_a_turn_changes_nothing_before_it(made, turn):
    model, processor = made
    other = Turn(TURNS[turn].role, tuple("altogether other?" if p is not IMAGE else p for p in TURNS[turn].content))
    changed = Conversation((*TURNS[:turn], other, *TURNS[turn + 1 :]), IMAGES)
    one, two = (processor.batch([c], [SEEN], labels=True) for c in (LONG, changed))
    length = min(one["input_ids"].shape[1], two["input_ids"].shape[1])
    same = int((one["input_ids"][0, :length] != two["input_ids"][0, :length]).int().argmax())
    assert same > 5
    torch.testing.assert_close(logits(model, one)[0, :same], logits(model, two)[0, :same], atol=1e-4, rtol=0)


def test_training_on_a_turn_is_what_is_asked_for_it(made):
    """The logits that a loss is taken of are those of a prompt that ends there."""
    model, processor = made
    batch = processor.batch([LONG], [SEEN], labels=True)
    found, labels = logits(model, batch)[0], batch["labels"][0]
    begins = [at for at in range(1, len(labels)) if labels[at] != -100 and labels[at - 1] == -100]
    assert len(begins) == 3
    for begin, turns, images in zip(begins, (1, 3, 5), (1, 2, 2), strict=True):
        asked = Conversation(TURNS[:turns], IMAGES[:images])
        # The same words of perception for each, since the compressor condenses those of all images together.
        prompt = processor.batch([asked], [[*SEEN[:images]]])
        prompt.update({name: value for name, value in batch.items() if name in ("aux_input_ids", "aux_attention_mask")})
        prompt.update({name: batch[name] for name in ("aux_pixel_values", "aux_pixel_mask")})
        torch.testing.assert_close(logits(model, prompt)[0, -1], found[begin - 1], atol=1e-4, rtol=0)


def test_each_turn_is_mixed(made):
    model, processor = made
    batch = processor.batch([LONG], [SEEN], labels=True)
    off = processor.batch([LONG], [[None, None]], labels=True)
    moved = (logits(model, batch) - logits(model, off))[0].abs().amax(dim=-1)
    labels = batch["labels"][0]
    begins = [at for at in range(1, len(labels)) if labels[at] != -100 and labels[at - 1] == -100]
    assert all(moved[begin - 1] > 1e-3 for begin in begins)


def test_generating_with_and_without_a_cache(made):
    model, processor = made
    inputs = dict(processor.batch([LONG.prompt], [SEEN]))
    assert not inputs["prompt_mask"].all()
    cached = model.generate(**inputs, max_new_tokens=6, do_sample=False, use_cache=True)
    anew = model.generate(**inputs, max_new_tokens=6, do_sample=False, use_cache=False)
    assert torch.equal(cached, anew)


def test_a_document_takes_a_loss_of_every_token_but_the_first(made):
    model, processor = made
    document = Conversation((Turn("text", ("A red ", IMAGE, " thing and ", IMAGE, ".")),), IMAGES, loss="all")
    batch = processor.batch([document], [SEEN], labels=True)
    assert (batch["labels"] != -100).sum() == (batch["input_ids"] != processor.image_token_id).sum() - 1
    loss = model(**batch).loss
    assert torch.isfinite(loss) and loss > 0
    changed = Conversation((Turn("text", ("A red ", IMAGE, " house and ", IMAGE, ".")),), IMAGES, loss="all")
    other = processor.batch([changed], [SEEN], labels=True)
    length = min(batch["input_ids"].shape[1], other["input_ids"].shape[1])
    same = int((batch["input_ids"][0, :length] != other["input_ids"][0, :length]).int().argmax())
    torch.testing.assert_close(logits(model, batch)[0, :same], logits(model, other)[0, :same], atol=1e-4, rtol=0)
