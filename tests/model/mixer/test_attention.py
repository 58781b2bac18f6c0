"""One attention module: what it reads, what it must not read, and where it starts."""

import pytest
import torch

from moai.errors import HostError
from moai.model.mixer.attention import AttentionModule, FactoredLinear

WIDTH = 32


def module(**options):
    """A module in the middle of training: its output projection is no longer zero."""
    torch.manual_seed(0)
    return trained(AttentionModule(WIDTH, rank=8, heads=4, **options))


def trained(attention):
    torch.nn.init.normal_(attention.output.up.weight, std=8**-0.5)
    return attention


def tokens(*shape, seed=0):
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed))


def test_a_fresh_module_changes_nothing_but_has_a_gradient():
    torch.manual_seed(0)
    fresh = AttentionModule(WIDTH, rank=8, heads=4)
    out = fresh(tokens(2, 3), tokens(2, 5))
    assert out.shape == (2, 3, WIDTH) and not out.any()
    (out * tokens(2, 3, seed=3)).sum().backward()
    assert fresh.output.up.weight.grad.any()


def test_the_published_start_is_not_the_identity():
    torch.manual_seed(0)
    fresh = AttentionModule(WIDTH, rank=8, heads=4, arithmetic="published")
    assert fresh(tokens(2, 3), tokens(2, 5)).abs().max() > 0.01


@pytest.mark.parametrize("qk_norm_scale", [None, 4.0])
def test_masked_context_is_as_good_as_absent(qk_norm_scale):
    attention = module(qk_norm_scale=qk_norm_scale)
    x, context = tokens(2, 3), tokens(2, 6, seed=1)
    mask = torch.tensor([[True, False, True, True, False, False]] * 2)
    kept = attention(x, context[:, mask[0]])
    noisy = torch.where(mask[..., None], context, 1e4)
    assert torch.allclose(attention(x, noisy, mask), kept, atol=1e-5)
    assert not torch.allclose(attention(x, noisy), kept, atol=1e-2)


def test_a_row_that_may_read_nothing_gets_exactly_zero_and_finite_gradients():
    attention = module()
    x, context = tokens(2, 3).requires_grad_(), tokens(2, 4, seed=1).requires_grad_()
    mask = torch.tensor([[True] * 4, [False] * 4])
    out = attention(x, context, mask)
    assert out[0].any() and not out[1].any()
    out.sum().backward()
    grads = [x.grad, context.grad, *(p.grad for p in attention.parameters())]
    assert all(g.isfinite().all() for g in grads)
    assert not context.grad[1].any()


def test_no_context_at_all_is_a_zero_update():
    assert not module()(tokens(2, 3), tokens(2, 0)).any()


def test_sharpness_takes_the_cosine_so_that_length_does_not_count():
    x, context = tokens(1, 3), tokens(1, 5, seed=1)
    sharp, plain = module(qk_norm_scale=4.0), module()
    assert torch.allclose(sharp(10 * x, context), sharp(x, context), atol=1e-4)
    assert not torch.allclose(plain(10 * x, context), plain(x, context), atol=1e-2)


def test_zero_queries_have_finite_gradients_with_sharpness():
    attention = module(qk_norm_scale=4.0)
    x = torch.zeros(1, 3, WIDTH, requires_grad=True)
    attention(x, torch.zeros(1, 5, WIDTH)).sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().max() < 1e4


def test_the_published_activation_is_a_gelu_behind_the_projection():
    torch.manual_seed(0)
    linear = FactoredLinear(WIDTH, 8, gelu=True)
    x = tokens(4)
    plain = linear.up(linear.down(x))
    assert torch.equal(linear(x), torch.nn.functional.gelu(plain))
    assert not torch.equal(linear(x), plain)


def test_projections_are_factored_and_without_bias():
    shapes = {name: tuple(p.shape) for name, p in module().named_parameters()}
    assert shapes == {
        f"{part}.{side}.weight": ((8, WIDTH) if side == "down" else (WIDTH, 8))
        for part in ("query", "key", "value", "output")
        for side in ("down", "up")
    }


@pytest.mark.parametrize("arithmetic", ["moai", "published"])
def test_the_arithmetic_head_by_head(arithmetic):
    """``W_o softmax(W_q x (W_k c)^T / sqrt(width of a head)) W_v c``, written out; the published code adds GELUs."""
    attention = module(arithmetic=arithmetic)
    act = torch.nn.functional.gelu if arithmetic == "published" else (lambda x: x)
    x, context = tokens(1, 3), tokens(1, 5, seed=1)
    q, k, v = (
        act(part.up(part.down(stream)))[0]
        for part, stream in ((attention.query, x), (attention.key, context), (attention.value, context))
    )
    heads = []
    for head in range(4):
        own = slice(8 * head, 8 * head + 8)
        weights = (q[:, own] @ k[:, own].T / 8**0.5).softmax(dim=-1)
        heads.append(weights @ v[:, own])
    expected = act(attention.output.up(attention.output.down(torch.cat(heads, dim=-1))))
    assert torch.allclose(attention(x, context)[0], expected, atol=1e-6)


def wide(rank=8, **options):
    """The same arithmetic at the heads' own width: the reference for every shortcut."""
    attention = trained(AttentionModule(WIDTH * 4, rank=rank, heads=4, **options))
    attention.low_rank = False
    return attention


def pair(**options):
    torch.manual_seed(0)
    reference = wide(**options)
    fast = AttentionModule(WIDTH * 4, rank=8, heads=4, **options)
    fast.load_state_dict(reference.state_dict())
    generator = torch.Generator().manual_seed(1)
    x, context = (torch.randn(3, n, WIDTH * 4, generator=generator) for n in (7, 9))
    mask = torch.tensor([[True] * 9, [True] * 4 + [False] * 5, [False] * 9])
    return reference, fast, x, context, mask


FORMS = [{"qk_norm_scale": 4.0}, {"qk_norm_scale": None}, {"arithmetic": "published"}]


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_attention_at_the_ranks_width_has_the_same_numbers_and_gradients(options):
    reference, fast, x, context, mask = pair(**options)
    assert fast.low_rank and not reference.low_rank
    grads = []
    for attention in (reference, fast):
        inputs = x.clone().requires_grad_(), context.clone().requires_grad_()
        out = attention(*inputs, mask)
        (out * torch.linspace(-1, 1, WIDTH * 4)).sum().backward()
        grads.append([out.detach(), *(t.grad for t in inputs), *(p.grad for p in attention.parameters())])
        assert torch.equal(out[2], torch.zeros_like(out[2]))
    for slow, quick in zip(*grads):
        assert torch.allclose(slow, quick, atol=1e-4 * max(1.0, float(slow.abs().max())))


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_half_precision_stays_near_full_precision(options):
    _, fast, x, context, mask = pair(**options)
    exact = fast(x, context, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = fast(x, context, mask)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).norm() < 0.03 * exact.norm()


def test_a_width_below_the_rank_is_left_as_it_is():
    assert not AttentionModule(WIDTH, rank=8, heads=4).low_rank
    assert AttentionModule(WIDTH, rank=7, heads=4).low_rank


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_long_rows_go_one_by_one_with_the_same_numbers(options, monkeypatch):
    _, fast, x, context, mask = pair(**options)
    whole = fast(x, context, mask)
    monkeypatch.setattr("moai.model.mixer.attention.ROW", 1)
    assert torch.allclose(fast(x, context, mask), whole, atol=1e-6)


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_the_weights_are_those_of_the_output(options):
    reference, fast, x, context, mask = pair(**options)
    weights = fast.weights(x, context, mask)
    assert torch.allclose(weights, reference.weights(x, context, mask), atol=1e-5)
    assert torch.allclose(weights[:2].sum(dim=-1), torch.ones(2, 4, 7), atol=1e-5) and not weights[2].any()
    values = reference.value(context).unflatten(-1, (4, -1)).transpose(1, 2)
    out = reference.output((weights @ values).transpose(1, 2).flatten(2))
    assert torch.allclose(out, fast(x, context, mask), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("options", FORMS, ids=str)
def test_compiled_whole_it_gives_the_same(options):
    _, fast, x, context, mask = pair(**options)
    compiled = torch.compile(fast, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x, context, mask), fast(x, context, mask), atol=1e-5)


def test_a_width_that_the_heads_do_not_divide():
    with pytest.raises(HostError, match="width 32 cannot be split into 5 heads; change mixer.heads"):
        AttentionModule(WIDTH, heads=5)
