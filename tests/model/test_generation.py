"""Generation: the cache, beams and assisted decoding give what the plain model gives, and mixers run once."""

import pytest
import tiny
import torch
from agreement import CLEAR, greedy
from transformers import GenerationConfig, LlamaForCausalLM

from moai.compat import cache_of
from moai.errors import PromptError

QUESTIONS = ("What color?", "Is there a red shape in it, or none?")
PERCEPTIONS = (tiny.seen("red circle"), tiny.seen("blue box", "green disc"))
LENGTH = 8


@pytest.fixture
def inputs(built):
    return tiny.prompt_inputs(built[1], QUESTIONS, PERCEPTIONS)


def generate(model, inputs, **options):
    """Exactly ``LENGTH`` new tokens per row, without the prompt."""
    options = {"max_new_tokens": LENGTH, "min_new_tokens": LENGTH, "do_sample": False, **options}
    return model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]


def repetitive(processor):
    """A prompt in which a look-up finds what to say next."""
    return tiny.prompt_inputs(processor, ["red red red red red red red"], [tiny.seen("red")])


def one(inputs, row):
    return {name: value[row : row + 1] for name, value in inputs.items()}


def watch(model, monkeypatch):
    """Count how often each mixer and each encoder runs."""
    counts = {"mixers": 0, "compressor": 0, "vision": 0}

    def counted(name, forward):
        def wrapped(*args, **kwargs):
            counts[name] += 1
            return forward(*args, **kwargs)

        return wrapped

    for mixer in model.mixers.values():
        monkeypatch.setattr(mixer, "forward", counted("mixers", mixer.forward))
    for name, module in (("compressor", model.auxiliary.compressor), ("vision", model.images.vision)):
        monkeypatch.setattr(module, "forward", counted(name, module.forward))
    return counts


def test_no_answer_below_hangs_on_a_near_tie(model, inputs, built):
    """Tokens are compared one by one below, across batch sizes, caches and assistants, whose last bits differ."""
    text = {"input_ids": torch.tensor([built[1].prompt_ids("What color?", images=0)])}
    for given, length in ((inputs, LENGTH), (repetitive(built[1]), 24), (text, LENGTH)):
        assert greedy(model, given, max_new_tokens=length, min_new_tokens=length).margin > CLEAR


@torch.no_grad()
def step_by_step(model, inputs, steps=LENGTH):
    """Greedy decoding without ``generate`` and without a cache: the reference."""
    prompt = inputs["attention_mask"].bool()
    ids, attention = inputs["input_ids"], inputs["attention_mask"]
    for _ in range(steps):
        mask = torch.nn.functional.pad(prompt, (0, ids.shape[1] - prompt.shape[1]), value=False)
        logits = model(**{**inputs, "input_ids": ids, "attention_mask": attention, "prompt_mask": mask}).logits[:, -1]
        logits[:, [2, model.config.image_token_id]] = -torch.inf
        ids = torch.cat([ids, logits.argmax(dim=-1, keepdim=True)], dim=1)
        attention = torch.nn.functional.pad(attention, (0, 1), value=1)
    return ids[:, prompt.shape[1] :]


def test_generation_is_the_forward_pass_repeated(model, inputs):
    expected = step_by_step(model, inputs)
    assert torch.equal(generate(model, inputs), expected)
    assert len({tuple(row) for row in expected.tolist()}) == 2
    assert max(len(set(row)) for row in expected.tolist()) > 3, "the tiny model repeats itself; the test shows nothing"


def test_the_cache_changes_nothing(model, inputs):
    assert torch.equal(generate(model, inputs, use_cache=True), generate(model, inputs, use_cache=False))


def test_the_cache_changes_no_score(model, inputs):
    options = {"max_new_tokens": LENGTH, "min_new_tokens": LENGTH, "output_scores": True}
    cached, plain = (
        model.generate(**inputs, **options, use_cache=use, return_dict_in_generate=True).scores for use in (True, False)
    )
    for a, b in zip(cached, plain, strict=True):
        finite = b.isfinite()
        assert torch.equal(finite, a.isfinite()) and torch.allclose(a[finite], b[finite], atol=1e-4)


def test_mixers_and_encoders_run_at_prefill_only(model, inputs, monkeypatch):
    counts = watch(model, monkeypatch)
    generate(model, inputs)
    # The encoder runs on the images and on the panoptic maps.
    assert counts == {"mixers": len(model.mixers), "compressor": 1, "vision": 2}


def test_beams_encode_once_too(model, inputs, monkeypatch):
    counts = watch(model, monkeypatch)
    generate(model, inputs, num_beams=3)
    assert counts == {"mixers": len(model.mixers), "compressor": 1, "vision": 2}


def test_rows_generate_as_they_do_alone(model, inputs, built):
    together = generate(model, inputs)
    for row in range(2):
        image = [tiny.picture(tiny.COLORS[row])]
        alone = tiny.prompt_inputs(built[1], QUESTIONS[row : row + 1], PERCEPTIONS[row : row + 1], image)
        assert torch.equal(generate(model, alone)[0], together[row])


@torch.no_grad()
def test_one_beam_more_than_greedy_scores_at_least_as_well(model, inputs):
    """Beams carry each row's own image and perception: their score is what the plain forward gives the same tokens."""
    options = {"num_beams": 4, "length_penalty": 0.0, "output_scores": True, "return_dict_in_generate": True}
    found = model.generate(**inputs, max_new_tokens=LENGTH, min_new_tokens=LENGTH, do_sample=False, **options)
    start = inputs["input_ids"].shape[1]
    beams = sequence_score(model, inputs, found.sequences[:, start:])
    assert torch.allclose(found.sequences_scores, beams, atol=1e-3)
    assert (beams >= sequence_score(model, inputs, generate(model, inputs)) - 1e-4).all()


def sequence_score(model, inputs, tokens):
    """Log-probability of ``tokens`` behind the prompts, end and placeholder left out as ``generate`` does."""
    ids = torch.cat([inputs["input_ids"], tokens], dim=1)
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(tokens)], dim=1)
    prompt = torch.nn.functional.pad(inputs["attention_mask"].bool(), (0, tokens.shape[1]), value=False)
    full = {**inputs, "input_ids": ids, "attention_mask": mask, "prompt_mask": prompt}
    logits = model(**full).logits[:, -tokens.shape[1] - 1 : -1].log_softmax(dim=-1)
    return logits.gather(2, tokens[..., None]).squeeze(2).sum(dim=1)


def test_several_return_sequences_belong_to_their_rows(model, inputs):
    both = generate(model, inputs, num_beams=3, num_return_sequences=3)
    assert both.shape == (6, LENGTH)
    for row in range(2):
        alone = generate(model, one(inputs, row), num_beams=3, num_return_sequences=3)
        assert torch.equal(both[3 * row : 3 * row + 3], alone)


def test_sampled_sequences_repeat_with_the_seed_and_differ(model, inputs):
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(generate(model, inputs, do_sample=True, num_return_sequences=4))
    assert torch.equal(*drawn) and len({tuple(row) for row in drawn[0].tolist()}) == 8


def test_prompt_lookup_gives_the_greedy_answer(built, model, monkeypatch):
    repeated = repetitive(built[1])
    plain = generate(model, repeated, max_new_tokens=24)
    counts, widths = watch(model, monkeypatch), []
    monkeypatch.setattr(model.host, "forward", spied(model.host.forward, widths))
    assert torch.equal(generate(model, repeated, max_new_tokens=24, prompt_lookup_num_tokens=3), plain)
    assert max(widths[1:]) > 1, "nothing was ever looked up; the test shows nothing"
    assert counts == {"mixers": len(model.mixers), "compressor": 1, "vision": 2}


def spied(forward, widths):
    def wrapped(*args, **kwargs):
        widths.append(kwargs["inputs_embeds"].shape[1])
        return forward(*args, **kwargs)

    return wrapped


def test_an_assistant_of_our_own_gives_the_greedy_answer(model, inputs):
    assistant, _ = tiny.made(noise=0.08)
    plain = generate(model, one(inputs, 0))
    assert torch.equal(generate(model, one(inputs, 0), assistant_model=assistant), plain)


def test_a_plain_assistant_is_refused(model, inputs):
    with pytest.raises(PromptError, match="it takes no images; use prompt_lookup_num_tokens"):
        generate(model, one(inputs, 0), assistant_model=LlamaForCausalLM(tiny.host_config()))


@pytest.mark.parametrize("how", ["argument", "config"])
def test_chunked_prefill_is_refused(model, inputs, how):
    options = {"prefill_chunk_size": 4}
    if how == "config":
        options = {"generation_config": GenerationConfig(prefill_chunk_size=4, max_new_tokens=2)}
    with pytest.raises(PromptError, match="prefill_chunk_size cannot be exact.*leave it out"):
        model.generate(**inputs, **options)


def test_a_prompt_that_fills_the_context_is_refused(model):
    with pytest.raises(PromptError, match=f"{tiny.CONTEXT} tokens.*holds {tiny.CONTEXT}; shorten the question"):
        model.generate(input_ids=torch.full((1, tiny.CONTEXT), 50))


@pytest.mark.parametrize("use_cache", [True, False])
def test_no_answer_contains_the_image_placeholder(inputs, use_cache):
    """It would stand for no image; cached and uncached steps would embed it differently."""
    model, _ = tiny.made()
    with torch.no_grad():  # a host that likes the placeholder best
        table = model.host.get_input_embeddings().weight
        table[model.config.image_token_id] = 20 * table[generate(model, inputs)[0, 0]]
    assert not (generate(model, inputs, use_cache=use_cache) == model.config.image_token_id).any()


def test_the_attention_mask_may_be_left_out_without_padding(model, inputs):
    row = one(inputs, 1)
    assert row["attention_mask"].all()
    expected = generate(model, row)
    del row["attention_mask"]
    assert torch.equal(generate(model, row), expected)


def test_text_alone_generates(model, built):
    ids = torch.tensor([built[1].prompt_ids("What color?", images=0)])
    assert generate(model, {"input_ids": ids}).shape == (1, LENGTH)
    assert torch.equal(generate(model, {"input_ids": ids}), generate(model, {"input_ids": ids}, use_cache=False))


def test_generation_can_continue_from_a_cache(model, inputs):
    """A second turn on the first one's cache equals the same turn computed whole."""
    row = one(inputs, 1)
    first = model.generate(**row, max_new_tokens=3, min_new_tokens=3, return_dict_in_generate=True)
    more = torch.cat([first.sequences, torch.tensor([[70, 71, 72]])], dim=1)
    mask = torch.nn.functional.pad(row["attention_mask"], (0, 6), value=1)
    prompt = torch.nn.functional.pad(row["attention_mask"].bool(), (0, 6), value=False)
    rest = {name: value for name, value in row.items() if name.startswith(("pixel", "aux"))}
    options = {"attention_mask": mask, "max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    whole = model.generate(input_ids=more, prompt_mask=prompt, **rest, **options)
    rest["cache"] = cache_of(first)
    cached = model.generate(input_ids=more, prompt_mask=prompt, **rest, **options)
    assert torch.equal(cached, whole)


def test_words_that_were_embedded_before_are_taken_as_they_are(monkeypatch):
    model, processor = tiny.made(perception={"experts": ["tiny-panoptic"], "context_layer": 2})
    given = tiny.prompt_inputs(processor, QUESTIONS, PERCEPTIONS)
    expected = generate(model, given)
    words = model.auxiliary.words(given["aux_input_ids"], given["aux_attention_mask"])
    with monkeypatch.context() as patch:
        patch.setattr(type(model.auxiliary), "words", None)
        assert torch.equal(generate(model, {**given, "aux_words": words}), expected)
    changed = generate(model, {**given, "aux_words": words.flip(0)})
    assert not torch.equal(changed, expected)
    assisted = generate(model, one({**given, "aux_words": words}, 1), assistant_model=model)
    assert torch.equal(assisted, expected[1:])
