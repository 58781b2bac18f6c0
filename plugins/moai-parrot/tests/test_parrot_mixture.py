"""Parrot's connector by itself: what is known of it in plain tensor operations, its start, its size, its options."""

from __future__ import annotations

import math

import pytest
import torch
from moai_parrot.connector import ParrotConnector
from moai_parrot.mixture import Mixture

from moai.errors import RecipeError
from moai.model.encoders.connectors import LinearConnector, TextInput, VisionOutput

IMAGES, PATCHES, WORDS, WIDTH, INNER = 3, 9, 7, 32, 24


def made(residual="identity", **options):
    """A connector 12 -> 32 with noise on every weight, so that no expert is zero."""
    torch.manual_seed(0)
    connector = ParrotConnector(12, WIDTH, expert_width=INNER, residual=residual, **options)
    with torch.no_grad():
        for parameter in connector.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return connector


def given():
    """Vision features and texts of different lengths, padded."""
    draw = torch.Generator().manual_seed(1)
    patches = torch.randn(IMAGES, PATCHES, 12, generator=draw)
    vision = VisionOutput(patches, torch.randn(IMAGES, 12, generator=draw), (3, 3))
    mask = torch.arange(WORDS) < torch.tensor([[7], [4], [1]])
    return vision, TextInput(torch.randn(IMAGES, WORDS, WIDTH, generator=draw), mask)


def statement(weights, patches, class_token, words, residual, alpha=1.0):
    """One image by what is known of Parrot's code and paper, on its weights by name.

    Projector (Linear, GELU, Linear) on class token and patches; the class token asks the words, without projections:
    softmax(c H^T / sqrt(d)) H; router Linear(d -> 6) without bias, softmax; six SwiGLU experts without biases, all run.
    """
    x = torch.cat([class_token[None], patches]) @ weights["projector.0.weight"].T + weights["projector.0.bias"]
    x = 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    x = x @ weights["projector.2.weight"].T + weights["projector.2.bias"]
    scores = torch.exp(words @ x[0] / math.sqrt(x.shape[1]))
    found = (scores / scores.sum()) @ words
    likely = torch.exp(weights["mixture.router.weight"] @ found)
    likely = likely / likely.sum()
    total = torch.zeros_like(x)
    for number in range(6):
        gate, up, down = (weights[f"mixture.experts.{number}.{name}.weight"] for name in ("gate", "up", "down"))
        inner = x @ gate.T
        total += likely[number] * (inner * torch.sigmoid(inner) * (x @ up.T)) @ down.T
    return total + 0.1 * x if residual == "published" else x + alpha * total


@pytest.mark.parametrize(("residual", "alpha"), [("published", 1.0), ("identity", 1.0), ("identity", 0.3)])
@torch.no_grad()
def test_it_is_what_is_known_of_parrot(residual, alpha):
    connector, (vision, text) = made(residual, alpha=alpha), given()
    found = connector(vision, text)
    weights = dict(connector.named_parameters())
    for image in range(IMAGES):
        words = text.embeddings[image][text.mask[image]]
        wanted = statement(weights, vision.patches[image], vision.class_token[image], words, residual, alpha)
        torch.testing.assert_close(found[image], wanted, atol=1e-5, rtol=1e-5)
    assert found.shape == (IMAGES, connector.tokens(PATCHES), WIDTH) and connector.tokens(576) == 577


@torch.no_grad()
def test_the_papers_form_starts_as_the_projector_and_the_codes_does_not():
    torch.manual_seed(0)
    vision, text = given()
    ours, published = (ParrotConnector(12, WIDTH, expert_width=INNER, residual=r) for r in ("identity", "published"))
    assert torch.equal(ours(vision, text), ours(vision, None))
    assert not torch.allclose(published(vision, text), published(vision, None), atol=0.1)


def test_all_of_the_mixture_learns_from_its_start():
    torch.manual_seed(0)
    connector, (vision, text) = ParrotConnector(12, WIDTH, expert_width=INNER), given()
    optimizer = torch.optim.SGD(connector.parameters(), lr=0.1)
    for _ in range(2):  # the last layers first; what is below them has a gradient once they are not zero
        optimizer.zero_grad()
        connector(vision, text).square().sum().backward()
        optimizer.step()
    gradients = {name: p.grad.abs().max() for name, p in connector.mixture.named_parameters()}
    assert all(gradient > 0 for gradient in gradients.values()), gradients


def test_its_size_at_full_width():
    with torch.device("meta"):
        small, large = (ParrotConnector(1024, width) for width in (4096, 5120))
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in small.named_children()}
    assert count == {"projector": 20_979_712, "mixture": 302_014_464}
    assert sum(p.numel() for p in large.mixture.parameters()) == 377_518_080


@torch.no_grad()
def test_an_image_is_routed_by_itself():
    connector, (vision, text) = made(), given()
    together = connector(vision, text)
    for image in range(IMAGES):
        words = text.embeddings[image : image + 1, : int(text.mask[image].sum())]
        one = VisionOutput(vision.patches[image : image + 1], vision.class_token[image : image + 1], vision.grid)
        alone = connector(one, TextInput(words, torch.ones(words.shape[:2], dtype=torch.bool)))
        torch.testing.assert_close(together[image], alone[0], atol=1e-5, rtol=0)
    other = text._replace(embeddings=text.embeddings.flip(0))
    assert not torch.allclose(connector(vision, other), together, atol=1e-2), "the text does not matter"


def test_top_k_runs_the_likeliest_experts_alone():
    vision, text = given()
    dense, sparse, every = (made(top_k=k) for k in (None, 2, 6))
    torch.testing.assert_close(every(vision, text), dense(vision, text), atol=1e-5, rtol=0)
    x = dense(vision, None)
    likely = dense.mixture.weights(x[:, 0], *text)
    weights = sparse.mixture.weights(x[:, 0], *text)
    assert ((weights > 0).sum(dim=1) == 2).all() and torch.equal(weights.argmax(dim=1), likely.argmax(dim=1))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(IMAGES))
    wanted = x + sum(w[:, None, None] * e(x) for e, w in zip(dense.mixture.experts, weights.T, strict=True))
    ran = []
    for number, expert in enumerate(sparse.mixture.experts):
        expert.register_forward_hook(lambda module, args, result, number=number: ran.extend([number] * len(args[0])))
    found = sparse(vision, text)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert len(ran) == 2 * IMAGES and set(ran) == set(weights.nonzero()[:, 1].tolist())
    found.sum().backward()
    idle = set(range(6)) - set(ran)
    assert all(not sparse.mixture.experts[number].up.weight.grad.any() for number in idle)
    assert all(sparse.mixture.experts[number].up.weight.grad.any() for number in ran)


@torch.no_grad()
def test_the_mean_asks_where_there_is_no_class_token():
    connector, (vision, text) = made(query="mean"), given()
    bare = vision._replace(class_token=None)
    found = connector(bare, text)
    assert found.shape[1] == connector.tokens(PATCHES) == PATCHES and connector.spatial
    x = connector(bare, None)
    torch.testing.assert_close(found, connector.mixture(x, x.mean(dim=1), *text))
    with pytest.raises(
        RecipeError, match="asks by the class token, and the vision encoder gives none; set vision.drop"
    ):
        made()(bare, text)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"experts": 0}, "experts is 0; give at least 1"),
        ({"expert_width": -4}, "expert_width is -4; give at least 1"),
        ({"top_k": 7}, "top_k is 7 and experts 6; give 1 to 6, or none"),
        ({"residual": "code"}, "residual 'code' is unknown; known: identity, published"),
        ({"query": "cls"}, "query 'cls' is unknown"),
    ],
)
def test_options_out_of_range(options, sentence):
    with pytest.raises(RecipeError, match=sentence):
        ParrotConnector(4, 8, **options)


def test_a_mixture_has_any_number_of_experts():
    assert len(Mixture(8, experts=2, expert_width=4).experts) == 2
    assert not isinstance(ParrotConnector(4, 8, expert_width=4).projector, LinearConnector)
