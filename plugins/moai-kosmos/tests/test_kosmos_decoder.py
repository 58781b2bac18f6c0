"""KOSMOS-1's decoder: xPos, sub-LN, first weights, sizes, and that it behaves as a model of transformers."""

import math

import pytest
import torch
from moai_kosmos.config import KosmosConfig, init_scale
from moai_kosmos.decoder import KosmosForCausalLM, XPos, apply_xpos
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from moai.plugin_api import CACHE

SMALL = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
         "num_attention_heads": 4, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
         "pad_token_id": 0}  # fmt: skip


def small(**changes) -> KosmosForCausalLM:
    torch.manual_seed(0)
    return KosmosForCausalLM(KosmosConfig(**{**SMALL, **changes})).eval()


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(3, 61, shape, generator=torch.Generator().manual_seed(1))


def torchscale_scores(query: torch.Tensor, key: torch.Tensor, base: float = 512) -> torch.Tensor:
    """What torchscale's XPOS makes of (L, W) queries and keys, stated anew: rotation by complex numbers, and decay."""
    length, width = query.shape
    pair = torch.arange(width // 2, dtype=torch.float64)
    zeta = (2 * pair + 0.4 * width) / (1.4 * width)
    theta = 10000 ** (-2 * pair / width)
    n = torch.arange(length, dtype=torch.float64)[:, None]
    centred = n - length // 2
    turn = torch.polar(torch.ones_like(n * theta), n * theta)

    def as_complex(x):
        return torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())

    q = as_complex(query) * turn * zeta ** (centred / base)
    k = as_complex(key) * turn * zeta ** (-centred / base)
    return (q[:, None] * k.conj()[None]).real.sum(-1)


def scores(query: torch.Tensor, key: torch.Tensor, first: int = 0, config: KosmosConfig | None = None) -> torch.Tensor:
    positions = torch.arange(first, first + len(query))[None]
    xpos = XPos(config or KosmosConfig(head_dim=query.shape[1]))(query, positions)
    q, k = apply_xpos(query[None, None], key[None, None], xpos)
    return (q @ k.transpose(-1, -2))[0, 0].double()


def test_xpos_is_torchscales():
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 40, 64, generator=generator)
    expected = torchscale_scores(query, key)
    torch.testing.assert_close(scores(query, key), expected, atol=2e-4, rtol=1e-4)
    assert (expected - query.double() @ key.double().T).abs().max() > 1  # positions matter


def test_xpos_scores_do_not_depend_on_where_the_text_stands():
    query, key = torch.randn(2, 24, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(scores(query, key, 1500), scores(query, key, 0), atol=2e-3, rtol=1e-3)


def test_xpos_decays_with_distance():
    """A pair's own score falls by zeta ** (distance / 512), so that far tokens weigh less."""
    query = torch.zeros(512, 8)
    query[:, 6:] = 1.0  # the slowest rotation
    found = scores(query, query)
    zeta = (6 + 0.4 * 8) / (1.4 * 8)
    angle = 511 * 10000 ** (-6 / 8)
    assert found[511, 0] == pytest.approx(2 * zeta ** (511 / 512) * math.cos(angle), abs=1e-3)


def test_the_whole_decoder_is_shift_equivariant():
    model, tokens = small(), ids(2, 9)
    place = torch.arange(9).expand(2, -1)
    with torch.no_grad():
        here, there = (model(tokens, position_ids=place + shift).logits for shift in (0, 37))
    torch.testing.assert_close(here, there, atol=1e-4, rtol=1e-4)


def test_gamma_at_24_layers():
    assert init_scale(24) == pytest.approx(1.9675, abs=5e-5)


def test_first_weights_are_xaviers_times_gamma():
    model = small(hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4)
    layer, gamma = model.model.layers[1], init_scale(2)
    linears = {"fc1": layer.ffn.fc1, "fc2": layer.ffn.fc2, "out": layer.self_attn.out_proj}
    for linear in linears.values():
        xavier = math.sqrt(2 / (linear.in_features + linear.out_features))
        assert linear.weight.std().item() == pytest.approx(gamma * xavier, rel=0.03)
        assert not linear.bias.any()
    ratio = layer.self_attn.v_proj.weight.std() / layer.self_attn.q_proj.weight.std()
    assert ratio.item() == pytest.approx(gamma, rel=0.03)


def test_a_layer_is_sub_ln():
    """A layer equals its definition, written out: four norms, the third on the joined heads, the fourth after GELU."""
    model, x = small(), torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(2))
    layer = model.model.layers[0]
    for norm in (module for module in layer.modules() if isinstance(module, nn.LayerNorm)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    attention, ffn = layer.self_attn, layer.ffn
    with torch.no_grad():
        found = layer(x, position_embeddings=model.model.rotary_emb(x, torch.zeros(1, 1, dtype=torch.long)))
        heads = attention.v_proj(layer.self_attn_layer_norm(x))  # one token attends to itself
        middle = x + attention.out_proj(attention.inner_attn_ln(heads))
        hidden = nn.functional.gelu(ffn.fc1(layer.final_layer_norm(middle)))
        expected = middle + ffn.fc2(ffn.ffn_layernorm(hidden))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_images_are_scaled_as_words_are():
    model, tokens = small(), ids(1, 6)
    with torch.no_grad():
        words, embedded = model(tokens).logits, model(inputs_embeds=model.get_input_embeddings()(tokens)).logits
        states = model(tokens, output_hidden_states=True).hidden_states
    assert torch.equal(words, embedded)
    torch.testing.assert_close(states[0], model.get_input_embeddings()(tokens) * 32**0.5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_cached_equals_uncached(attention):
    model, tokens = small(), ids(2, 12)
    model.set_attn_implementation(attention)
    with torch.no_grad():
        whole, cache, steps = model(tokens).logits, None, []
        for at in range(12):
            output = model(tokens[:, at : at + 1], **{CACHE: cache}, use_cache=True)
            cache = getattr(output, CACHE)
            steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(attention, side):
    model, short, long = small(), ids(1, 7), ids(1, 11)
    model.set_attn_implementation(attention)
    pad = torch.zeros(1, 4, dtype=torch.long)
    row = torch.cat([pad, short] if side == "left" else [short, pad], dim=1)
    mask = torch.cat([row != 0, long != 0]).long()
    real = slice(4, None) if side == "left" else slice(0, 7)
    with torch.no_grad():
        alone, together = model(short).logits, model(torch.cat([row, long]), attention_mask=mask).logits
    torch.testing.assert_close(together[:1, real], alone, atol=1e-4, rtol=1e-4)


def test_it_generates_as_it_computes():
    model, tokens = small(), ids(2, 5)
    with torch.no_grad():
        model.lm_head.weight.data[2] = 0  # the end is not what comes first
        made = model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=6, do_sample=False)
        again = made[:, :5]
        for _ in range(made.shape[1] - 5):
            again = torch.cat([again, model(again).logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(made, again)


def test_checkpointed_layers_give_the_same_gradients():
    def gradients(checkpointed: bool) -> list[torch.Tensor]:
        model = small().train()
        if checkpointed:
            model.gradient_checkpointing_enable()
        model(ids(2, 8), labels=ids(2, 8), use_cache=False).loss.backward()
        return [p.grad for p in model.parameters()]

    for one, other in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(one, other)


def test_it_is_saved_and_loaded_by_the_auto_classes(tmp_path):
    model, tokens = small(), ids(1, 6)
    model.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is KosmosConfig
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, model(tokens).logits)


def test_the_papers_sizes():
    with torch.device("meta"):
        model = KosmosForCausalLM(KosmosConfig())
    count = sum(p.numel() for p in model.parameters())
    width, ffn = 2048, 8192
    layer = 4 * (width**2 + width) + 2 * width * ffn + width + ffn + 2 * (3 * width + ffn)
    assert count == 24 * layer + 65037 * width + 2 * width
    assert f"{count / 1e9:.1f}" == "1.3"
