"""The compressor: order counts, padding does not, and the published form is there as well."""

import pytest
import torch

from moai.model.encoders.compressor import Compressor, sinusoids

WIDTH = 32
PUBLISHED = {"arithmetic": "published"}


def compressor(noise=0.2, **options):
    """It starts as the identity, so noise goes on top: the layers themselves are under test."""
    torch.manual_seed(0)
    made = Compressor(WIDTH, **{"latents": 8, "depth": 2, "heads": 2, "head_width": 8, **options})
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * noise)
    return made.eval()


def aux(rows=2, length=12):
    x = torch.randn(rows, length, WIDTH, generator=torch.Generator().manual_seed(1))
    return x, torch.ones(rows, length, dtype=torch.bool)


def test_order_counts():
    """Two permutations: a reversal, and a swap of two tokens that no latent starts from."""
    made, (x, mask) = compressor(), aux()
    out = made(x, mask)
    assert out.shape == (2, 8, WIDTH)
    swapped = x.clone()
    swapped[:, [2, 5]] = x[:, [5, 2]]
    for permuted in (x.flip(1), swapped):
        assert (made(permuted, mask) - out).abs().max() > 1e-2


def test_the_published_form_is_a_bag_of_words():
    made, (x, mask) = compressor(**PUBLISHED), aux()
    assert torch.allclose(made(x.flip(1), mask), made(x, mask), atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right", "between"])
def test_padding_does_not_count(side):
    made, (x, mask) = compressor(), aux()
    garbage, no = torch.full((2, 5, WIDTH), 30.0), torch.zeros(2, 5, dtype=torch.bool)
    cut = {"left": 0, "right": 12, "between": 7}[side]
    padded = torch.cat([x[:, :cut], garbage, x[:, cut:]], dim=1)
    padded_mask = torch.cat([mask[:, :cut], no, mask[:, cut:]], dim=1)
    assert torch.allclose(made(padded, padded_mask), made(x, mask), atol=1e-5)


def test_in_the_published_form_padding_counts():
    made, (x, mask) = compressor(**PUBLISHED), aux()
    padded = torch.nn.functional.pad(x, (0, 0, 0, 5))
    assert (made(padded, torch.nn.functional.pad(mask, (0, 5))) - made(x, mask)).abs().max() > 1e-3


def test_no_latent_starts_from_a_mark():
    """Untrained, latents are the tokens they start from: with marks the same as if these were not there."""
    made, (x, mask) = compressor(noise=0.0), aux()
    marks = torch.zeros_like(mask)
    marks[0, [2, 5, 11]], marks[1, 0] = True, True
    out = made(x, mask, marks)
    for row in range(2):
        kept = ~marks[row : row + 1]
        assert torch.allclose(
            out[row], made(x[row : row + 1][kept][None], mask[row : row + 1][kept][None])[0], atol=1e-5
        )
    assert (made(x, mask) - out).abs().max() > 1e-2
    trained = compressor()
    garbage = torch.where(marks[..., None], 3 * x.flip(-1), x)
    assert (trained(garbage, mask, marks) - trained(x, mask, marks)).abs().max() > 1e-3  # marks are read all the same


def test_rows_do_not_see_each_other():
    made, (x, mask) = compressor(), aux(rows=3)
    mask[1, 4:] = False
    mask[2, :] = False
    out = made(x, mask)
    for row in range(3):
        assert torch.allclose(made(x[row : row + 1], mask[row : row + 1])[0], out[row], atol=1e-5)


def test_different_perceptions_stay_different_when_untrained():
    """A fresh compressor returns what it was given: no constant soft prompt to start from."""
    torch.manual_seed(0)
    fresh = Compressor(WIDTH, latents=8, depth=2, heads=2, head_width=8)
    x, mask = aux(rows=6)
    out = fresh(x, mask)
    assert out.std(dim=0).mean() / out.std() > 0.7
    first = torch.nn.functional.normalize(x[0] + 0.5 * sinusoids(12, WIDTH), dim=-1)
    taken = [index * 12 // 8 for index in range(8)]
    cosine = (torch.nn.functional.normalize(out[0], dim=-1) * first[taken]).sum(dim=-1)
    assert (cosine > 0.8).all()


@pytest.mark.parametrize("options", [{}, PUBLISHED])
def test_nothing_to_condense_is_finite(options):
    made = compressor(**options)
    assert made(torch.zeros(2, 0, WIDTH), torch.zeros(2, 0, dtype=torch.bool)).isfinite().all()
    x, mask = aux()
    mask[0] = False
    out = made(x.requires_grad_(), mask)
    out.square().sum().backward()
    assert out.isfinite().all() and x.grad.isfinite().all()
    if not made.published:
        assert not x.grad[0].any()


def test_one_word_fills_every_latent():
    out = compressor()(*aux(length=1))
    assert out.shape == (2, 8, WIDTH) and out.isfinite().all()


@pytest.mark.parametrize("width", [32, 33])
def test_positions_are_distinct(width):
    table = sinusoids(600, width)
    assert table.shape == (600, width) and table.abs().max() <= 1
    assert torch.cdist(table, table).fill_diagonal_(9).min() > 1e-3


def test_the_published_width_counts_as_published():
    with torch.device("meta"):
        made = Compressor(4096, latents=64, depth=4, heads=4, head_width=64, feedforward=1, **PUBLISHED)
    count = sum(p.numel() for p in made.parameters())
    inner = 4 * 64
    per_layer = 2 * 2 * 4096 + 4 * inner * 4096 + 2 * 4096 + 2 * 4096 * 4096
    assert count == 64 * 4096 + 4 * per_layer + 2 * 4096
    assert round(count / 1e6, 1) == 151.4
