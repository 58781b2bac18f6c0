"""The mixer: six modules, two gates, and the blend of the two training steps."""

import pytest
import torch

from moai.errors import RecipeError
from moai.model.mixer.mixer import IMAGE_MODULES, LANGUAGE_MODULES, Mixer, Streams

WIDTH = 32


def trained(**options):
    """A mixer in the middle of training: its modules' output projections are no longer zero."""
    made = Mixer(WIDTH, rank=8, heads=2, **options)
    for module in made.attention.values():
        torch.nn.init.normal_(module.output.up.weight, std=8**-0.5)
    return made


@pytest.fixture
def mixer():
    torch.manual_seed(0)
    made = trained()
    for gate in (made.gate_image, made.gate_language):
        torch.nn.init.normal_(gate.weight)
        torch.nn.init.normal_(gate.bias)
    return made


@pytest.fixture
def streams():
    generator = torch.Generator().manual_seed(1)
    image, language, aux = (torch.randn(2, n, WIDTH, generator=generator) for n in (4, 6, 8))
    masks = [torch.ones(2, n, dtype=torch.bool) for n in (4, 6, 8)]
    masks[1][1, 3:] = False
    return Streams(image, masks[0], language, masks[1], aux, masks[2])


def test_the_names_are_the_papers():
    assert IMAGE_MODULES == ("image_aux", "image_language", "image_self")
    assert LANGUAGE_MODULES == ("language_aux", "language_image", "language_self")
    assert set(Mixer(WIDTH, rank=8).attention) == {*IMAGE_MODULES, *LANGUAGE_MODULES}


def test_gates_sum_to_one_and_differ_by_token(mixer, streams):
    for weights, tokens in zip(mixer.gate_weights(streams), (streams.image, streams.language)):
        assert weights.shape == (*tokens.shape[:2], 3)
        assert torch.allclose(weights.sum(dim=-1), torch.ones(tokens.shape[:2]), atol=1e-6)
        assert (weights > 0).all() and weights.std(dim=1).max() > 0.05


def test_gates_start_equal(streams):
    for weights in Mixer(WIDTH, rank=8).gate_weights(streams):
        assert torch.allclose(weights, torch.full_like(weights, 1 / 3))


@pytest.mark.parametrize("normalize", [False, True])
def test_gates_blend_the_single_modules(mixer, streams, normalize):
    mixer.normalize = normalize
    gates = mixer.gate_weights(streams)
    for stream in (0, 1):
        single = torch.stack([mixer(streams, (pick, pick))[stream] for pick in range(3)], dim=-1)
        assert all((single[..., a] - single[..., b]).abs().max() > 0.1 for a, b in ((0, 1), (0, 2), (1, 2)))
        blended = (single * gates[stream][..., None, :]).sum(dim=-1)
        assert torch.allclose(mixer(streams)[stream], blended, atol=1e-5)


@pytest.mark.parametrize("pick", range(3))
def test_step_one_reads_exactly_what_the_drawn_module_is_named_after(mixer, streams, pick):
    before = mixer(streams, (pick, pick))
    for stream, (own, names) in enumerate((("image", IMAGE_MODULES), ("language", LANGUAGE_MODULES))):
        read = names[pick].split("_")[1]
        for changed in {"image", "language", "aux"} - {own}:
            moved = mixer(streams._replace(**{changed: getattr(streams, changed).flip(-1)}), (pick, pick))[stream]
            assert torch.equal(moved, before[stream]) == (changed != read), (own, read, changed)


def test_step_one_trains_only_the_drawn_modules(mixer, streams):
    image, language = mixer(streams, (0, 2))
    (image.sum() + language.sum()).backward()
    reached = {name.split(".")[1] for name, p in mixer.named_parameters() if p.grad is not None}
    assert reached == {"image_aux", "language_self"}


def test_updates_plus_tokens_are_the_papers_weighted_sum(mixer, streams):
    """The sum of gate weight times (query + attention), with the query inside each module."""
    mixer.normalize = False
    gates = mixer.gate_weights(streams)
    for stream, x in enumerate((streams.image, streams.language)):
        inside = [x + mixer(streams, (pick, pick))[stream] for pick in range(3)]
        paper = sum(gates[stream][..., pick, None] * inside[pick] for pick in range(3))
        assert torch.allclose(x + mixer(streams)[stream], paper, atol=1e-5)


def test_padding_in_a_stream_is_not_read(mixer, streams):
    dirty = streams._replace(language=torch.where(streams.language_mask[..., None], streams.language, 50.0))
    for pick in (None, (0, 0), (1, 1), (2, 2)):
        image, language = mixer(streams, pick)
        dirty_image, dirty_language = mixer(dirty, pick)
        assert torch.allclose(image, dirty_image, atol=1e-5)
        real = streams.language_mask
        assert torch.allclose(language[real], dirty_language[real], atol=1e-5)


def test_the_official_width_counts_as_published():
    """2.10 M per module, and 50.4 M over four layers, at width 4096."""
    with torch.device("meta"):
        layer = Mixer(4096, rank=64, heads=4, arithmetic="published")
    for module in layer.attention.values():
        assert sum(p.numel() for p in module.parameters()) == 4 * 2 * 64 * 4096 == 2_097_152
    assert sum(p.numel() for p in layer.parameters()) == 6 * 2_097_152 + 2 * (3 * 4096 + 3)
    assert round(4 * sum(p.numel() for p in layer.parameters()) / 1e6, 1) == 50.4


def test_matching_tokens_attend_to_each_other_from_the_start():
    torch.manual_seed(0)
    words = torch.randn(1, 12, 64)
    found = {}
    for match in (False, True):
        module = Mixer(64, rank=32, heads=2, tie_qk_at_init=match).attention["language_aux"]
        q, k = module.query(words), module.key(words)
        found[match] = ((q @ k.transpose(1, 2)).argmax(dim=-1) == torch.arange(12)).float().mean()
    assert found[True] == 1.0 and found[False] < 0.5


def test_the_question_is_asked_by_every_language_token_and_by_no_image_token(streams):
    torch.manual_seed(0)
    mixer = trained(question_context=True)
    one, other = (streams._replace(question=torch.randn(2, WIDTH)) for _ in range(2))
    (image, language), (same, moved) = mixer(one, (0, 0)), mixer(other, (0, 0))
    assert torch.equal(image, same) and (language - moved).abs().amax(dim=-1).min() > 1e-3
    plain = trained()
    plain.load_state_dict(mixer.state_dict())  # it has no weights
    assert torch.equal(plain(one)[1], plain(other)[1])


def test_a_heavy_question_hides_what_other_mixers_wrote(streams):
    torch.manual_seed(0)
    asked = streams._replace(question=torch.randn(2, WIDTH))
    written = asked._replace(language=asked.language + 0.5 * torch.randn_like(asked.language))
    moved = []
    for weight in (True, 3.0):
        mixer = Mixer(WIDTH, rank=8, heads=2, question_context=weight)
        assert mixer.question_context == float(weight)
        moved.append((mixer.inputs(asked)[1] - mixer.inputs(written)[1]).norm())
    assert moved[1] < 0.6 * moved[0]


@pytest.mark.parametrize("option", ["qk_norm_scale", "tie_qk_at_init", "null_token", "question_context", "copy_words"])
def test_what_the_published_arithmetic_has_not(option):
    with pytest.raises(RecipeError, match=f"arithmetic: published has no mixer.{option}; use arithmetic: moai"):
        Mixer(WIDTH, rank=8, heads=2, arithmetic="published", **{option: 1})


def test_the_guide_pulls_at_a_head_that_looks_away_for_sure(streams):
    """Where a softmax is zero to the last bit, and beside a head that has found it."""
    torch.manual_seed(0)
    mixer = Mixer(WIDTH, rank=8, heads=2)
    module = mixer.attention["language_aux"]
    with torch.no_grad():
        module.query.up.weight[: WIDTH // 2] *= 1e4
    targets = torch.zeros(2, 1, streams.aux_mask.shape[1] + 1, dtype=torch.bool)
    last = streams.language_mask.sum(dim=1) - 1
    query = mixer.inputs(streams)[1][torch.arange(2), last][:, None]
    read = module.weights(query, streams.aux, streams.aux_mask)[:, 0, 0]
    targets[:, 0].scatter_(1, read.argmin(dim=1, keepdim=True), True)
    assert (read.min(dim=1).values == 0).all()
    loss = mixer.attention_loss(streams, targets)
    loss.backward()
    assert loss.isfinite() and module.key.up.weight.grad[: WIDTH // 2].norm() > 1e-3


def test_a_null_token_is_read_where_there_is_something_to_read(streams):
    torch.manual_seed(0)
    mixer = trained(null_token=True)
    aux, mask = mixer.readable(streams)
    assert aux.shape[1] == streams.aux.shape[1] + 1 and torch.equal(aux[:, :-1], streams.aux)
    assert torch.equal(mask[:, -1], streams.aux_mask.any(dim=1))
    nothing = streams._replace(aux_mask=torch.zeros_like(streams.aux_mask))
    bare = streams._replace(aux=streams.aux[:, :0], aux_mask=streams.aux_mask[:, :0])
    for got, expected in zip(mixer(nothing), mixer(bare), strict=True):  # a row that saw nothing is as one without
        assert torch.allclose(got, expected, atol=1e-6)
    before = mixer(streams)[1]
    with torch.no_grad():
        mixer.null.mul_(3.0)
    assert not torch.allclose(mixer(streams)[1], before)


def test_the_guide_loss_is_what_the_last_tokens_attention_leaves_to_others(streams):
    torch.manual_seed(0)
    mixer = Mixer(WIDTH, rank=8, heads=2, null_token=True)
    rows, count = streams.aux_mask.shape
    targets = torch.zeros(rows, 3, count + 1, dtype=torch.bool)
    targets[0, 0, :2], targets[0, 2, 2], targets[1, 1, -1] = True, True, True  # groups may be empty
    aux, mask = mixer.readable(streams)
    language = mixer.inputs(streams)[1]
    expected, used = 0.0, 0
    for row in range(rows):
        groups = [group & mask[row] for group in targets[row] if (group & mask[row]).any()]
        if not groups:
            continue
        last = int(streams.language_mask[row].sum()) - 1
        query = language[row : row + 1, last : last + 1]
        read = mixer.attention["language_aux"].weights(query, aux[row : row + 1], mask[row : row + 1])[0][:, 0]
        shares = [read[head, groups[head % len(groups)]].sum() for head in range(len(read))]  # heads take turns
        expected, used = expected - torch.stack(shares).log().mean(), used + 1
    assert used and torch.allclose(mixer.attention_loss(streams, targets), expected / used, atol=1e-5)
    assert mixer.attention_loss(streams, torch.zeros_like(targets)) == 0
