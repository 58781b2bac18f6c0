"""One attention module: what it reads, what it must not read, and where it starts."""

import pytest
import torch

from moai.errors import HostError
from moai.model.attention import AttentionModule, FactoredLinear

WIDTH = 32


def module(**options):
    torch.manual_seed(0)
    return AttentionModule(WIDTH, rank=8, heads=4, **options)


def tokens(*shape, seed=0):
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed))


def test_a_fresh_module_changes_nothing_but_has_a_gradient():
    fresh = module(identity_init=True)
    out = fresh(tokens(2, 3), tokens(2, 5))
    assert out.shape == (2, 3, WIDTH) and not out.any()
    (out * tokens(2, 3, seed=3)).sum().backward()
    assert fresh.output.up.weight.grad.any()


def test_the_official_start_is_not_the_identity():
    assert module(identity_init=False)(tokens(2, 3), tokens(2, 5)).abs().max() > 0.01


@pytest.mark.parametrize("sharpness", [None, 4.0])
def test_masked_context_is_as_good_as_absent(sharpness):
    attention = module(identity_init=False, sharpness=sharpness)
    x, context = tokens(2, 3), tokens(2, 6, seed=1)
    mask = torch.tensor([[True, False, True, True, False, False]] * 2)
    kept = attention(x, context[:, mask[0]])
    noisy = torch.where(mask[..., None], context, 1e4)
    assert torch.allclose(attention(x, noisy, mask), kept, atol=1e-5)
    assert not torch.allclose(attention(x, noisy), kept, atol=1e-2)


def test_a_row_that_may_read_nothing_gets_exactly_zero_and_finite_gradients():
    attention = module(identity_init=False)
    x, context = tokens(2, 3).requires_grad_(), tokens(2, 4, seed=1).requires_grad_()
    mask = torch.tensor([[True] * 4, [False] * 4])
    out = attention(x, context, mask)
    assert out[0].any() and not out[1].any()
    out.sum().backward()
    grads = [x.grad, context.grad, *(p.grad for p in attention.parameters())]
    assert all(g.isfinite().all() for g in grads)
    assert not context.grad[1].any()


def test_no_context_at_all_is_a_zero_update():
    assert not module(identity_init=False)(tokens(2, 3), tokens(2, 0)).any()


def test_sharpness_takes_the_cosine_so_that_length_does_not_count():
    x, context = tokens(1, 3), tokens(1, 5, seed=1)
    sharp, plain = module(identity_init=False, sharpness=4.0), module(identity_init=False)
    assert torch.allclose(sharp(10 * x, context), sharp(x, context), atol=1e-4)
    assert not torch.allclose(plain(10 * x, context), plain(x, context), atol=1e-2)


def test_zero_queries_have_finite_gradients_with_sharpness():
    attention = module(identity_init=False, sharpness=4.0)
    x = torch.zeros(1, 3, WIDTH, requires_grad=True)
    attention(x, torch.zeros(1, 5, WIDTH)).sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().max() < 1e4


def test_the_published_activation_is_a_gelu_behind_the_projection():
    torch.manual_seed(0)
    linear = FactoredLinear(WIDTH, 8, activation="gelu")
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


@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_the_arithmetic_head_by_head(activation):
    """``W_o softmax(W_q x (W_k c)^T / sqrt(width of a head)) W_v c``, written out; the published code adds GELUs."""
    attention = module(identity_init=False, activation=activation)
    act = torch.nn.functional.gelu if activation == "gelu" else (lambda x: x)
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


def test_a_width_that_the_heads_do_not_divide():
    with pytest.raises(HostError, match="width 32 cannot be split into 5 heads; change mixer.heads"):
        AttentionModule(WIDTH, heads=5)
