"""EoMT and Mask2Former, tiny and random, through the real processor, model and post-processing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from moai_transformers import EoMT, Mask2Former
from moai_transformers.classes import classes_of
from moai_transformers.coco import PANOPTIC, THINGS
from PIL import Image
from tiny_engines import CLASSES, mask2former

from moai.errors import ExpertError
from moai.testing import check_expert, sample_images
from moai.types import Perception

THINGS_HERE = ("cat", "dog")
LOOSE = {"things": THINGS_HERE, "min_score": 0.3, "mask_threshold": 0.1, "overlap": 0.1}
KINDS = [(EoMT, "eomt"), (Mask2Former, "mask2former")]


def noise(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)


def loaded(kind, folder, **options):
    expert = kind(model=folder, **{**LOOSE, **options})
    expert.load()
    return expert


def perceive(expert, *images):
    return expert.perceive(list(images), [Perception()] * len(images))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_it_keeps_the_contract(kind, name, engine):
    check_expert(kind(model=engine(name), **LOOSE))


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_it_sees_what_the_engine_sees(kind, name, engine):
    expert, image = loaded(kind, engine(name), things=tuple(CLASSES.values())), noise(100, 60)
    processor, model = expert._processor, expert._model
    with torch.inference_mode():
        inputs = processor(images=image, return_tensors="pt")
        inputs.pop("patch_offsets", None)
        outputs = model(**inputs)
    settings = {
        "threshold": 0.3,
        "mask_threshold": 0.1,
        "overlap_mask_area_threshold": 0.1,
        "target_sizes": [(60, 100)],
    }
    (own,) = processor.post_process_panoptic_segmentation(outputs, **settings)
    (perceived,) = perceive(expert, image)
    assert len(own["segments_info"]) >= 2, "the tiny engine must find something"
    assert [s.label for s in perceived.segments] == [CLASSES[row["label_id"]] for row in own["segments_info"]]
    for segment, row in zip(perceived.segments, own["segments_info"], strict=True):
        assert segment.score == pytest.approx(row["score"], abs=1e-5)
        assert np.array_equal(segment.mask.decode(), (own["segmentation"] == row["id"]).numpy())


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_stuff_is_one_segment_and_things_are_several(kind, name, engine):
    expert = loaded(kind, engine(name), min_score=0.0, overlap=0.0)
    perceived = [segment for perception in perceive(expert, *sample_images()) for segment in perception.segments]
    for perception in perceive(expert, *sample_images()):
        stuff = [segment.label for segment in perception.segments if not segment.is_thing]
        assert len(stuff) == len(set(stuff))
    assert {segment.label for segment in perceived if segment.is_thing} <= set(THINGS_HERE)
    assert any(not segment.is_thing for segment in perceived)


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_large_pictures_get_masks_of_limited_size(kind, name, engine):
    (perceived,) = perceive(loaded(kind, engine(name), mask_side=50, min_score=0.0), noise(400, 200))
    assert {(s.mask.height, s.mask.width) for s in perceived.segments} == {(25, 50)}


def test_pictures_of_different_size_are_batched_without_harm(engine):
    expert = loaded(EoMT, engine("eomt"), min_score=0.0)
    images = [noise(64, 64, 1), noise(120, 50, 2), noise(30, 90, 3)]
    together, alone = perceive(expert, *images), [perceive(expert, image)[0] for image in images]
    for a, b in zip(together, alone, strict=True):
        assert [(s.label, s.box) for s in a.segments] == [(s.label, s.box) for s in b.segments]


def test_pictures_are_not_padded_to_each_others_size(tmp_path):
    folder = str(mask2former(tmp_path, {"shortest_edge": 64, "longest_edge": 100}))
    expert = loaded(Mask2Former, folder, min_score=0.0, overlap=0.0)
    images = [noise(100, 64, 1), noise(64, 100, 2), noise(64, 64, 3)]
    together, alone = perceive(expert, *images), [perceive(expert, image)[0] for image in images]
    assert [[s.box for s in p.segments] for p in together] == [[s.box for s in p.segments] for p in alone]


def test_classes_that_are_not_cocos_need_to_be_told_apart(engine):
    with pytest.raises(ExpertError, match=r"4 classes are not COCO's 133.*option things"):
        EoMT(model=engine("eomt")).load()
    with pytest.raises(ExpertError, match="no class 'cats'; did you mean 'cat'"):
        EoMT(model=engine("eomt"), things=("cats",)).load()


def test_cocos_classes_are_known_with_and_without_names():
    for labels in (dict(enumerate(PANOPTIC)), {number: f"LABEL_{number}" for number in range(133)}):
        classes = classes_of(labels, None, "eomt")
        assert {classes.names[n] for n in range(133) if n not in classes.stuff} == set(THINGS)


def test_reduced_precision_runs(engine):
    for kind, name in KINDS:
        (perceived,) = perceive(loaded(kind, engine(name), dtype="bfloat16", min_score=0.0, overlap=0.0), noise(64, 64))
        assert perceived.segments
