"""The network computes what a second formulation in plain torch computes from the same published weights."""

from __future__ import annotations

import pytest
import torch
from moai_psgtr.checkpoint import build
from moai_psgtr.keys import convert
from moai_psgtr.network import Network, Size
from published_psgtr import FULL, TINY, PublishedPSGTR


@pytest.fixture(scope="module")
def network(weights):
    from pathlib import Path

    return build(Path(weights))


def picture(height, width, seed=0):
    return torch.randn((1, 3, height, width), generator=torch.Generator().manual_seed(seed))


# Sizes that no stride divides, and one that is a single row at the end.
@pytest.mark.parametrize(("height", "width"), [(96, 128), (75, 109), (20, 133)])
def test_it_equals_the_plain_formulation(network, published, height, width):
    pixels = picture(height, width)
    with torch.inference_mode():
        wanted, prediction = published(pixels), network(pixels)
        masks = network.draw(prediction, torch.arange(7))
    pairs = {
        "subject": prediction.classes["sub"],
        "object": prediction.classes["obj"],
        "predicate": prediction.predicates,
        "subject_box": prediction.boxes["sub"],
        "object_box": prediction.boxes["obj"],
        "subject_mask": masks[:, 0],
        "object_mask": masks[:, 1],
    }
    for name, ours in pairs.items():
        assert wanted[name].std(0).mean() > 0.01, f"{name} must differ from query to query"
        assert ours.shape == wanted[name].shape
        torch.testing.assert_close(ours, wanted[name], atol=5e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_a_mask_does_not_depend_on_which_others_are_drawn(network):
    with torch.inference_mode():
        prediction = network(picture(64, 80))
        every, two = network.draw(prediction, torch.arange(7)), network.draw(prediction, torch.tensor([5, 1]))
    torch.testing.assert_close(two, every[[5, 1]], atol=1e-5, rtol=1e-5)


def test_the_full_network_has_exactly_the_published_tensors():
    with torch.device("meta"):
        published, ours = PublishedPSGTR(**FULL).state_dict(), Network(Size())
    named, unknown = convert(published)
    wanted = ours.state_dict()
    assert unknown == []
    assert named.keys() == wanted.keys()
    assert {k: t.shape for k, t in named.items()} == {k: t.shape for k, t in wanted.items()}
    assert sum(p.numel() for p in ours.parameters()) == pytest.approx(44.4e6, rel=0.01)  # trained parameters


# Read off OpenPSG's head and configuration and mmcv 1.4's layers: a guard for the formulation in the test itself.
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("backbone.layer1.0.downsample.1.running_var", (256,)),
        ("backbone.layer3.5.conv2.weight", (256, 256, 3, 3)),
        ("bbox_head.input_proj.weight", (256, 2048, 1, 1)),
        ("bbox_head.query_embed.weight", (100, 256)),
        ("bbox_head.transformer.encoder.layers.5.attentions.0.attn.in_proj_weight", (768, 256)),
        ("bbox_head.transformer.encoder.layers.0.ffns.0.layers.0.0.weight", (2048, 256)),
        ("bbox_head.transformer.decoder.layers.5.attentions.1.attn.out_proj.bias", (256,)),
        ("bbox_head.transformer.decoder.layers.0.ffns.0.layers.1.weight", (256, 2048)),
        ("bbox_head.transformer.decoder.layers.0.norms.2.weight", (256,)),
        ("bbox_head.transformer.decoder.post_norm.weight", (256,)),
        ("bbox_head.sub_cls_embed.weight", (134, 256)),
        ("bbox_head.obj_box_embed.layers.2.weight", (4, 256)),
        ("bbox_head.rel_cls_embed.weight", (57, 256)),
        ("bbox_head.sub_bbox_attention.q_linear.weight", (256, 256)),
        ("bbox_head.obj_mask_head.lay1.weight", (264, 264, 3, 3)),
        ("bbox_head.obj_mask_head.gn5.weight", (16,)),
        ("bbox_head.sub_mask_head.adapter1.weight", (128, 1024, 1, 1)),
        ("bbox_head.sub_mask_head.adapter3.weight", (32, 256, 1, 1)),
        ("bbox_head.sub_mask_head.out_lay.weight", (1, 16, 3, 3)),
    ],
)
def test_the_formulation_is_named_as_openpsg_names_it(name, shape):
    with torch.device("meta"):
        state = PublishedPSGTR(**FULL).state_dict()
    assert tuple(state[name].shape) == shape


def test_the_names_of_the_next_mmdetection_mean_the_same(published):
    renamed = {
        name.replace("attentions.0", "self_attn").replace("attentions.1", "cross_attn").replace("ffns.0", "ffn"): tensor
        for name, tensor in published.state_dict().items()
    }
    ours, unknown = convert(renamed)
    wanted, _ = convert(published.state_dict())
    assert unknown == [] and ours.keys() == wanted.keys()
    assert all(torch.equal(ours[name], wanted[name]) for name in ours)


def test_query_key_and_value_keep_their_order(published):
    name = "bbox_head.transformer.encoder.layers.1.attentions.0.attn.in_proj_weight"
    packed, width = published.state_dict()[name], TINY["hidden"]
    ours, _ = convert({name: packed})
    for place, part in enumerate("qkv"):
        rows = packed[place * width : (place + 1) * width]
        assert torch.equal(ours[f"detr.encoder.layers.1.self_attn.{part}_proj.weight"], rows)
