"""Any causal language model of transformers as a host: nothing swallowed, nothing changed, nothing scaled twice."""

import copy
import functools

import pytest
import tiny
import torch
import transformers
from agreement import assert_greedy_agree, frozen, greedy
from host_families import FAMILIES, NAMED, tiny_host
from transformers import AutoModelForCausalLM

from moai.compat import CACHE
from moai.errors import HostError
from moai.model.arguments import kept_logits
from moai.model.host.layers import decoder_layers
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.run_folder import load_host

QUESTIONS = ("What color has the shape over there?", "Is it?")
WORDS = torch.tensor([[40, 50, 60, 70, 80]])


@functools.cache
def template(arithmetic="moai"):
    return tiny.made(arithmetic=arithmetic)


def augmented(host, arithmetic="moai"):
    """A model around ``host`` with noise on every adapter, and inputs of a left-padded batch of two."""
    made, processor = template(arithmetic)
    model = MoaiForConditionalGeneration(copy.deepcopy(made.config), host=host, vision=made.images.vision)
    with torch.no_grad():
        for name, parameter in model.adapter_parameters().items():
            parameter.copy_(made.adapter_parameters()[name])
    return model.eval(), tiny.prompt_inputs(processor, QUESTIONS, [tiny.seen("red"), tiny.seen("blue")])


QUICK = ("llama", "qwen3", "gemma3", "gpt2", "falcon_alibi", "granite", "lfm2")  # one of each kind of layout


@pytest.fixture(params=[f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES])
def family(request):
    return request.param


@functools.cache
def made_once(family):
    return augmented(tiny_host(family))


@torch.no_grad()
def test_perception_is_read_and_padding_is_not(family):
    model, inputs = made_once(family)
    assert inputs["attention_mask"].all(dim=1).tolist() == [True, False]
    with tiny.forward_contexts() as contexts:
        logits = model(**inputs).logits
    assert contexts[0].calls == len(model.mixers) == 2
    blind = model(**{name: value for name, value in inputs.items() if not name.startswith("aux_")}).logits
    assert (logits - blind)[:, -1].abs().amax(dim=1).min() > 1e-4
    processor = template()[1]
    alone = tiny.prompt_inputs(processor, QUESTIONS[1:], [tiny.seen("blue")], [tiny.picture(tiny.COLORS[1])])
    assert torch.allclose(model(**alone).logits[0, -1], logits[1, -1], atol=1e-5)
    assert torch.allclose(model(**inputs, logits_to_keep=2).logits, logits[:, -2:], atol=1e-5)


@torch.no_grad()
def test_the_cache_changes_nothing(family):
    model, inputs = made_once(family)
    options = {"max_new_tokens": 5, "min_new_tokens": 5}
    assert_greedy_agree(*(greedy(model, inputs, **options, use_cache=cached) for cached in (True, False)))


def test_training_moves_the_mixers_and_not_one_bit_of_the_host(family):
    model, inputs = augmented(tiny_host(family))
    before = copy.deepcopy(model.host.state_dict())
    model.train()
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -2:] = inputs["input_ids"][:, -2:]
    model(**inputs, labels=labels).loss.backward()
    parameters = model.adapter_parameters()
    assert {name for name, p in parameters.items() if p.grad is None or not p.grad.any()} == set()
    assert all(p.grad is None for p in model.host.parameters())
    torch.optim.SGD(parameters.values(), lr=0.1).step()
    after = model.host.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items()) and list(after) == list(before)


@torch.no_grad()
def test_without_mixers_the_host_is_what_it_was(family):
    """Logit transforms, embedding scales and all: the same numbers from words as from their embeddings.

    Bits: the very host, frozen, before it is grafted and after its mixers are removed.
    """
    host = frozen(tiny_host(family))
    words = {"input_ids": torch.arange(40, 64)[None]}
    options = {"max_new_tokens": 4, "min_new_tokens": 4}
    expected, answer = host(input_ids=WORDS).logits, greedy(host, words, **options)
    model, _ = augmented(host)
    assert (model(input_ids=WORDS).logits - expected).abs().max() > 1e-3
    assert model.remove_mixers() is host
    assert torch.equal(host(input_ids=WORDS).logits, expected)
    assert torch.equal(model(input_ids=WORDS).logits, expected)
    assert torch.equal(greedy(host, words, **options).scores, answer.scores)


@torch.no_grad()
def test_image_features_reach_the_first_layer_at_their_own_scale(family):
    """Where the host scales what is embedded, features are neither scaled with it nor left behind."""
    if family == "bloom":
        pytest.skip("Bloom normalises embeddings, which have no scale then")
    model, inputs = made_once(family)
    seen = []

    def watch(_, args, kwargs):
        seen.append(args[0] if args else kwargs["hidden_states"])

    handle = decoder_layers(model.host)[0].register_forward_pre_hook(watch, with_kwargs=True, prepend=True)
    features = torch.randn(2, tiny.IMAGE_TOKENS, tiny.WIDTH, generator=torch.Generator().manual_seed(0))
    given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    for factor in (1.0, 3.0):
        model(**given, image_features=factor * features)
    handle.remove()
    where = inputs["input_ids"] == model.config.image_token_id
    assert torch.allclose((seen[1] - seen[0])[where], 2 * features.flatten(0, 1), atol=1e-4)
    assert torch.equal(seen[1][~where], seen[0][~where])


@pytest.mark.parametrize("named", NAMED)
@torch.no_grad()
def test_the_other_placement(named):
    host = frozen(tiny_host(named))
    expected = host(input_ids=WORDS).logits
    model, inputs = augmented(host, "published")
    with tiny.forward_contexts() as contexts:
        logits = model(**inputs).logits
    assert contexts[0].calls == len(model.mixers)
    blind = model(**{name: value for name, value in inputs.items() if not name.startswith("aux_")}).logits
    assert (logits - blind)[:, -1].abs().amax(dim=1).min() > 1e-4
    model.remove_mixers()
    assert torch.equal(model(input_ids=WORDS).logits, expected)  # bits: the very host, frozen before and after


# Hosts that are none ----------------------------------------------------------------------------------------------

SMALL = {"hidden_size": 32, "num_hidden_layers": 4, "vocab_size": 378}
OPT = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 378, "ffn_dim": 96}
REFUSED = {
    "MambaForCausalLM has no attention in any layer": ("MambaConfig", {**SMALL, "state_size": 4}),
    "Mamba2ForCausalLM has no attention in any layer": (
        "Mamba2Config", {**SMALL, "state_size": 4, "num_heads": 4, "head_dim": 16, "n_groups": 1}),
    "RwkvForCausalLM keeps no key-value cache": ("RwkvConfig", {**SMALL, "context_length": 64}),
    "OpenAIGPTLMHeadModel keeps no key-value cache": (
        "OpenAIGPTConfig", {"n_embd": 32, "n_layer": 4, "n_head": 4, "vocab_size": 378, "n_positions": 64}),
    "RecurrentGemmaForCausalLM": ("RecurrentGemmaConfig", {**SMALL, "num_attention_heads": 4, "intermediate_size": 48}),
    "BertLMHeadModel has no list of decoder layers": (
        "BertConfig", {**SMALL, "num_attention_heads": 4, "intermediate_size": 48, "is_decoder": True}),
    "OPTForCausalLM embeds words in 32 dimensions and decodes in 64": ("OPTConfig", {**OPT, "word_embed_proj_dim": 32}),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_a_host_is_refused_by_name(message):
    name, settings = REFUSED[message]
    host = AutoModelForCausalLM.from_config(getattr(transformers, name)(**settings))
    with pytest.raises(HostError, match=f"{message}.*; use a "):
        augmented(host)


def test_an_encoder_decoder_is_refused_loaded_or_by_its_folder(tmp_path):
    config = transformers.T5Config(d_model=32, d_ff=48, num_layers=2, num_heads=4, vocab_size=378)
    host = transformers.T5ForConditionalGeneration(config)
    with pytest.raises(HostError, match="T5ForConditionalGeneration .t5. is an encoder-decoder and cannot be a host"):
        augmented(host)
    host.save_pretrained(tmp_path)
    with pytest.raises(HostError, match="is an encoder-decoder and cannot be a host; use a decoder-only"):
        load_host(str(tmp_path), None, torch.float32)


# Forward signatures -----------------------------------------------------------------------------------------------


class Strict(transformers.LlamaForCausalLM):
    """A host that takes neither positions, nor which logits to keep, nor anything that it does not know."""

    def forward(self, input_ids=None, attention_mask=None, past_key_values=None, inputs_embeds=None, return_dict=None):
        return super().forward(input_ids, attention_mask, None, past_key_values, inputs_embeds)


class Swallowing(transformers.LlamaForCausalLM):
    """A host that takes anything and computes all logits nevertheless."""

    def forward(self, *args, past_key_values=None, logits_to_keep=0, **kwargs):
        return super().forward(*args, **{CACHE: past_key_values}, **kwargs)


@pytest.mark.parametrize("kind", [Strict, Swallowing])
def test_hosts_with_fewer_arguments(kind):
    config = tiny_host("llama").config
    torch.manual_seed(0)
    host = kind(config).eval()
    model, inputs = augmented(host)
    reference = transformers.LlamaForCausalLM(copy.deepcopy(config)).eval()
    reference.load_state_dict(host.state_dict())
    plain, _ = augmented(reference)
    one = {name: value[:1] for name, value in inputs.items()}  # without padding: positions are what they would be
    labels = torch.full_like(one["input_ids"], -100)
    labels[:, -3:] = one["input_ids"][:, -3:]
    for extra in ({}, {"logits_to_keep": 2}, {"labels": labels}):
        found, expected = (m(**one, **extra) for m in (model, plain))
        assert torch.allclose(found.logits, expected.logits, atol=1e-5) and found.logits.shape == expected.logits.shape
    assert torch.allclose(found.loss, expected.loss, atol=1e-5)
    options = {"max_new_tokens": 4, "min_new_tokens": 4}
    assert_greedy_agree(greedy(model, one, **options), greedy(plain, one, **options))


def test_logits_are_cut_only_where_the_host_did_not():
    logits = torch.arange(12.0).view(1, 6, 2)
    assert torch.equal(kept_logits(logits, 2, 6), logits[:, -2:])
    assert torch.equal(kept_logits(logits, torch.tensor([1, 2]), 6), logits[:, 1:3])
    assert kept_logits(logits, 0, 6) is logits and kept_logits(logits[:, :2], 2, 6).shape[1] == 2
