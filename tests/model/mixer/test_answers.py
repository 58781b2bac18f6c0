"""Answer tokens that read auxiliary tokens: never each other, in every way of decoding, and nothing else changes."""

import copy
import random
import warnings

import pytest
import tiny
import torch

from moai.compat import cache_of
from moai.errors import RecipeError
from moai.model.mixer.answers import answer_masks
from moai.model.mixer.copying import LOOK_BACK, NO_ANSWER, NO_WORD, histories, longest_matches, weights_of_matches
from moai.model.mixer.mixer import Mixer
from moai.model.norms import rms_normalize
from moai.training.log import read_log
from moai.training.objectives.supervision import TargetFinder, target_masks
from moai.training.trainer import train
from moai.types import IMAGE, Conversation, Sample, Turn

FACTS = {"style": "compact", "fact_context": True}
MIXER = {"answer_tokens": True, "copy_words": True, "copy_next": True, "null_token": True}
MIXER |= {"question_context": 1.0, "match_words": 1.0}
COMPRESSOR = {"latents": 40, "depth": 1, "heads": 2, "head_width": 16}
QUESTIONS = ("What color?", "Is there a red shape in it, or none?", "Which one?")
PERCEPTIONS = (tiny.seen("red circle", text="he he llo"), tiny.seen("blue box", "green disc"), None)
LENGTH = 6


def made_with(**changes):
    return tiny.made(**{"mixer": MIXER, "perception": FACTS, "compressor": COMPRESSOR, **changes})


@pytest.fixture(scope="module")
def made():
    return made_with()


@pytest.fixture
def inputs(made):
    return tiny.prompt_inputs(made[1], QUESTIONS, PERCEPTIONS)


@pytest.fixture
def batch(made):
    return answered(made[1], ("red and he he llo", "blue box", "green green"))


def answered(processor, answers, questions=QUESTIONS, perceptions=PERCEPTIONS):
    asked = [Conversation.ask(q, (tiny.picture("red"),), a) for q, a in zip(questions, answers, strict=True)]
    return dict(processor.batch(asked, [[p] for p in perceptions], labels=True))


def logits(model, batch):
    with torch.no_grad():
        return model(**{name: value for name, value in batch.items() if name != "labels"}).logits


def generate(model, inputs, **options):
    options = {"max_new_tokens": LENGTH, "min_new_tokens": LENGTH, "do_sample": False, **options}
    return model.generate(**inputs, **options)


# What the parts do -------------------------------------------------------------------------------------------------


def test_of_equal_words_the_one_with_the_same_words_before_it_is_found():
    def pasts(value):
        return torch.full((1, LOOK_BACK - 1), value)

    words = histories(torch.tensor([[1, 9, 9, 8, NO_WORD, 5, 9]]), pasts(NO_WORD))
    answer = histories(torch.tensor([[1, 9, 9, 7, 9]]), pasts(NO_ANSWER))
    found = longest_matches(answer, words)[0]
    assert [row.nonzero().flatten().tolist() for row in found] == [[0], [1], [2], [], [1, 2, 6]]
    continued = histories(torch.tensor([[9]]), torch.cat([pasts(NO_ANSWER)[:, 2:], torch.tensor([[1, 9]])], dim=1))
    assert torch.equal(longest_matches(continued, words)[0, 0], found[2])  # the same by its history alone


def test_attention_to_matches_sums_to_one_or_to_nothing():
    matches = torch.tensor([[[True, False, True], [False, False, False]]])
    weights = weights_of_matches(torch.tensor([[[[2.0, 5.0, 2.0], [1.0, 2.0, 3.0]]]]), matches)
    assert weights[0, 0].tolist() == [[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]


def test_an_answer_belongs_to_the_prompt_before_it_and_none_to_a_document_of_its_own():
    x = torch.tensor
    segments = x([[1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0, 0], [0] * 8]).bool()
    free = x([[0, 0, 1, 1, 0, 1, 1, 0], [1] * 8]).bool()
    rows, masks = answer_masks(segments, x([0, 0, 1]), free, None, continued=False)
    assert rows.tolist() == [0, 0, 1] and not masks[2].any()  # a row without a prompt
    assert [mask.nonzero().flatten().tolist() for mask in masks[:2]] == [[2, 3], [5, 6]]
    documents = x([[1, 1, 1, 1, 2, 3, 3, 0], [1] * 8])
    _, masks = answer_masks(segments, x([0, 0, 1]), free, documents, continued=False)
    assert [mask.nonzero().flatten().tolist() for mask in masks[:2]] == [[2, 3], []]
    rows, masks = answer_masks(segments[1:2], x([0]), free[:1], None, continued=True)
    assert rows.tolist() == [0, 0] and [m.nonzero().flatten().tolist() for m in masks] == [[2, 3], [5, 6]]


def test_following_words_are_those_of_the_same_fact(made):
    model, processor = made
    inputs = processor.perceptions.auxiliary([[PERCEPTIONS[0]], [PERCEPTIONS[1]], []])
    ids, mask = inputs["aux_input_ids"], inputs["aux_attention_mask"]
    following, words = model.auxiliary.following(ids, mask, inputs["aux_pixel_mask"])
    table = model.get_output_embeddings().weight.detach()
    rows = rms_normalize(table - table.mean(dim=0))
    ends = set(model.auxiliary.fact_ends)
    masks = model.auxiliary._masks(ids, mask, inputs["aux_pixel_mask"])
    for row in range(3):
        real = ids[row][mask[row].bool()].tolist()
        offset = int((mask[row] == 0).sum()) if mask[row, 0] == 0 else 0
        for slot, start in enumerate(model.auxiliary._starts(*masks)[row].tolist()):
            at = start - offset
            next_word = real[at + 1] if real and at + 1 < len(real) and real[at + 1] not in ends else None
            if not real or at >= len(real) or next_word is None:
                assert not following[row, slot].any()
            else:
                assert torch.allclose(following[row, slot], rows[next_word], atol=1e-5)
                fact = [*real[: at + 1]]
                fact = fact[max((i + 1 for i, token in enumerate(fact) if token in ends), default=0) :][::-1]
                expected = [*fact, *[NO_WORD] * LOOK_BACK][:LOOK_BACK]
                assert words[row, slot].tolist() == expected


# What must not depend on what --------------------------------------------------------------------------------------


@pytest.mark.parametrize("choices", [None, (0, 0), (0, 1)])
def test_no_answer_token_moves_an_earlier_logit(made, batch, choices):
    model, _ = made
    if choices is not None:
        batch["module_choices"] = torch.tensor([choices, choices])
    before = logits(model, batch)
    positions = (batch["labels"] != -100).nonzero().tolist()[::3]
    assert len(positions) > 5 and {row for row, _ in positions} == {0, 1, 2}
    for row, position in positions:
        changed = {**batch, "input_ids": batch["input_ids"].clone()}
        changed["input_ids"][row, position] = 60
        after = logits(model, changed)
        assert torch.equal(after[row, :position], before[row, :position])
        others = [index for index in range(3) if index != row]
        assert torch.equal(after[others], before[others])


def test_an_answer_token_reads_its_own_perception_and_a_drawn_module_decides(made, batch):
    """Other words change every answer position, prompt states aside; with another module drawn, they do not."""
    model, processor = made
    one = made_with(mixer={**MIXER, "layers": [3]})[0]  # the last layer: nothing hands on what a prompt has read
    other = answered(processor, ("red and he he llo", "blue box", "green green"),
                     perceptions=(tiny.seen("green square", text="xyz he"), PERCEPTIONS[1], None))  # fmt: skip
    width = min(batch["aux_input_ids"].shape[1], other["aux_input_ids"].shape[1])
    assert not torch.equal(batch["aux_input_ids"][0, :width], other["aux_input_ids"][0, :width])
    positions = (batch["labels"][0] != -100).nonzero().flatten()
    for choices, reads in ((None, True), ([(2, 0)], True), ([(2, 1)], False)):
        given = {} if choices is None else {"module_choices": torch.tensor(choices)}
        moved = (logits(one, {**batch, **given}) - logits(one, {**other, **given})).abs().amax(dim=-1)
        assert bool((moved[0, positions] > 1e-4).all()) is reads
        assert not moved[2].any()  # without a perception there is nothing to read


def test_rows_are_as_alone_with_any_padding(made, batch):
    model, processor = made
    together = logits(model, batch)
    for row, answer in enumerate(("red and he he llo", "blue box", "green green")):
        alone = answered(processor, (answer,), QUESTIONS[row : row + 1], PERCEPTIONS[row : row + 1])
        real = batch["attention_mask"][row].bool()
        torch.testing.assert_close(together[row][real], logits(model, alone)[0], atol=1e-4, rtol=0)
    padded = dict(batch)
    for name, value in (("input_ids", 7), ("attention_mask", 0), ("prompt_mask", 0)):
        padded[name] = torch.nn.functional.pad(batch[name], (5, 2), value=value)
    torch.testing.assert_close(logits(model, padded)[0, 5:-2], together[0], atol=1e-4, rtol=0)


def test_a_fresh_model_is_its_host_and_mixers_off_is_its_host(batch):
    model, _ = tiny.made(noise=0.0, mixer=MIXER, perception=FACTS, compressor=COMPRESSOR)
    trained = copy.deepcopy(model)
    tiny.disturb(trained, 0.1)
    found, host = logits(model, batch), copy.deepcopy(model)
    host.remove_mixers()
    assert torch.equal(found, logits(host, batch))
    assert not torch.equal(logits(trained, batch)[0], found[0])
    blind = {name: value for name, value in batch.items() if not name.startswith("aux_")}
    assert torch.equal(logits(model, blind), found)


def test_the_option_off_is_what_it_was(batch):
    """With the option, prompts and first tokens of answers are those of a model without it, and the rest is not."""
    on, _ = made_with()
    off, _ = made_with(mixer={**MIXER, "answer_tokens": False, "copy_next": False})
    weights = {name: value for name, value in on.state_dict().items() if "copying_next" not in name}
    off.load_state_dict(weights, strict=False)
    a, b = logits(on, batch), logits(off, batch)
    first = (batch["labels"] != -100).int().argmax(dim=1)
    for row in range(3):
        assert torch.equal(a[row, : first[row]], b[row, : first[row]])
    assert (a[:2] - b[:2]).abs().amax() > 1e-3


def test_mixers_run_once_a_pass(made, inputs):
    model, _ = made
    with tiny.forward_contexts() as contexts:
        generate(model, inputs)
    assert [context.calls for context in contexts] == [len(model.mixers)] * LENGTH
    blind = {name: value for name, value in inputs.items() if not name.startswith("aux_")}
    with tiny.forward_contexts() as contexts:
        generate(model, blind)
    assert [context.calls for context in contexts] == [len(model.mixers)] + [0] * (LENGTH - 1)


# Decoding ----------------------------------------------------------------------------------------------------------


def scores(model, inputs, **options):
    found = generate(model, inputs, output_scores=True, return_dict_in_generate=True, **options)
    return found.sequences, torch.stack(found.scores)


@pytest.mark.parametrize("changes", [{}, {"question_context": 0.0, "match_words": 0.0}, {"copy_words": False},
                                     {"copy_next": False, "match_words": 0.0},
                                     {"rank": 64, "qk_norm_scale": None}])  # fmt: skip
def test_cached_decoding_is_the_uncached_one(inputs, changes):
    model, _ = made_with(mixer={**MIXER, **changes})
    (ids, cached), (again, plain) = scores(model, inputs), scores(model, inputs, use_cache=False)
    assert torch.equal(ids, again)
    finite = plain.isfinite()
    torch.testing.assert_close(cached[finite], plain[finite], atol=1e-4, rtol=0)
    model.fix_adapters()
    assert torch.equal(scores(model, inputs)[0], ids)


def test_what_is_generated_is_what_teacher_forcing_says(made, inputs):
    """Training and decoding are one: the logits of the generated tokens as an answer that is given."""
    model, _ = made
    ids, found = scores(model, inputs)
    prompt = torch.nn.functional.pad(inputs["prompt_mask"], (0, LENGTH))
    mask = torch.nn.functional.pad(inputs["attention_mask"], (0, LENGTH), value=1)
    whole = logits(model, {**inputs, "input_ids": ids, "prompt_mask": prompt, "attention_mask": mask})
    forced = whole[:, -LENGTH - 1 : -1].transpose(0, 1)
    finite = found.isfinite()
    torch.testing.assert_close(found[finite], forced[finite], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "options",
    [{"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}, {"num_beams": 3, "use_cache": False},
     {"cache_implementation": "static"}, {"prompt_lookup_num_tokens": 3}],
)  # fmt: skip
def test_every_mode_gives_each_row_its_own_answer(made, inputs, options):
    model, _ = made
    start, times = inputs["input_ids"].shape[1], options.get("num_return_sequences", 1)
    alone = []
    for row in range(3):
        one = {name: value[row : row + 1] for name, value in inputs.items()}
        alone.append(generate(model, one, **options)[:, start:])
    if "prompt_lookup_num_tokens" not in options:  # which takes one row at a time
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            together = generate(model, inputs, **options)[:, start:]
        assert torch.equal(together, torch.cat(alone))
    if "num_beams" not in options:
        assert torch.equal(torch.cat(alone), generate(model, inputs)[:, start:])
    assert len(torch.cat(alone)) == 3 * times


def test_an_assistant_reads_on_by_itself(made, inputs):
    model, _ = made
    row = {name: value[:1] for name, value in inputs.items()}
    assistant, _ = made_with(noise=0.08)
    assert torch.equal(generate(model, row, assistant_model=assistant), generate(model, row))


def test_a_second_turn_on_a_cache_is_the_conversation_computed_whole(made, inputs):
    """The last token of the first answer, which the cache lacks, still answers the first question."""
    model, _ = made
    row = {name: value[1:2] for name, value in inputs.items()}
    first = model.generate(**row, max_new_tokens=3, min_new_tokens=3, do_sample=False, return_dict_in_generate=True)
    more = torch.cat([first.sequences, torch.tensor([[70, 71, 72]])], dim=1)
    length = row["input_ids"].shape[1]
    mask = torch.nn.functional.pad(row["attention_mask"], (0, 6), value=1)
    prompt = torch.nn.functional.pad(row["attention_mask"].bool(), (0, 6), value=False)
    prompt[:, length + 3 :] = True
    rest = {name: value for name, value in row.items() if name.startswith(("pixel", "aux"))}
    given = {"input_ids": more, "attention_mask": mask, "prompt_mask": prompt, **rest}
    ids, plain = scores(model, given, use_cache=False)
    again, cached = scores(model, {**given, "cache": cache_of(first)})
    assert torch.equal(ids, again)
    finite = plain.isfinite()
    torch.testing.assert_close(cached[finite], plain[finite], atol=1e-4, rtol=0)


# Conversations, training -------------------------------------------------------------------------------------------

LONG = Conversation(
    (
        Turn("user", (IMAGE, "What is it?")), Turn("assistant", "red he he"),
        Turn("user", ("And ", IMAGE, " this?")), Turn("assistant", "blue box"),
    ),
    (tiny.picture("red"), tiny.picture("blue")),
)  # fmt: skip


def test_each_turns_answer_is_for_its_own_question(made):
    """A turn's answer is as it is asked for: the same logits as in a conversation that ends with it, and none leaks."""
    model, processor = made
    batch = dict(processor.batch([LONG], [list(PERCEPTIONS[:2])], labels=True))
    found = logits(model, batch)[0]
    end = int((batch["labels"][0, 1:] == -100).logical_and(batch["labels"][0, :-1] != -100).nonzero()[0]) + 1
    short = {n: v[:, :end] if n in ("input_ids", "attention_mask", "prompt_mask") else v for n, v in batch.items()}
    short["pixel_values"] = batch["pixel_values"][:1]
    torch.testing.assert_close(logits(model, short)[0], found[:end], atol=1e-4, rtol=0)
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][0, 5] += 1  # a word of the first question moves its own answer's logits
    assert batch["prompt_mask"][0, 5] and batch["input_ids"][0, 5] != processor.image_token_id
    assert (logits(model, other)[0, end - 2] - found[end - 2]).abs().max() > 1e-4


@pytest.mark.parametrize("choices", [None, (1, 0)])
def test_checkpointed_activations_give_the_same_gradients(batch, choices):
    found = []
    for checkpointing in (False, True):
        model, _ = made_with()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.train()
        given = {} if choices is None else {"module_choices": torch.tensor([choices, choices])}
        model(**batch, **given).loss.backward()
        found.append({n: p.grad for n, p in model.adapter_parameters().items() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and any("copying_next" in name for name in found[0])
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], atol=1e-5, rtol=1e-4)


def test_a_document_reads_nothing_before_its_first_image(made):
    """Its text is no answer to what comes later."""
    model, processor = made
    turns = (Turn("text", ("A red thing. ", IMAGE, " And he he then.")),)
    document = Conversation(turns, (tiny.picture("red"),), loss="all")
    on, off = (dict(processor.batch([document], [[p]], labels=True)) for p in (PERCEPTIONS[0], None))
    image = (on["input_ids"][0] == processor.image_token_id).nonzero().flatten()
    moved = (logits(model, on) - logits(model, off))[0].abs().amax(dim=-1)
    assert not moved[: image[0]].any() and (moved[image[-1] + 1 :] > 1e-4).all()


@pytest.mark.slow  # compiling
def test_compiled_hosts_give_the_same_loss(made, batch):
    model, _ = made
    compiled = copy.deepcopy(model)
    compiled.compile(backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(**batch).loss, model(**batch).loss, atol=1e-5, rtol=0)


def test_a_saved_model_answers_as_before(made, inputs, tmp_path):
    model, _ = made
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert again.answers and torch.equal(generate(again, inputs), generate(model, inputs))


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(RecipeError, match="set mixer.answer_tokens: true beside it"):
        Mixer(32, copy_next=True)
    with pytest.raises(ValueError, match="copy_next needs mixer.answer_tokens: true and perception.fact_context: true"):
        tiny.recipe(mixer={"copy_next": True})
    model, processor = tiny.made(mixer={**MIXER, "copy_next": False, "match_words": 0.0})
    words = processor.perceptions.auxiliary([[PERCEPTIONS[0]]])
    with pytest.raises(RecipeError, match="copy_next needs perception.fact_context: true"):
        model.auxiliary.following(words["aux_input_ids"], words["aux_attention_mask"])


# Texts of several tokens -------------------------------------------------------------------------------------------


def texts(rng, count):
    """Questions for a text of three letters, each a token, drawn at random; and what was seen beside it."""
    found = []
    for index in range(count):
        text = "".join(rng.choice("BCDFGHJKLMNPQRSTVWXZ") for _ in range(3))
        image = tiny.picture("red")
        sample = Sample.from_question(str(index), image, str(index), "What is written?", text, "text")
        found.append((sample, tiny.seen(rng.choice(("red circle", "blue box")), text=text)))
    return found


def right_answers(mixer, steps=70, batch=16):
    """Train mixers on some texts, and count the right answers among 40 others."""
    torch.manual_seed(0)
    base = {"layers": [1, 3], "rank": 16, "tie_qk_at_init": True, "copy_words": True, "null_token": True,
            "question_context": 1.0, "qk_norm_scale": None}  # fmt: skip
    model, processor = made_with(noise=0.0, mixer={**base, **mixer}, vision={"panoptic_map": False})
    rng = random.Random(0)
    known, test = texts(rng, 300), texts(rng, 40)
    finder = TargetFinder.from_perceptions(processor, [perception for _, perception in known], True)
    trained = list(model.mixers.parameters())
    optimizer = torch.optim.AdamW(trained, lr=3e-3, weight_decay=0.0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 10) * (1 - step / steps)
        samples, seen = zip(*rng.sample(known, batch), strict=True)
        inputs = tiny.training_batch(processor, samples, seen)
        words = (inputs["aux_input_ids"], inputs["aux_attention_mask"])
        targets = target_masks(finder, processor, samples, *words)
        output = model(**inputs, attention_targets=targets, image_keep=torch.zeros(batch, dtype=torch.bool))
        optimizer.zero_grad()
        (output.loss + output.attention_loss).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    inputs = tiny.prompt_inputs(processor, [sample.question for sample, _ in test], [p for _, p in test])
    ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    return sum(said == s.answer for said, (s, _) in zip(processor.decode_answers(ids), test, strict=True))


@pytest.mark.slow
def test_texts_of_several_tokens_are_read_by_copying_the_next_word_and_not_without():
    """Three letters of twenty: by chance one of 8,000. The letters are trained, these texts are not."""
    assert right_answers({"answer_tokens": True, "copy_next": True}) >= 36
    assert right_answers({}) <= 4


@pytest.mark.slow
def test_a_run_trains_and_goes_on_with_adapters_of_the_host_and_accumulated_batches(tmp_path):
    """Each half of a batch has the samples of the whole: the loss of every step is the same."""
    tiny.register()
    train_all = {
        "connector": 1e-3,
        "compressor": 1e-4,
        "mixers": 1e-3,
        "gates": 1e-3,
        "host": {"rate": 1e-3, "lora": 2},
    }
    stages = [tiny.stage("modules", 2, routing="random_module"), tiny.stage("gates", 3, train=train_all)]
    losses = []
    for accumulation in (1, 2):
        parts = {"accumulation": accumulation, "attention_supervision": 0.3}
        recipe = tiny.recipe(mixer=MIXER, perception=FACTS, compressor=COMPRESSOR, training=parts, stages=stages)
        losses.append([line["loss"] for line in read_log(train(recipe, tmp_path / str(accumulation)))])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4) and len(losses[0]) == 5
    model = type(made_with()[0]).from_pretrained(tmp_path / "2")
    assert model.answers and model.mixers["0"].copying.gate.weight.any()
