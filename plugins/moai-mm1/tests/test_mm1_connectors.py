"""MM1's connectors: 64, 144 and 720 tokens, and Honeybee's structure by parameter count and shape trace."""

from __future__ import annotations

import pytest
import torch
from moai_mm1.connectors import CAbstractor
from torch import nn

from moai.errors import RecipeError
from moai.model.encoders.connectors import VisionOutput
from moai.plugin_api import registry

TOKENS = (64, 144)


def made(kind: str, tokens: int, width: int = 1024, out: int = 2560, patches: int = 576):
    options = {"average": {"side": int(tokens**0.5)}, "attention_pooling": {"tokens": tokens}}
    own = options.get(kind, {"tokens": tokens, "patches": patches})
    return registry().get_connector(kind)(width, out, **own)


def patches(number: int = 576, width: int = 1024) -> VisionOutput:
    side = int(number**0.5)
    return VisionOutput(torch.randn(2, number, width), None, (side, side))


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("kind", ["average", "attention_pooling", "c_abstractor"])
def test_each_connector_gives_64_and_144_tokens(kind, tokens):
    with torch.device("meta"):
        connector = made(kind, tokens)
        assert connector(patches()).shape == (2, tokens, 2560)
    assert connector.tokens(576) == tokens


def reg_block(inside: int, outside: int) -> int:
    """Parameters of one RegNet block with depthwise 3 x 3 convolutions, counted by hand."""
    squeezed = round(inside / 4)
    convolutions = inside * outside + 9 * outside + outside * outside
    excitation = outside * squeezed + squeezed + squeezed * outside + outside
    shortcut = 0 if inside == outside else inside * outside + 2 * outside
    return convolutions + 3 * 2 * outside + excitation + shortcut


@pytest.mark.parametrize("vision, decoder", [(1024, 2048), (1024, 4096), (1280, 4096)])
def test_the_c_abstractor_has_honeybees_parameters(vision, decoder):
    with torch.device("meta"):
        connector = CAbstractor(vision, decoder)
    blocks = reg_block(vision, 1024) + 5 * reg_block(1024, 1024)
    readout = 1024 * decoder + decoder + decoder * decoder + decoder
    assert sum(p.numel() for p in connector.parameters()) == 576 * vision + blocks + readout


@pytest.mark.parametrize("tokens", TOKENS)
def test_the_c_abstractors_shapes_are_honeybees(tokens):
    trace = []

    def record(module, given, output):
        trace.append((type(module).__name__, tuple(output.shape[1:])))

    with torch.device("meta"):
        connector = CAbstractor(1024, 4096, tokens=tokens)
        for module in (connector.before, connector.pool, connector.after, *connector.readout):
            module.register_forward_hook(record)
        connector(patches())
    side = int(tokens**0.5)
    assert trace == [
        ("RegStage", (1024, 24, 24)),
        ("AdaptiveAvgPool2d", (1024, side, side)),
        ("RegStage", (1024, side, side)),
        ("Linear", (tokens, 4096)),
        ("SiLU", (tokens, 4096)),
        ("Linear", (tokens, 4096)),
    ]
    kinds = {type(m).__name__ for m in connector.modules()}
    assert {"LayerNormAct2d", "SiLU", "SEModule"} <= kinds  # timm joins norm and activation in one module
    assert not {"ReLU", "BatchNorm2d", "BatchNormAct2d"} & kinds
    assert all(len(list(stage.children())) == 3 for stage in (connector.before, connector.after))
    assert all(
        m.groups == m.in_channels for m in connector.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] == 3
    )


@pytest.mark.parametrize("kind", ["attention_pooling", "c_abstractor"])
def test_every_parameter_learns_and_images_do_not_mix(kind):
    torch.manual_seed(0)
    connector = (
        made(kind, 4, width=32, out=16, patches=16) if kind != "c_abstractor" else CAbstractor(32, 16, 4, 16, 32)
    )
    given = patches(16, 32)
    both = connector(given)
    both.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in connector.parameters())
    alone = connector(VisionOutput(given.patches[1:], None, (4, 4)))
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-4)


def test_what_does_not_fit_is_a_sentence():
    with pytest.raises(RecipeError, match="tokens is 60, and a grid is a square number"):
        CAbstractor(32, 16, tokens=60)
    with pytest.raises(RecipeError, match="positions for 576 patches and the encoder gives 729; set vision"):
        CAbstractor(32, 16, width=8, depth=1).tokens(729)
    with pytest.raises(RecipeError, match="5 heads do not divide"):
        registry().get_connector("attention_pooling")(32, 16, heads=5)


def test_positions_of_another_resolution_are_interpolated():
    """A run that goes on with larger images takes the weights of one with smaller ones (``start``)."""
    small, large = (CAbstractor(8, 16, tokens=4, patches=n, width=8, depth=1) for n in (16, 64))
    torch.nn.init.constant_(small.positions, 0.25)
    large.load_state_dict(small.state_dict())
    assert large.positions.shape == (1, 64, 8) and torch.allclose(large.positions, torch.tensor(0.25))
    rows = torch.arange(4.0)[:, None].expand(4, 4).reshape(1, 16, 1).expand(1, 16, 8)
    large.load_state_dict({**small.state_dict(), "positions": rows})
    grid = large.positions.detach()[0, :, 0].view(8, 8)
    assert torch.allclose(grid, grid[:, :1].expand(8, 8)) and (grid[1:, 0] > grid[:-1, 0]).all(), "rows stay rows"
    large.load_state_dict(large.state_dict())
    assert torch.equal(large.positions[0, :, 0].view(8, 8), grid)
