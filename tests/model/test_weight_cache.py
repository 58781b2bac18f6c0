"""What is kept for answering, and products that are taken together: the same numbers as one by one."""

import copy

import pytest
import tiny
import torch

from moai.model.mixer.gather import gather_tokens, scatter_add_tokens
from moai.model.mixer.mixer import Mixer, Streams
from moai.model.weight_cache import CachedLinear

WIDTH = 128
FORMS = [{"qk_norm_scale": 4.0}, {"qk_norm_scale": None}, {"qk_norm_scale": 4.0, "null_token": True}]


def made(**options):
    torch.manual_seed(0)
    mixer = Mixer(WIDTH, rank=8, heads=4, **options).eval()
    for module in mixer.attention.values():
        torch.nn.init.normal_(module.output.up.weight, std=8**-0.5)
    for gate in (mixer.gate_image, mixer.gate_language):
        torch.nn.init.normal_(gate.weight, std=0.1)
    return mixer


def streams(dtype=torch.float32):
    """Rows with padding, and one without any auxiliary token."""
    generator = torch.Generator().manual_seed(1)
    tokens = [torch.randn(3, n, WIDTH, generator=generator).to(dtype).requires_grad_() for n in (5, 7, 6)]
    masks = [torch.ones(3, n, dtype=torch.bool) for n in (5, 7, 6)]
    masks[0][0, 3:], masks[1][1, 2:], masks[2][2] = False, False, False
    return Streams(tokens[0], masks[0], tokens[1], masks[1], tokens[2], masks[2])


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_six_modules_at_once_have_the_numbers_and_gradients_of_one_by_one(options):
    mixer, results = made(**options), []
    assert mixer.fuses
    for joined in (False, True):
        mixer.fuses, s = joined, streams()
        mixer.zero_grad()
        updates = mixer(s)
        sum((u * torch.linspace(-1, 1, WIDTH)).sum() for u in updates).backward()
        found = {name: p.grad for name, p in mixer.named_parameters()}
        results.append([*(u.detach() for u in updates), s.image.grad, s.language.grad, s.aux.grad, *found.values()])
    for slow, quick in zip(*results, strict=True):
        assert torch.allclose(slow, quick, atol=1e-5 * max(1.0, float(slow.abs().max())))


def test_in_half_precision_they_are_as_near_to_full_precision():
    mixer, s, apart = made(qk_norm_scale=4.0), streams(), {}
    with torch.no_grad():
        exact = mixer(s)
        for mixer.fuses in (False, True):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                rounded = mixer(s)
            apart[mixer.fuses] = sum(float((a - b).norm() / a.norm()) for a, b in zip(exact, rounded, strict=True))
    assert apart[True] < 1.1 * apart[False] < 0.05


def test_without_context_nothing_is_learnt_about_reading_it():
    mixer, s = made(), streams()
    empty = s._replace(aux=s.aux[:, :0], aux_mask=s.aux_mask[:, :0])
    sum(update.sum() for update in mixer(empty)).backward()
    assert mixer.attention["image_aux"].query.down.weight.grad is None
    assert mixer.attention["image_self"].query.down.weight.grad is not None


@pytest.mark.parametrize("options", [*FORMS, {"arithmetic": "published"}], ids=str)
def test_kept_weights_give_the_same_bits(options):
    mixer, s = made(**options), streams()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        before = mixer(s)
        mixer.cache_weights(torch.bfloat16)
        after = mixer(s)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_they_are_used_without_gradients_and_in_their_dtype_only():
    layer, x = CachedLinear(8, 8), torch.randn(2, 8)
    expected = layer(x)
    layer.cache_weights(torch.bfloat16)
    layer.cached.zero_()
    assert torch.equal(layer(x), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not torch.equal(layer(x), layer.bias.bfloat16().expand(2, -1))
        with torch.no_grad():
            assert torch.equal(layer(x), layer.bias.bfloat16().expand(2, -1))
    with torch.no_grad():
        assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("change", ["train", "load", "move"])
def test_what_changes_weights_throws_them_away(change):
    mixer = made()
    other = {name: p + 1 for name, p in mixer.state_dict().items()}
    mixer.cache_weights(torch.float32)
    assert mixer.cached is not None and copy.deepcopy(mixer).cached is not None
    {"train": mixer.train, "load": lambda: mixer.load_state_dict(other), "move": mixer.double}[change]()
    assert mixer.cached is None and mixer.eval().cached is None


@pytest.mark.parametrize("rank", [8, 32])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_with_fixed_adapters_says_the_same(dtype, rank):
    model, processor = tiny.made(mixer={"rank": rank}, host={"reference": str(tiny.assets() / "host"), "dtype": dtype})
    assert all(mixer.fuses == (rank < 16) for mixer in model.mixers.values())
    perceptions = (tiny.seen("red circle"), tiny.seen("blue box", "green disc"))
    inputs = tiny.prompt_inputs(processor, ("What color is it?", "Is it?"), perceptions)
    with torch.no_grad():
        before = model(**inputs).logits
        assert model.eval().fix_adapters() is model
        # Bits: what is kept has the very values that were computed before, and is multiplied in the same shapes.
        assert torch.equal(model(**inputs).logits, before)
    assert model(**inputs).logits.requires_grad


def test_tokens_are_taken_and_added_as_by_element():
    x, index = torch.randn(2, 5, 4), torch.tensor([[3, 0, 0], [1, 4, 2]])
    wide = index[..., None].expand(-1, -1, 4)
    assert torch.equal(gather_tokens(x, index), x.gather(1, wide))
    assert torch.allclose(scatter_add_tokens(x, index, x[:, :3]), x.scatter_add(1, wide, x[:, :3]))
