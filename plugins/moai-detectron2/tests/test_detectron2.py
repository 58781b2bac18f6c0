"""Panoptic FPN: its raw output, recorded from detectron2; its files; and the engine itself where it is installed.

`recorded_panoptic.json` is what detectron2 (main at 02b5c4e2, compiled) returned for the drawn scene of
`moai.testing` with the tiny random model of `tiny_fpn`: a thing and stuff of the same `category_id` are in it.
"""

from __future__ import annotations

import importlib.util
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from moai_detectron2 import PanopticFPN
from moai_detectron2.expert import INSTALL, config_path, limited
from moai_detectron2.segments import Names, segments, with_scores
from moai_detectron2.weights import fill, read

from moai.errors import AssetError, ExpertError
from moai.testing import check_cache_key, check_expert, check_options, check_registration_is_light, sample_images
from moai.types import Perception, check_perception

INSTALLED = importlib.util.find_spec("detectron2") is not None
NOT_HERE = "detectron2 is not installed; it is not on the package index, so CI does not have it"
NAMES = Names(("cat", "dog"), ("things", "sky", "road"))
THINGS, STUFF = 80, 54


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def recorded():
    raw = json.loads(Path(__file__).with_name("recorded_panoptic.json").read_text(encoding="utf-8"))
    return {**raw, "panoptic": np.array(raw["panoptic"], dtype=np.int32)}


def row(number, isthing=True, category=0, score=0.9):
    return {"id": number, "isthing": isthing, "category_id": category, "score": score}


def test_recorded_output_becomes_segments(recorded):
    names = Names(tuple(f"thing {n}" for n in range(THINGS)), tuple(f"stuff {n}" for n in range(STUFF)))
    perceived = PanopticFPN().to_perception(recorded, names)
    check_perception(perceived)
    assert len(perceived.segments) == len(recorded["rows"]) >= 8
    for segment, row_ in zip(perceived.segments, recorded["rows"], strict=True):
        kind = "thing" if row_["isthing"] else "stuff"
        assert segment.label == f"{kind} {row_['category_id']}" and segment.is_thing == row_["isthing"]
        assert np.array_equal(segment.mask.decode(), recorded["panoptic"] == row_["id"])
        assert segment.score == row_["score"]
    covered = sum(segment.mask.decode().astype(int) for segment in perceived.segments)
    assert covered.max() == 1 and np.array_equal(covered == 0, recorded["panoptic"] == 0)
    numbers = [(r["isthing"], r["category_id"]) for r in recorded["rows"]]
    assert {n for thing, n in numbers if thing} & {n for thing, n in numbers if not thing}, "the recording has a clash"


def test_boxes_are_those_of_the_masks():
    panoptic = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [2, 2, 2, 2]], dtype=np.int32)
    cat, road = segments(panoptic, [row(1), row(2, False, 2)], NAMES)
    assert (cat.label, cat.box) == ("cat", (0.25, 0.3333, 0.75, 0.6667))
    assert (road.label, road.box, road.is_thing) == ("road", (0, 0.6667, 1, 1), False)


def test_nothing_found_is_nothing():
    assert PanopticFPN().to_perception({"panoptic": np.zeros((3, 4)), "rows": []}, NAMES) == Perception()


def test_a_row_without_a_pixel_is_left_out():
    assert segments(np.zeros((2, 2)), [row(1)], NAMES) == ()


@pytest.mark.parametrize("ids", [(1, 1), (0, 1), (-1, 2)], ids=["twice", "void", "negative"])
def test_ids_that_cannot_be_told_apart_are_refused(ids):
    with pytest.raises(ExpertError, match="each must have its own, from 1"):
        segments(np.ones((2, 2)), [row(number) for number in ids], NAMES)


def test_a_class_without_a_name_is_refused():
    with pytest.raises(ExpertError, match="found thing class 2, and its metadata names only 2"):
        segments(np.ones((2, 2)), [row(1, category=2)], NAMES)


def test_stuff_is_scored_by_its_pixels():
    panoptic = np.array([[1, 2, 2]])
    share = np.array([[0.1, 0.1, 0.2], [0.2, 0.6, 0.4], [0.7, 0.3, 0.4]])  # (classes, pixels)
    rows = [{"id": 1, "isthing": True, "score": 0.75, "category_id": 0, "instance_id": 4}]
    rows += [{"id": 2, "isthing": False, "category_id": 1, "area": 2}]
    thing, stuff = with_scores(panoptic, rows, np.log(share)[:, None].astype(np.float32))
    assert thing == {"id": 1, "isthing": True, "category_id": 0, "score": 0.75}
    assert stuff["score"] == pytest.approx((0.6 + 0.4) / 2)


def test_large_maps_are_limited():
    assert limited((4000, 3000), 640) == (640, 480)
    assert limited((100, 50), 640) == (100, 50)
    assert limited((5000, 1), 640) == (640, 1)


@pytest.mark.skipif(INSTALLED, reason="detectron2 is installed")
def test_without_detectron2_the_error_says_how_to_install_it():
    assert PanopticFPN.missing() == ["detectron2"]
    with pytest.raises(ExpertError, match="not on the package index; run: pip install .*github.com/facebookresearch"):
        PanopticFPN().load()
    assert PanopticFPN.install == INSTALL


def test_the_declaration_holds_with_and_without_detectron2():
    check_registration_is_light(PanopticFPN)
    check_options(PanopticFPN)
    check_cache_key(PanopticFPN)


def test_an_unknown_configuration_names_the_nearest():
    with pytest.raises(AssetError, match="did you mean 'panoptic_fpn_R_50_3x'"):
        config_path("panoptic_fpn_R_50_3")


def test_the_configuration_is_part_of_the_cache_key(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("VERSION: 2", encoding="utf-8")
    first = PanopticFPN(config=str(path)).weights_id()
    path.write_text("VERSION: 1", encoding="utf-8")
    assert PanopticFPN(config=str(path)).weights_id() != first


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('run')",))


def write(path, content):
    with path.open("wb") as file:
        pickle.dump(content, file, protocol=2)
    return path


def test_the_zoos_pickles_are_read(tmp_path):
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = write(tmp_path / "zoo.pkl", {"model": {"weight": weight}, "__author__": "zoo"})
    layer = torch.nn.Linear(3, 2, bias=False)
    fill(layer, path)
    assert torch.equal(layer.weight, torch.from_numpy(weight))


@pytest.mark.parametrize("name", ["hostile.pkl", "hostile.pth"])
def test_foreign_code_in_weights_is_not_run(tmp_path, name):
    path = tmp_path / name
    if name.endswith("pkl"):
        write(path, {"model": {}, "more": Hostile()})
    else:
        torch.save({"model": {}, "more": Hostile()}, path)
    with pytest.raises(AssetError, match="holds more than tensors, and is not read"):
        read(path)


@pytest.mark.parametrize("name", ["cut.pkl", "cut.pth", "cut.safetensors"])
def test_a_broken_file_is_an_error(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x02}q")
    with pytest.raises(AssetError, match="cannot be read as weights|holds more than tensors"):
        read(tmp_path / name)
    with pytest.raises(AssetError, match="is a folder"):
        read(tmp_path)


def test_tensors_of_another_model_are_listed(tmp_path):
    torch.save({"weight": torch.zeros(2, 5), "other": torch.zeros(1), "pixel_mean": torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(AssetError, match="1 missing: bias; 1 unexpected: other; 1 differently shaped: weight"):
        fill(torch.nn.Linear(3, 2), tmp_path / "a.pth")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pytest.importorskip("detectron2", reason=NOT_HERE)
    from tiny_fpn import make

    config, weights = make(tmp_path_factory.mktemp("fpn"))
    return {"config": config, "weights": weights, "short_side": 96, "long_side": 160, "stuff_pixels": 20}


def test_the_engine_keeps_the_contract(tiny):
    check_expert(PanopticFPN(**tiny, min_score=0.3))


def test_the_engine_sees_what_detectron2_s_own_predictor_sees(tiny):
    from detectron2.config import get_cfg
    from detectron2.engine import DefaultPredictor

    config = get_cfg()
    config.merge_from_file(tiny["config"])
    config.MODEL.WEIGHTS, config.MODEL.DEVICE = tiny["weights"], "cpu"
    config.INPUT.MIN_SIZE_TEST, config.INPUT.MAX_SIZE_TEST = 96, 160
    config.MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT = 20
    image = sample_images()[0]
    panoptic, rows = DefaultPredictor(config)(np.array(image)[:, :, ::-1])["panoptic_seg"]  # it takes BGR
    expert = PanopticFPN(**tiny)
    expert.load()
    (perceived,) = expert.perceive([image], [Perception()])
    assert any(r["isthing"] for r in rows) and not all(r["isthing"] for r in rows)
    assert len(perceived.segments) == len(rows)
    for segment, r in zip(perceived.segments, rows, strict=True):
        assert segment.label == expert._names.of(r) and segment.is_thing == r["isthing"]
        assert np.array_equal(segment.mask.decode(), (panoptic == r["id"]).numpy())
        if r["isthing"]:
            assert segment.score == pytest.approx(r["score"], abs=1e-5)


def test_the_engine_reproduces_the_recording(tiny, recorded):
    expert = PanopticFPN(**tiny, min_score=0.3, mask_side=40)
    expert.load()
    raw = expert._look(sample_images()[0])
    assert [(r["isthing"], r["category_id"]) for r in raw["rows"]] == [
        (r["isthing"], r["category_id"]) for r in recorded["rows"]
    ]
    assert (raw["panoptic"] != recorded["panoptic"]).mean() < 0.02


def test_the_zoos_configurations_are_found_and_named(tiny):
    from detectron2.data import MetadataCatalog

    assert config_path("panoptic_fpn_R_50_3x").is_file()
    metadata = MetadataCatalog.get("coco_2017_train_panoptic_separated")
    assert (len(metadata.thing_classes), len(metadata.stuff_classes)) == (THINGS, STUFF)
    assert metadata.stuff_classes[0] == "things"


def test_another_architecture_is_refused(tiny, tmp_path):
    path = tmp_path / "rcnn.yaml"
    path.write_text("VERSION: 2\nMODEL: {META_ARCHITECTURE: GeneralizedRCNN}\n", encoding="utf-8")
    with pytest.raises(ExpertError, match="configures a GeneralizedRCNN; give a PanopticFPN's"):
        PanopticFPN(config=str(path)).load()
    path.write_text("VERSION: 2\nMODEL: {NO_SUCH_KEY: 1}\n", encoding="utf-8")
    with pytest.raises(AssetError, match="cannot be read as a configuration"):
        PanopticFPN(config=str(path)).load()
