"""Grafting: positions, hooks, and hosts of other families than Llama."""

import copy

import pytest
import tiny
import torch
from agreement import assert_greedy_agree, frozen, greedy
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    MistralConfig,
    OPTConfig,
    Qwen3Config,
)

from moai.errors import HostError
from moai.model.host.layers import decoder_layers
from moai.model.mixer.forward_context import locate
from moai.model.mixer.graft import MixerHook, ungraft
from moai.model.modeling import MoaiForConditionalGeneration

SIZES = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 378}
GROUPED = {**SIZES, "intermediate_size": 96, "num_key_value_heads": 2, "head_dim": 16}
FAMILIES = {
    "gpt2": GPT2Config(n_embd=64, n_layer=4, n_head=4, vocab_size=378, n_positions=192),
    "gpt_neox": GPTNeoXConfig(**SIZES, intermediate_size=96),
    "opt": OPTConfig(**SIZES, ffn_dim=96, word_embed_proj_dim=64),
    "mistral": MistralConfig(**GROUPED, sliding_window=8),
    "qwen3": Qwen3Config(**GROUPED),
    "gemma2": Gemma2Config(**GROUPED, sliding_window=8, query_pre_attn_scalar=16),
}


def test_locate_gives_padded_positions():
    mask = torch.tensor([[False, True, False, True], [False, False, False, False], [True, True, True, False]])
    index, valid = locate(mask)
    assert valid.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert index.tolist() == [[1, 3, 0], [0, 0, 0], [0, 1, 2]]
    empty, none = locate(torch.zeros(2, 5, dtype=torch.bool))
    assert empty.shape == none.shape == (2, 0)


def test_ungraft_takes_off_our_hooks_only():
    model, _ = tiny.made()
    layer = model.host.model.layers[0]
    seen = []
    layer.register_forward_pre_hook(lambda *_: seen.append(1))
    ungraft(model.host)
    hooks = [hook for module in model.host.modules() for hook in module._forward_pre_hooks.values()]
    assert len(hooks) == 1 and not any(isinstance(hook, MixerHook) for hook in hooks)
    model.host(input_ids=torch.tensor([[5, 6]]))
    assert seen == [1]


def test_the_hosts_state_keeps_its_names():
    model, _ = tiny.made()
    bare = AutoModelForCausalLM.from_config(copy.deepcopy(model.host.config))
    assert list(model.host.state_dict()) == list(bare.state_dict())


def test_something_without_decoder_layers_is_no_host():
    with pytest.raises(HostError, match="Linear has no list of decoder layers.*use a decoder-only language model"):
        decoder_layers(nn.Linear(2, 2))


def test_a_host_that_skips_its_hooks_is_refused():
    """Compiled or fused layers would drop the mixers without a word."""
    model, processor = tiny.made()
    layer = model.host.model.layers[2]
    layer._forward_pre_hooks.clear()
    inputs = tiny.prompt_inputs(processor, ["What?"], [tiny.seen("red")])
    with pytest.raises(HostError, match="LlamaForCausalLM ran 1 of 2 mixers"):
        model(**inputs)


@pytest.mark.parametrize("arithmetic", ["moai", "published"])
@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_can_be_hosts(family, arithmetic):
    template, processor = tiny.made(arithmetic=arithmetic)
    torch.manual_seed(0)
    host = frozen(AutoModelForCausalLM.from_config(copy.deepcopy(FAMILIES[family])).eval())
    words = torch.tensor([[40, 50, 60]])
    with torch.no_grad():
        bare = host(input_ids=words).logits
    vision = template.images.vision
    model = MoaiForConditionalGeneration(copy.deepcopy(template.config), host=host, vision=vision).eval()
    questions = ["What color has the shape over there?", "Is it?"]
    inputs = tiny.prompt_inputs(processor, questions, [tiny.seen("red"), tiny.seen("blue")])
    assert inputs["attention_mask"].all(dim=1).tolist() == [True, False]
    with torch.no_grad():
        start = model(**inputs).logits[:, -1]
        tiny.disturb(model, 0.1)
        mixed = model(**inputs).logits
        assert (mixed[:, -1] - start).abs().amax(dim=1).min() > 1e-3
        alone = tiny.prompt_inputs(processor, ["Is it?"], [tiny.seen("blue")], [tiny.picture(tiny.COLORS[1])])
        assert torch.allclose(model(**alone).logits[0, -1], mixed[1, -1], atol=1e-4)
        changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
        changed["input_ids"][:, -1] = 70
        mask = inputs["attention_mask"].bool()
        mask[:, -1] = False  # the last token is an answer now: nothing before it may see it
        given = [model(**{**batch, "prompt_mask": mask}).logits[:, :-1] for batch in (inputs, changed)]
        real = inputs["attention_mask"][:, :-1].bool()
        assert torch.equal(given[0][real], given[1][real])  # bits: one model, equal shapes
        options = {"max_new_tokens": 5, "min_new_tokens": 5}
        assert_greedy_agree(*(greedy(model, inputs, **options, use_cache=cached) for cached in (True, False)))
        assert torch.equal(model.remove_mixers()(input_ids=words).logits, bare)  # bits: the very host, frozen
