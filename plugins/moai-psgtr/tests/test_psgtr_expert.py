"""The expert on a tiny random PSGTR, from a checkpoint in OpenPSG's format; and files that are not one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from moai_psgtr import PSGTR, checkpoint
from moai_psgtr.expert import DEVIATION, MEAN, pixels, scaled
from PIL import Image
from published_psgtr import TINY, seeded
from published_psgtr import checkpoint as as_published
from safetensors.torch import save_file

from moai.errors import AssetError, ExpertError
from moai.testing import check_expert, sample_images
from moai.types import Perception

LOOSE = {"min_score": 0.1, "min_object_score": 0.05, "within_objects": False, "short_side": 64, "long_side": 100}


def loaded(weights, **options):
    expert = PSGTR(weights=str(weights), **{**LOOSE, **options})
    expert.load()
    return expert


def perceive(expert, *images):
    return expert.perceive(list(images), [Perception()] * len(images))


@pytest.mark.slow
def test_it_keeps_the_contract(weights):
    expert = PSGTR(weights=weights, segments=True, **LOOSE)
    check_expert(expert)
    expert.load()
    assert any(perceived.relations for perceived in perceive(expert, *sample_images())), (
        "the tiny network must find something"
    )


def test_it_says_what_the_plain_formulation_says(weights, published):
    image = sample_images()[0]
    (perceived,) = perceive(loaded(weights), image)
    with torch.inference_mode():
        raw = {name: tensor.numpy() for name, tensor in published(pixels(image, 64, 100)).items()}
    wanted = PSGTR(**LOOSE).to_perception({k: v for k, v in raw.items() if not k.endswith("mask")})
    assert perceived.relations and len(perceived.relations) == len(wanted.relations)
    for one, other in zip(perceived.relations, wanted.relations, strict=True):
        assert (one.subject, one.predicate, one.object) == (other.subject, other.predicate, other.object)
        assert one.score == pytest.approx(other.score, abs=1e-4)
        assert one.subject_box == pytest.approx(other.subject_box, abs=2e-4)


def test_masks_are_drawn_for_kept_triplets_only(weights, monkeypatch):
    drawn = []
    expert = loaded(weights, segments=True, mask_threshold=0.3, min_score=0.6)
    draw = expert._network.draw
    monkeypatch.setattr(
        expert._network, "draw", lambda perceived, chosen: drawn.append(len(chosen)) or draw(perceived, chosen)
    )
    (perceived,) = perceive(expert, sample_images()[0])
    assert perceived.segments and 0 < drawn[0] < TINY["queries"]
    drawn.clear()
    perceive(loaded(weights, segments=True, min_score=1.0), sample_images()[0])
    assert drawn == []


def test_safetensors_with_the_published_names_give_the_same(weights, published, tmp_path):
    path = tmp_path / "psgtr.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in published.state_dict().items()}, path)
    image = sample_images()[0]
    assert perceive(loaded(path), image) == perceive(loaded(weights), image)


def test_missing_and_unexpected_tensors_are_listed(published, tmp_path):
    state = dict(published.state_dict())
    del state["bbox_head.rel_cls_embed.bias"], state["backbone.layer2.0.bn2.weight"]
    state["bbox_head.dyhead.weight"] = torch.zeros(1)
    torch.save({"state_dict": state}, tmp_path / "odd.pth")
    with pytest.raises(AssetError) as caught:
        loaded(tmp_path / "odd.pth")
    text = str(caught.value)
    assert "2 missing tensors: detr.backbone.model.encoder.stages.1.layers.0.layer.1.normalization.weight" in text
    assert "predicates.bias; 1 unexpected tensors: bbox_head.dyhead.weight" in text


def test_another_model_is_refused_by_what_it_lacks(tmp_path):
    torch.save({"state_dict": {"conv.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(AssetError, match=r"missing tensors: backbone\.conv1\.weight, bbox_head\.input_proj"):
        loaded(tmp_path / "other.pth")


def test_a_tensor_of_another_shape_is_named(published, tmp_path):
    state = dict(published.state_dict())
    state["bbox_head.obj_cls_embed.bias"] = torch.zeros(81)
    torch.save(state, tmp_path / "odd.pth")  # a bare state_dict is read too
    with pytest.raises(AssetError, match=r"wrong shapes: classes\.obj\.bias \(81,\) instead of \(134,\)"):
        loaded(tmp_path / "odd.pth")


def test_weights_for_other_classes_are_refused(tmp_path):
    torch.save(as_published(seeded({**TINY, "classes": 150, "predicates": 50})), tmp_path / "vg.pth")
    with pytest.raises(ExpertError, match="150 classes and 50 predicates, and the PSG data set has 133 and 56"):
        loaded(tmp_path / "vg.pth")


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('run')",))


def test_foreign_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"state_dict": {}, "meta": Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(AssetError, match="holds more than tensors, and is not read"):
        loaded(tmp_path / "hostile.pth")


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
def test_a_broken_file_is_an_error(tmp_path, name, weights):
    with open(weights, "rb") as whole:
        (tmp_path / name).write_bytes(whole.read(5000))
    with pytest.raises(AssetError, match="cannot be read as a checkpoint|holds more than tensors"):
        loaded(tmp_path / name)


def test_a_folder_and_a_missing_path_are_errors(tmp_path):
    with pytest.raises(AssetError, match="is a folder; give the checkpoint file"):
        loaded(tmp_path)
    with pytest.raises(AssetError, match="does not exist"):
        loaded(tmp_path / "none.pth")


def test_damaged_weights_are_not_silently_nothing(published, tmp_path):
    state = {name: tensor.clone() for name, tensor in published.state_dict().items()}
    state["bbox_head.rel_cls_embed.bias"][3] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(ExpertError, match="NaN or infinity"):
        perceive(loaded(tmp_path / "nan.pth"), sample_images()[0])


def test_the_published_file_is_asked_of_its_space_and_checked(monkeypatch, tmp_path, weights):
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked = []

    def download(repo, file, repo_type, local_files_only=False):
        asked.append((repo, file, repo_type, local_files_only))
        if local_files_only:
            raise LocalEntryNotFoundError("not here")
        return weights

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(AssetError, match="is not the published PSGTR checkpoint"):
        PSGTR().load()
    assert asked == [("ECCV2022/PSG", "OpenPSG/checkpoints/epoch_60.pth", "space", part) for part in (True, False)]
    monkeypatch.setattr(checkpoint, "SHA256", checkpoint.identify(weights))
    assert str(checkpoint.locate("published")) == weights


def test_a_space_out_of_reach_says_what_to_do(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download(*args, **kwargs):
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(AssetError, match="give its path in the option weights"):
        PSGTR().load()


def test_the_cache_knows_the_weights(weights, tmp_path):
    assert PSGTR().weights_id() == checkpoint.SHA256
    other = tmp_path / "other.pth"
    other.write_bytes(b"other")
    assert PSGTR(weights=weights).weights_id() != PSGTR(weights=str(other)).weights_id()


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((640, 480), (1067, 800)), ((480, 640), (800, 1067)), ((2000, 500), (1333, 333)), ((5000, 1), (1333, 1))],
)
def test_pictures_are_scaled_as_published(size, wanted):
    assert scaled(size, 800, 1333) == wanted


def test_pixels_are_those_of_opencv():
    cv2 = pytest.importorskip("cv2", reason="OpenPSG scales pictures with OpenCV")
    array = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    ours = pixels(Image.fromarray(array), 37, 1333)[0].permute(1, 2, 0).numpy()
    theirs = cv2.resize(array, (56, 37), interpolation=cv2.INTER_LINEAR)
    assert ours.shape == theirs.shape
    levels = ours * np.array(DEVIATION) + np.array(MEAN)
    assert np.abs(levels - theirs).max() < 1.01  # OpenCV counts in fixed point
    assert np.abs(levels - theirs).mean() < 0.25
