"""The key-value cache under both of its names: mixers run once per prompt, whatever transformers calls the cache.

transformers 5.24 renamed ``past_key_values`` to ``cache`` in forwards, in outputs and in what ``generate`` passes. A
model that misses the new name mixes again at every decoding step, without an error: only the counts here show it.
"""

import functools
import inspect

import native_vision_families
import pytest
import tiny
import torch
from agreement import assert_greedy_agree, greedy
from transformers import DynamicCache, LlamaForCausalLM, StaticCache

from moai.compat import CACHE, CACHE_NAMES, cache_of
from moai.errors import HostError, PromptError
from moai.model.host import checks
from moai.model.host.checks import cache_keyword
from moai.model.host.layers import decoder_layers
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.processor.processor import MoaiProcessor

QUESTIONS = ("What color?", "Is there a red shape in it, or none?")
PERCEPTIONS = (tiny.seen("red circle"), tiny.seen("blue box", "green disc"))
LENGTH = 8
EXACTLY = {"max_new_tokens": LENGTH, "min_new_tokens": LENGTH}
MODES = {
    "greedy": {},
    "sampled": {"do_sample": True},
    "static": {"cache_implementation": "static"},
    "beams": {"num_beams": 3},
    "lookup": {"prompt_lookup_num_tokens": 3},
}


@pytest.fixture(autouse=True)
def no_host_was_run(monkeypatch):
    monkeypatch.setattr(checks, "_CACHE_KEYWORDS", {})


@pytest.fixture(params=["encoder", *native_vision_families.HOSTS])
def case(request, built):
    """A model and one prompt: with our vision encoder, and around each vision-language host."""
    if request.param == "encoder":
        model, processor = built
        return model, tiny.prompt_inputs(processor, QUESTIONS[:1], PERCEPTIONS[:1])
    return with_native_vision(request.param)


@functools.cache
def with_native_vision(family):
    host, processor, placeholder = native_vision_families.made(family)
    mixer = {"layers": [0, 2], "rank": 8, "heads": 2}
    compressor = {"latents": 8, "depth": 2, "heads": 2, "head_width": 16}
    torch.manual_seed(1)
    model = MoaiForConditionalGeneration.around(host, mixer=mixer, compressor=compressor).eval()
    tiny.disturb(model, 0.1)
    prompt = f"{placeholder}\nQuestion: {QUESTIONS[0]}\nAnswer:"
    processor = MoaiProcessor(host_processor=processor)
    inputs = processor(images=[tiny.picture("red")], text=[prompt], perceptions=[PERCEPTIONS[0]])
    return model, dict(inputs)


@pytest.fixture
def row(built):
    return tiny.prompt_inputs(built[1], QUESTIONS[:1], PERCEPTIONS[:1])


def generate(model, inputs, **options):
    return model.generate(**inputs, **{**EXACTLY, "do_sample": False, **options})


class Passes:
    """How often each mixer ran, and how many tokens each pass through the host read."""

    def __init__(self, model):
        self.mixers = dict.fromkeys(model.mixers, 0)
        self.read = []
        for name, mixer in model.mixers.items():
            mixer.register_forward_pre_hook(lambda *_, name=name: self.count(name))
        first = decoder_layers(model.host)[0]
        first.register_forward_pre_hook(self.reading, with_kwargs=True)

    def count(self, name):
        self.mixers[name] += 1

    def reading(self, module, args, kwargs):
        self.read.append((args[0] if args else kwargs["hidden_states"]).shape[1])


@pytest.fixture
def passes():
    """Watches one model; the hooks come off at the end."""
    hooked = []

    def watch(model):
        before = [(module, set(module._forward_pre_hooks)) for module in model.modules()]
        hooked.extend(before)
        return Passes(model)

    yield watch
    for module, keys in hooked:
        for key in set(module._forward_pre_hooks) - keys:
            del module._forward_pre_hooks[key]
            module._forward_pre_hooks_with_kwargs.pop(key, None)


# Decoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_mixers_run_once_per_prompt(case, passes, mode):
    model, inputs = case
    seen = passes(model)
    length = inputs["input_ids"].shape[1]
    generated = generate(model, inputs, **MODES[mode])
    assert seen.mixers == dict.fromkeys(model.mixers, 1)
    assert seen.read[0] >= length and max(seen.read[1:]) < length, "a later pass read the prompt again"
    if mode not in ("lookup",):
        assert seen.read[1:] == [1] * (LENGTH - 1)
    assert generated.shape[1] == length + LENGTH


def test_without_a_cache_each_step_is_a_prefill(case, passes):
    model, inputs = case
    seen = passes(model)
    uncached = greedy(model, inputs, **EXACTLY, use_cache=False)
    assert seen.mixers == dict.fromkeys(model.mixers, LENGTH)
    assert_greedy_agree(greedy(model, inputs, **EXACTLY), uncached)


def test_an_assistants_mixers_run_once_as_well(built, row, passes):
    model, assistant = built[0], tiny.made(noise=0.08)[0]
    ours, theirs = passes(model), passes(assistant)
    assisted = greedy(model, row, **EXACTLY, assistant_model=assistant)
    assert set(ours.mixers.values()) == {1} and set(theirs.mixers.values()) == {1}
    assert_greedy_agree(assisted, greedy(model, row, **EXACTLY))


@pytest.mark.parametrize("name", CACHE_NAMES)
def test_generation_continues_from_a_returned_cache_under_either_name(case, passes, name):
    model, inputs = case
    first = generate(model, inputs, max_new_tokens=3, min_new_tokens=3, return_dict_in_generate=True)
    assert cache_of(first).get_seq_length() == first.sequences.shape[1] - 1
    more = torch.cat([first.sequences, torch.tensor([[70, 71, 72]])], dim=1)
    prompt = torch.zeros_like(more).bool()
    prompt[:, : inputs["input_ids"].shape[1]] = True
    mask = torch.ones_like(more)
    rest = {key: value for key, value in inputs.items() if key not in ("input_ids", "attention_mask")}
    rest.pop("mm_token_type_ids", None)
    given = {**rest, "input_ids": more, "attention_mask": mask, "prompt_mask": prompt}
    whole = greedy(model, given, **EXACTLY)
    seen = passes(model)
    text = {key: value for key, value in given.items() if not key.startswith("pixel")}
    continued = greedy(model, text, **EXACTLY, **{name: cache_of(first)})
    assert_greedy_agree(continued, whole)
    assert set(seen.mixers.values()) == {0} and seen.read[0] == 4  # the last token of the first answer, and three more


# Forward ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CACHE_NAMES)
@pytest.mark.parametrize("kind", ["returned", "dynamic", "static"])
@torch.no_grad()
def test_forward_takes_the_cache_under_either_name(built, row, name, kind):
    model, length = built[0], row["input_ids"].shape[1]
    whole = model(**row, use_cache=False)
    if kind == "static":
        cache = StaticCache(config=model.host.config, max_cache_len=length + 1)
    else:
        cache = DynamicCache(config=model.host.config)
    first = model(**row, use_cache=True, **({} if kind == "returned" else {name: cache}))
    assert torch.allclose(first.logits, whole.logits, atol=1e-5)
    cache = cache_of(first)
    assert int(cache.get_seq_length()) == length
    token, mask = whole.logits[:, -1:].argmax(dim=-1), torch.ones(1, length + 1, dtype=torch.long)
    prompt = torch.nn.functional.pad(row["attention_mask"].bool(), (0, 1), value=False)
    longer = torch.cat([row["input_ids"], token], dim=1)
    expected = model(**{**row, "input_ids": longer, "attention_mask": mask, "prompt_mask": prompt}).logits[:, -1]
    found = model(input_ids=token, attention_mask=mask, **{name: cache}).logits[:, -1]
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, model(input_ids=token).logits[:, -1], atol=1e-3), "the cache changed nothing"


def test_an_output_has_the_names_that_transformers_gives_it(built, row):
    model, _ = built
    ours = model(**row, use_cache=True)
    theirs = LlamaForCausalLM(tiny.host_config())(input_ids=row["input_ids"].clamp(max=390), use_cache=True)
    for name in CACHE_NAMES:
        assert (name in ours.keys()) == (name in theirs.keys())
        assert hasattr(ours, name) == hasattr(theirs, name)
    assert type(cache_of(ours)) is type(cache_of(theirs))
    assert cache_of(model(**row, use_cache=False)) is None


@pytest.mark.parametrize("method", ["forward", "prepare_inputs_for_generation"])
def test_signatures_name_the_cache_as_transformers_does(built, method):
    ours = inspect.signature(getattr(built[0], method)).parameters
    theirs = inspect.signature(getattr(LlamaForCausalLM, method)).parameters
    assert {name in ours for name in CACHE_NAMES if name in theirs} == {True}
    assert {name in ours for name in CACHE_NAMES if name not in theirs} <= {False}


@pytest.mark.parametrize("name", CACHE_NAMES)
def test_inputs_are_prepared_with_the_cache_under_either_name(built, row, name):
    """What only the prefill needs is left out as soon as the cache holds the prompt; never before."""
    model = built[0]
    with torch.no_grad():
        full = cache_of(model(**row, use_cache=True))
    empty = DynamicCache(config=model.host.config)
    given = {"prompt_mask": row["attention_mask"].bool(), "attention_mask": row["attention_mask"], "use_cache": True}
    prepared = [model.prepare_inputs_for_generation(row["input_ids"], **given, **{name: c}) for c in (empty, full)]
    assert ["prompt_mask" in inputs for inputs in prepared] == [True, False]
    assert [inputs[CACHE] for inputs in prepared] == [empty, full]
    assert all(other not in inputs for inputs in prepared for other in CACHE_NAMES if other != CACHE)


@pytest.mark.parametrize("call", ["forward", "generate", "prepare_inputs_for_generation"])
def test_two_caches_are_refused(built, row, call):
    caches = {name: DynamicCache() for name in CACHE_NAMES}
    with pytest.raises(PromptError, match="both past_key_values and cache.*; give .* alone"):
        getattr(built[0], call)(input_ids=row["input_ids"], **caches)


# Hosts ------------------------------------------------------------------------------------------------------------


class OldName(LlamaForCausalLM):
    """Remote code from before the new name: its own parameter, its own output field, nothing else taken."""

    def forward(self, input_ids=None, attention_mask=None, past_key_values=None, inputs_embeds=None, use_cache=None,
                return_dict=None):  # fmt: skip
        given = {"inputs_embeds": inputs_embeds, "attention_mask": attention_mask, "use_cache": use_cache}
        output = super().forward(input_ids, **given, **{CACHE: past_key_values})
        return Bare(output.logits, cache_of(output))


class AnyName(LlamaForCausalLM):
    """Takes whatever it is given."""

    def forward(self, **kwargs):
        return super().forward(**kwargs)


class Deaf(LlamaForCausalLM):
    """Returns a cache and never reads the one that it is given, under no name."""

    def forward(self, cache=None, past_key_values=None, **kwargs):
        return super().forward(**kwargs)


class Bare:
    """An output that is no ``ModelOutput``."""

    def __init__(self, logits, past):
        self.logits, self.past_key_values, self.hidden_states, self.attentions = logits, past, None, None


@pytest.mark.parametrize(("kind", "name"), [(LlamaForCausalLM, CACHE), (OldName, "past_key_values"), (AnyName, CACHE)])
def test_the_name_under_which_a_host_takes_its_cache_is_found_by_running_it(kind, name):
    assert cache_keyword(kind(tiny.host_config()).eval()) == name


def test_a_host_that_never_reads_its_cache_is_refused():
    with pytest.raises(HostError, match="Deaf does not go on from its key-value cache.*use a decoder-only"):
        cache_keyword(Deaf(tiny.host_config()).eval())


@pytest.mark.parametrize("kind", [OldName, AnyName])
def test_other_hosts_decode_as_llama_does(built, row, passes, kind):
    from test_hosts import augmented

    torch.manual_seed(0)
    host = kind(tiny.host_config(vocab_size=len(built[1].tokenizer))).eval()
    reference = LlamaForCausalLM(host.config).eval()
    reference.load_state_dict(host.state_dict())
    model, plain = augmented(host)[0], augmented(reference)[0]
    seen = passes(model)
    assert_greedy_agree(greedy(model, row, **EXACTLY), greedy(plain, row, **EXACTLY))
    assert seen.mixers == dict.fromkeys(model.mixers, 1) and seen.read[1:] == [1] * (LENGTH - 1)


@torch.no_grad()
def test_a_host_that_has_read_prompts_is_asked_as_a_fresh_one_is():
    """Qwen remembers how the positions of the last batch went on, for as many rows as that had."""
    model, inputs = with_native_vision("qwen")
    native = {key: value for key, value in inputs.items() if not key.startswith("aux") and key != "prompt_mask"}
    twice = {key: torch.cat([value, value]) for key, value in native.items()}
    host = model.host
    host.generate(**twice, max_new_tokens=2)
    before = host.model.rope_deltas.clone()
    assert len(before) == 2 and cache_keyword(host) == CACHE
    assert torch.equal(host.model.rope_deltas, before)


def test_a_host_like_one_that_was_run_is_not_run_again_unless_its_forward_was_replaced():
    ran = []

    def host():
        made = LlamaForCausalLM(tiny.host_config()).eval()
        made.model.register_forward_pre_hook(lambda *_: ran.append(made))
        return made

    first, second, replaced = host(), host(), host()
    assert [cache_keyword(first), cache_keyword(second)] == [CACHE, CACHE] and ran == [first, first]
    replaced.forward = lambda input_ids, use_cache=None, **_: LlamaForCausalLM.forward(replaced, input_ids)
    with pytest.raises(HostError, match="does not go on"):
        cache_keyword(replaced)


def test_asking_a_host_how_it_takes_its_cache_leaves_no_trace():
    host = LlamaForCausalLM(tiny.host_config(attention_dropout=0.5)).train()
    host.model.layers[1].eval()
    modes = [module.training for module in host.modules()]
    state = torch.get_rng_state()
    before = {name: value.clone() for name, value in host.state_dict().items()}
    cache_keyword(host)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in host.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in host.state_dict().items())
