"""What must not depend on what: rows on each other, results on padding, prompts on their answers."""

import copy
import itertools

import pytest
import tiny
import torch

from moai.errors import PromptError
from moai.model.config import MoaiConfig
from moai.model.modeling import MoaiForConditionalGeneration

QUESTIONS = ("What color?", "Is there a red shape in it, or is there none at all?", "Which one?")
PERCEPTIONS = (tiny.seen("red circle"), tiny.seen("blue box", "green disc", text="hello there"), tiny.seen())
TOLERANCE = 1e-4


@pytest.fixture
def inputs(processor):
    return tiny.prompt_inputs(processor, QUESTIONS, PERCEPTIONS)


def take(inputs, *rows):
    """Some rows of a batch with one image per row, still padded as before."""
    return {name: value[list(rows)] for name, value in inputs.items()}


def last(model, inputs):
    """Logits at the last position, ``(B, vocabulary)``."""
    with torch.no_grad():
        return model(**inputs).logits[:, -1]


# Rows and padding -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arithmetic", ["moai", "published"])
def test_a_row_does_not_depend_on_the_other_rows(arithmetic):
    """Wherever the mixers are; the published compressor itself reads the padding of a batch."""
    model, processor = tiny.made()
    tiny.place(model, arithmetic)
    inputs = tiny.prompt_inputs(processor, QUESTIONS, PERCEPTIONS)
    together = last(model, inputs)
    for row in range(3):
        alone = tiny.prompt_inputs(
            processor, QUESTIONS[row : row + 1], PERCEPTIONS[row : row + 1], [tiny.picture(tiny.COLORS[row])]
        )
        assert alone["input_ids"].shape[1] < inputs["input_ids"].shape[1] or row == 1
        assert torch.allclose(last(model, alone)[0], together[row], atol=TOLERANCE)
        swapped = last(model, take(inputs, row, (row + 1) % 3, (row + 1) % 3))
        assert torch.allclose(swapped[0], together[row], atol=TOLERANCE)


def test_rows_with_and_without_perception_share_a_batch(model, processor):
    mixed = tiny.prompt_inputs(processor, QUESTIONS, (PERCEPTIONS[0], None, PERCEPTIONS[1]))
    blind = tiny.prompt_inputs(processor, QUESTIONS, (None, None, None))
    assert not any(name.startswith("aux_") for name in blind)
    on, off = last(model, mixed), last(model, blind)
    assert torch.allclose(on[1], off[1], atol=TOLERANCE)
    assert (on - off)[[0, 2]].abs().amax(dim=1).min() > 0.01


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("extra", [1, 7])
def test_padding_side_and_length_do_not_count(model, inputs, side, extra):
    row = {name: value[1:2] for name, value in inputs.items()}  # the longest row has no padding of its own
    assert row["attention_mask"].all()
    amount = (extra, 0) if side == "left" else (0, extra)
    padded = {**row}
    for name in ("input_ids", "attention_mask", "prompt_mask"):
        padded[name] = torch.nn.functional.pad(row[name], amount, value=0)
    with torch.no_grad():
        plain, shifted = model(**row).logits[0], model(**padded).logits[0]
    shifted = shifted[extra:] if side == "left" else shifted[:-extra]
    assert torch.allclose(shifted, plain, atol=TOLERANCE)


def test_padding_on_the_left_moves_no_label(model, processor):
    """Its loss is that of padding on the right, where the tokenizer of a host pads on the left."""
    samples = tiny.dataset("train")[6:10]
    seen = [tiny.seen("red circle")] * 4
    right = tiny.training_batch(processor, samples, seen)
    moved = {name: value.clone() for name, value in right.items()}
    assert not right["attention_mask"].all()
    for row, length in enumerate(right["attention_mask"].sum(dim=1).tolist()):
        for name in ("input_ids", "attention_mask", "prompt_mask", "labels"):
            moved[name][row] = right[name][row].roll(right[name].shape[1] - length)
    with torch.no_grad():
        assert torch.allclose(model(**moved).loss, model(**right).loss, atol=TOLERANCE)


@pytest.mark.parametrize("extra", [1, 9])
def test_padding_of_auxiliary_tokens_and_maps_does_not_count(model, inputs, extra):
    padded = dict(inputs)
    padded["aux_input_ids"] = torch.nn.functional.pad(inputs["aux_input_ids"], (0, extra), value=17)
    padded["aux_attention_mask"] = torch.nn.functional.pad(inputs["aux_attention_mask"], (0, extra), value=0)
    blank = torch.rand(3, extra, *inputs["aux_pixel_values"].shape[2:])
    padded["aux_pixel_values"] = torch.cat([inputs["aux_pixel_values"], blank], dim=1)
    padded["aux_pixel_mask"] = torch.nn.functional.pad(inputs["aux_pixel_mask"], (0, extra), value=False)
    assert torch.allclose(last(model, padded), last(model, inputs), atol=TOLERANCE)


def encoded(model, processor, perception):
    """The compressed tokens of one perception."""
    inputs = processor.perceptions.auxiliary([[perception]])
    return model.auxiliary(**{name.removeprefix("aux_"): value for name, value in inputs.items()})[0]


def test_the_order_of_what_was_seen_counts(model, processor):
    one, other = tiny.seen("red circle", "blue box"), tiny.seen("blue box", "red circle")
    a, b = (encoded(model, processor, p) for p in (one, other))
    assert (a - b).abs().max() > 1e-2


def test_two_images_in_a_row_and_none_in_another(model, processor):
    rows = [processor.prompt_ids("Which?", images=2), processor.prompt_ids("What is it?", images=0)]
    batch = dict(processor.tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt"))
    batch["pixel_values"] = tiny.pixels(processor, tiny.picture("red"), tiny.picture("blue"))
    aux = processor.perceptions.auxiliary([[tiny.seen("red"), tiny.seen("blue")], []])
    assert aux["aux_pixel_values"].shape[:2] == (2, 2) and aux["aux_pixel_mask"].tolist() == [[True] * 2, [False] * 2]
    together = last(model, {**batch, **aux})
    alone = last(model, {"input_ids": torch.tensor(rows[1:])})
    assert torch.allclose(together[1], alone[0], atol=TOLERANCE)
    swapped = {**batch, **aux, "pixel_values": batch["pixel_values"].flip(0)}
    assert (last(model, swapped)[0] - together[0]).abs().max() > 0.01
    assert torch.equal(last(model, swapped)[1], together[1])


def test_image_tokens_stand_where_their_placeholders_stood(model, processor):
    rows = [processor.prompt_ids("Which?", images=2), processor.prompt_ids("What color is it?", images=1)]
    batch = processor.tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
    pixels = tiny.pixels(processor, *(tiny.picture(color) for color in ("red", "blue", "green")))
    handed_on = []
    hook = model.host.register_forward_pre_hook(
        lambda module, args, kwargs: handed_on.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        model(**batch, pixel_values=pixels)
        hook.remove()
        expected = model.images.connector(model.images.vision(pixels)).flatten(0, 1)  # image after image
        words = model.get_input_embeddings()(batch["input_ids"])
    where = batch["input_ids"] == processor.image_token_id
    assert torch.equal(handed_on[0][where], expected)
    assert torch.equal(handed_on[0][~where], words[~where])


@pytest.mark.parametrize("images", [0, 2])
def test_placeholders_that_do_not_match_the_images(model, processor, images):
    ids = torch.tensor([processor.prompt_ids("What?")])
    with pytest.raises(PromptError, match=rf"4 image placeholders for {images or 'no'}|placeholders"):
        model(input_ids=ids, pixel_values=torch.zeros(images, 3, 64, 64))


# Labels -----------------------------------------------------------------------------------------------------------


def training_batch(processor):
    samples = [tiny.dataset("train")[index] for index in (0, 9, 22)]
    return tiny.training_batch(processor, samples, PERCEPTIONS)


@pytest.mark.parametrize("choices", [None, *itertools.product(range(3), repeat=2)])
@pytest.mark.parametrize("arithmetic", ["moai", "published"])
def test_no_answer_token_moves_an_earlier_logit(arithmetic, choices):
    """No label leak, in step 2 (gates) and in step 1 for every draw: change one answer token, look at all before it."""
    model, processor = tiny.made(arithmetic=arithmetic)
    batch = training_batch(processor)
    if choices is not None:
        batch["module_choices"] = torch.tensor([choices, choices])
    answered = (batch["labels"] != -100).nonzero().tolist()
    assert len(answered) >= 6
    first = int((batch["labels"] != -100).int().argmax(dim=1).min())
    with torch.no_grad():
        before = model(**batch).logits  # of the positions from `first - 1` on
        for row, position in answered:
            changed = {**batch, "input_ids": batch["input_ids"].clone(), "labels": batch["labels"].clone()}
            for name in ("input_ids", "labels"):
                changed[name][row, position] = 60
            after = model(**changed).logits
            kept = position - (first - 1)
            assert torch.equal(after[row, :kept], before[row, :kept])
            assert not torch.equal(after[row, kept:], before[row, kept:])
            others = [index for index in range(3) if index != row]
            assert torch.equal(after[others], before[others])


def test_without_a_prompt_mask_answers_are_kept_out_by_their_labels(model, processor):
    batch = training_batch(processor)
    given = model(**batch)
    without = model(**{name: value for name, value in batch.items() if name != "prompt_mask"})
    assert torch.equal(given.logits, without.logits)


def test_the_loss_is_the_mean_over_answer_tokens(model, processor):
    batch = training_batch(processor)
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = model(**batch).logits
        loss = model(**batch, labels=labels).loss
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert torch.allclose(loss, expected, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_host_is_causal_however_it_came(attention, processor):
    """A host without its causal mask reads the answers, and the loss falls to zero: loaded, handed over, or made."""
    loaded, _ = tiny.made(host={"attention": attention})
    assert loaded.host.config._attn_implementation == attention
    made = type(loaded)(copy.deepcopy(loaded.config)).eval()
    batch = training_batch(processor)
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    changed["input_ids"][batch["labels"] != -100] = 60
    for model in (loaded, made, copy.deepcopy(loaded)):
        first = [model(**given).logits[:, 0] for given in (batch, changed)]
        longest = (batch["labels"] != -100).int().argmax(dim=1).argmin()
        assert torch.equal(first[0][longest], first[1][longest])


def test_a_host_that_shares_its_configuration_object_keeps_its_causal_mask(built):
    host = tiny.made()[0].remove_mixers()
    given = {name: getattr(built[0].config, name) for name in ("host", "vision", "connector", "compressor", "mixer")}
    shared = MoaiConfig(text_config=host.config, image_token_id=built[0].config.image_token_id, **given)
    model = MoaiForConditionalGeneration(shared, host=host, vision=built[0].images.vision).eval()
    ids = torch.arange(10, 18)[None]
    changed = ids.clone()
    changed[0, -1] += 1
    with torch.no_grad():
        first, second = (model.host(input_ids=x, attention_mask=torch.ones_like(x)).logits for x in (ids, changed))
    assert torch.equal(first[:, :-1], second[:, :-1]) and not torch.equal(first[:, -1], second[:, -1])
