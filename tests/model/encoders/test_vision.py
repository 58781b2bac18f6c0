"""The vision encoder: what it gives of each image, that it is frozen, and weights that do not fit."""

import pytest
import tiny
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel

from moai.errors import AssetError
from moai.model.encoders.vision import VisionEncoder, build_vision

PIXELS = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def convolutional():
    return build_vision(architecture="test_efficientnet", reference=str(tiny.assets() / "vision.safetensors"))


def test_a_convolutional_encoder_gives_a_grid_without_a_class_token(convolutional):
    output = convolutional(PIXELS)
    assert output.grid == (2, 2) and output.class_token is None
    assert output.patches.shape == (2, 4, convolutional.width)
    features = convolutional.body.forward_features(PIXELS)
    assert torch.equal(output.patches[:, 1], features[:, :, 0, 1])  # row by row


@pytest.mark.parametrize("layer", [None, -2, 0])
def test_a_transformer_gives_its_class_token_apart(layer):
    config = CLIPVisionConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                              image_size=64, patch_size=16)  # fmt: skip
    body = CLIPVisionModel(config).eval()
    output = VisionEncoder(body, 32, layer, drop_first=1)(PIXELS)
    states = body(PIXELS, output_hidden_states=True).hidden_states[-1 if layer is None else layer]
    assert output.grid == (4, 4) and torch.equal(output.patches, states[:, 1:])
    assert torch.equal(output.class_token, states[:, 0])
    whole = VisionEncoder(body, 32, layer)(PIXELS)
    assert whole.class_token is None and whole.grid is None and whole.patches.shape == (2, 17, 32)


def test_it_is_frozen_and_stays_in_evaluation_mode(convolutional):
    before = {name: value.clone() for name, value in convolutional.state_dict().items()}
    convolutional.train()
    convolutional(PIXELS)
    assert not any(module.training for module in convolutional.modules())
    assert not any(parameter.requires_grad for parameter in convolutional.parameters())
    assert all(torch.equal(value, before[name]) for name, value in convolutional.state_dict().items())


def test_an_image_does_not_depend_on_its_neighbours(convolutional):
    one, both = convolutional(PIXELS[:1]).patches, convolutional(PIXELS).patches[:1]
    torch.testing.assert_close(one, both, atol=1e-5 * float(both.abs().max()), rtol=0)


def test_an_unknown_architecture_is_named():
    with pytest.raises(AssetError, match="timm has no model 'test_eficientnet'; did you mean 'test_efficientnet"):
        build_vision(architecture="test_eficientnet", reference=None)


def test_weights_that_do_not_fit_are_named(tmp_path):
    save_file({"stem.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(AssetError, match="other.safetensors do not fit the architecture .first misfit: "):
        build_vision(architecture="test_efficientnet", reference=str(tmp_path / "other.safetensors"))


def test_a_reference_is_needed_without_an_architecture():
    with pytest.raises(AssetError, match="needs a reference"):
        build_vision(architecture=None, reference=None)


def test_an_empty_encoder_has_the_shapes_of_a_loaded_one(tmp_path):
    config = CLIPVisionConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                              image_size=64, patch_size=16)  # fmt: skip
    CLIPVisionModel(config).save_pretrained(tmp_path)
    for given in ({"architecture": None, "reference": str(tmp_path), "layer": -2, "drop_first": 1},
                  {"architecture": "test_vit", "reference": "no such file", "drop_first": 1}):  # fmt: skip
        size = 64 if given["architecture"] is None else 160
        empty = build_vision(**given, empty=True)
        assert all(p.is_meta for p in empty.parameters())
        loaded = build_vision(**{**given, "reference": given["reference"] if "layer" in given else None})
        pixels = torch.zeros(1, 3, size, size)
        assert empty(pixels.to("meta")).patches.shape == loaded(pixels).patches.shape
