"""The vision encoder: what it gives of each image, that it is frozen, and weights that do not fit."""

import pytest
import timm
import tiny
import torch
import torch.nn.functional as F
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


@pytest.mark.parametrize("layer", [1, -2])
def test_a_stage_of_a_convolutional_encoder(convolutional, layer):
    arguments = {"architecture": "test_efficientnet", "reference": str(tiny.assets() / "vision.safetensors")}
    encoder = build_vision(**arguments, layer=layer)
    output = encoder(PIXELS)
    [features] = convolutional.body.forward_intermediates(PIXELS, indices=[layer], intermediates_only=True)
    assert output.patches.shape[1:] == (features[0, 0].numel(), encoder.width) and output.grid == features.shape[2:]
    assert torch.equal(output.patches, features.flatten(2).transpose(1, 2))
    whole, part = (sum(p.numel() for p in one.parameters()) for one in (convolutional, encoder))
    assert part < whole, "what comes after the stage is still there"
    empty = build_vision(**arguments, layer=layer, empty=True)
    assert sum(p.numel() for p in empty.parameters()) == part and empty.width == encoder.width


def test_a_block_of_a_transformer_of_timm():
    whole = build_vision(architecture="test_vit", reference=None, drop_first=1)
    encoder = build_vision(architecture="test_vit", reference=None, layer=-2, drop_first=1)
    encoder.body.load_state_dict({name: whole.body.state_dict()[name] for name in encoder.body.state_dict()})
    pixels = torch.randn(1, 3, *whole.body.patch_embed.img_size)
    [(features, prefix)] = whole.body.forward_intermediates(
        pixels, indices=[len(whole.body.blocks) - 2], intermediates_only=True, return_prefix_tokens=True
    )
    output = encoder(pixels)
    assert torch.equal(output.patches, features.flatten(2).transpose(1, 2))
    assert torch.equal(output.class_token, prefix[:, 0])


def test_a_stage_that_is_not_there_is_a_sentence():
    with pytest.raises(AssetError, match="has 5 layers; set vision.layer between -5 and 4"):
        build_vision(architecture="test_efficientnet", reference=None, layer=5)


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


# Other resolutions ------------------------------------------------------------------------------------------------


def bicubic(grid: torch.Tensor, side: int, antialias: bool = False) -> torch.Tensor:
    """Positions ``(n, V)`` of a square grid, at another side; said apart from the libraries that do it."""
    old = round(len(grid) ** 0.5)
    square = grid.T.reshape(1, -1, old, old)
    return F.interpolate(square, size=(side, side), mode="bicubic", antialias=antialias)[0].flatten(1).T


def test_positions_of_timm_are_interpolated_on_the_grid_and_the_class_token_keeps_its_own(tmp_path):
    own = timm.create_model("test_vit", pretrained=False, num_classes=0, global_pool="")
    save_file(own.state_dict(), tmp_path / "vit.safetensors")
    size, patch = own.patch_embed.img_size[0], own.patch_embed.patch_size[0]
    given = {"architecture": "test_vit", "reference": str(tmp_path / "vit.safetensors"), "drop_first": 1}
    larger, side = build_vision(**given, image_size=size + 4 * patch), size // patch + 4
    assert larger(torch.randn(1, 3, size + 4 * patch, size + 4 * patch)).grid == (side, side)
    places = larger.body.pos_embed[0]
    assert torch.equal(places[0], own.pos_embed[0, 0]) and not places.requires_grad
    torch.testing.assert_close(places[1:], bicubic(own.pos_embed[0, 1:], side, antialias=True), atol=1e-4, rtol=1e-3)
    same = build_vision(**given, image_size=size)
    assert torch.equal(same.body.pos_embed, own.pos_embed)
    with pytest.raises(AssetError, match=f"image_size {size + 1} is no multiple of the .* set it to {size}"):
        build_vision(**given, image_size=size + 1)


def test_positions_of_transformers_are_interpolated_on_the_grid(tmp_path):
    config = CLIPVisionConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
                              image_size=32, patch_size=16)  # fmt: skip
    body = CLIPVisionModel(config).eval()
    body.save_pretrained(tmp_path / "clip")
    given = {"architecture": None, "reference": str(tmp_path / "clip"), "drop_first": 1, "layer": 0}
    output = build_vision(**given, image_size=64)(PIXELS)
    assert output.grid == (4, 4)
    embeddings = getattr(body, "vision_model", body).embeddings
    plain = embeddings.patch_embedding(PIXELS).flatten(2).transpose(1, 2)
    places = bicubic(embeddings.position_embedding.weight[1:], 4)
    expected = getattr(body, "vision_model", body).pre_layrnorm(plain + places)
    torch.testing.assert_close(output.patches, expected, atol=1e-5, rtol=1e-4)
    assert build_vision(**given, image_size=32).arguments == {}
    with pytest.raises(AssetError, match="image_size 40 is no multiple of the 16 x 16 patches .* set it to 32"):
        build_vision(**given, image_size=40)


def test_an_encoder_that_cannot_interpolate_says_so(monkeypatch):
    body = timm.create_model("test_vit", pretrained=False, num_classes=0, global_pool="")
    monkeypatch.delattr(type(body), "set_input_size")
    size = body.patch_embed.img_size[0]
    with pytest.raises(
        AssetError, match=f"cannot interpolate the positions of 'test_vit', which takes {size} x {size}"
    ):
        build_vision(architecture="test_vit", reference=None, image_size=2 * size)
