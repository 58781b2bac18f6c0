"""YOLO-World and YOLOE with tiny random weights in Ultralytics' own prediction, and what they leave behind: nothing."""

from __future__ import annotations

import ast
import os
import tomllib
from pathlib import Path

import numpy as np
import pytest

import moai as core
from moai.errors import AssetError, ExpertError
from moai.testing import check_declaration, check_expert, check_options, check_registration_is_light
from moai.types import Detection, Perception, check_perception

plugin = pytest.importorskip("moai_ultralytics", reason="not installed: pip install -e plugins/moai-ultralytics")
YOLOE, YOLOWorld = plugin.YOLOE, plugin.YOLOWorld
needs_ultralytics = pytest.mark.skipif(
    bool(YOLOWorld.missing()), reason="Ultralytics is not installed: pip install -e plugins/moai-ultralytics"
)
HERE = Path(__file__).parents[1]
NAMES = ("traffic light", "bus", "person")
# Some of what the tiny YOLO-World below gave for a picture of 160 x 120 pixels: corners in pixels, score, class.
RECORDED = np.array(
    [
        [0.0000, 31.3455, 160.0000, 120.0000, 0.5366, 1.0],
        [60.8577, 0.0000, 160.0000, 80.1833, 0.5305, 1.0],
        [0.0000, 17.7361, 160.0000, 120.0000, 0.5273, 2.0],
    ],
    dtype=np.float32,
)


def test_recorded_output_becomes_detections():
    names = dict(enumerate(NAMES))
    perceived = YOLOWorld().to_perception(RECORDED, names, (160, 120))
    check_perception(perceived)
    assert perceived == Perception(
        detections=(
            Detection("bus", 0.5366, (0.0, 0.2612, 1.0, 1.0)),
            Detection("bus", 0.5305, (0.3804, 0.0, 1.0, 0.6682)),
            Detection("person", 0.5273, (0.0, 0.1478, 1.0, 1.0)),
        )
    )
    assert all(type(value) is float for value in (perceived.detections[0].score, *perceived.detections[0].box))
    assert len(YOLOE(min_score=0.53).to_perception(RECORDED, names, (160, 120)).detections) == 2
    assert YOLOE().to_perception(np.zeros((0, 6)), {}, (160, 120)) == Perception()


def test_boxes_beyond_the_edge_and_without_area_keep_the_contract():
    rows = [[-0.4, 55.0, 160.25, 121.0, 1.0000001, 0.0], [80.0, 10.0, 80.0, 90.0, 0.26, 2.0]]
    perceived = YOLOWorld().to_perception(rows, {0: " bus ", 2: "x" * 999}, (160, 120))
    check_perception(perceived)
    assert [found.box for found in perceived.detections] == [(0.0, 0.4583, 1.0, 1.0), (0.5, 0.0833, 0.5, 0.75)]
    assert [found.label for found in perceived.detections] == ["bus", "x" * 256]


def test_options_are_checked():
    assert YOLOWorld(vocabulary=("bus", " bus ", "car")).options.vocabulary == ("bus", "car")
    for wrong, message in (
        ({"vocabulary": ("",)}, "1 to 256"),
        ({"image_size": 100}, "multiple"),
        ({"min_score": 2}, "min_score"),
    ):
        with pytest.raises(ExpertError, match=message):
            YOLOWorld(**wrong)
    with pytest.raises(ExpertError, match="did you mean 'vocabulary'"):
        YOLOE(vocabular=("bus",))


def test_the_licence_is_stated_and_the_core_does_not_know_this_package():
    assert tomllib.loads((HERE / "pyproject.toml").read_text())["project"]["license"] == "AGPL-3.0-only"
    assert "GNU AFFERO GENERAL PUBLIC LICENSE" in (HERE / "LICENSE").read_text()
    for kind in (YOLOWorld, YOLOE):
        assert kind.licence.startswith("AGPL-3.0") and "bundled" in kind.weights
    for path in Path(core.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if "ultralytics" in name], path


def test_without_weights_there_is_a_sentence(tmp_path):
    with pytest.raises(AssetError, match="name a .pt file in its option weights"):
        YOLOWorld().load()
    with pytest.raises(AssetError, match="'yolov8s-worldv2.pt' does not exist"):
        YOLOWorld(weights="yolov8s-worldv2.pt").load()
    (tmp_path / "model.yaml").write_text("nc: 80")
    with pytest.raises(AssetError, match=r"must be a \.pt file"):
        YOLOE(weights=str(tmp_path / "model.yaml")).load()


# --- the engine, with tiny random weights ----------------------------------------------------------------------------


SMALL = {"image_size": 64, "min_score": 0.0, "max_detections": 20}


@needs_ultralytics
@pytest.mark.parametrize("kind", [YOLOWorld, YOLOE])
def test_it_keeps_the_declared_part_of_the_contract(kind):
    check_declaration(kind)
    check_registration_is_light(kind)
    check_options(kind)


@pytest.mark.slow
@needs_ultralytics
def test_yolo_world_keeps_the_whole_contract(weights, clip):
    check_expert(YOLOWorld(weights=weights["world"], text_model=clip, vocabulary=NAMES, **SMALL))


@pytest.mark.slow
@needs_ultralytics
def test_yoloe_keeps_the_whole_contract(weights):
    check_expert(YOLOE(weights=weights["yoloe"], **SMALL))


@needs_ultralytics
def test_boxes_are_the_engines_own(weights, clip, picture_of_noise):
    import torch
    from moai_ultralytics.containment import contained
    from transformers import AutoTokenizer, CLIPModel

    expert = YOLOWorld(weights=weights["world"], text_model=clip, vocabulary=NAMES, **{**SMALL, "image_size": 320})
    expert.load()
    (perceived,) = expert.perceive([picture_of_noise], [Perception()])
    tokens = AutoTokenizer.from_pretrained(clip)(list(NAMES), padding=True, return_tensors="pt")
    with torch.inference_mode():
        features = CLIPModel.from_pretrained(clip).eval().get_text_features(**tokens).pooler_output
    with contained(1) as ultralytics:
        engine = ultralytics.YOLOWorld(weights["world"])
        engine.model.txt_feats = torch.nn.functional.normalize(features, dim=-1)[None].clone()
        engine.model.model[-1].nc, engine.model.names = 3, dict(enumerate(NAMES))
        boxes = engine.predict(picture_of_noise, imgsz=320, conf=0.0, max_det=20, device="cpu", verbose=False)[0].boxes
    assert len(perceived.detections) == len(boxes) >= 10
    assert {found.label for found in perceived.detections} <= set(NAMES)
    assert [NAMES[int(i)] for i in boxes.cls] == [found.label for found in perceived.detections]
    assert np.allclose([found.score for found in perceived.detections], boxes.conf, atol=1e-4)
    assert np.allclose([found.box for found in perceived.detections], boxes.xyxyn.clip(0, 1), atol=1e-4)


@needs_ultralytics
def test_a_vocabulary_of_any_size_is_embedded_once(weights, clip, picture_of_noise, monkeypatch):
    from moai_ultralytics import text

    names = tuple(f"thing number {i}" for i in range(300))
    first = text.text_features(names, clip)
    assert first.shape == (300, 512) and np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
    assert np.allclose(first[7:8], text.text_features(names[7:8], clip), atol=1e-5)  # whatever stands beside it
    monkeypatch.setattr(text, "_embed", lambda *args: pytest.fail("embedded a second time"))
    assert np.array_equal(text.text_features(names, clip), first)
    expert = YOLOWorld(weights=weights["world"], text_model=clip, vocabulary=names, **SMALL)
    expert.load()
    (perceived,) = expert.perceive([picture_of_noise], [Perception()])
    assert len(perceived.detections) >= 10 and all(found.label in names for found in perceived.detections)


@needs_ultralytics
def test_what_is_no_clip_is_a_sentence(tmp_path):
    from moai_ultralytics.text import text_features

    with pytest.raises(AssetError, match="option text_model"):
        text_features(("bus",), str(tmp_path))


@needs_ultralytics
def test_without_a_vocabulary_the_names_in_the_weights_count(weights, picture_of_noise):
    for kind, name, known in ((YOLOE, "yoloe", set(NAMES)), (YOLOWorld, "world", None)):
        expert = kind(weights=weights[name], **SMALL)
        expert.load()
        (perceived,) = expert.perceive([picture_of_noise], [Perception()])
        assert perceived.detections and (known is None or {found.label for found in perceived.detections} <= known)


@needs_ultralytics
def test_yoloe_takes_prompts_from_a_file_and_a_part_of_them(weights, picture_of_noise, tmp_path):
    from moai_ultralytics.containment import contained

    prompts = str(tmp_path / "prompts.npz")
    with contained(1) as ultralytics:
        ultralytics.YOLOE(weights["yoloe"]).save_prompt_embeddings(prompts)
    whole = YOLOE(weights=weights["yoloe"], prompts=prompts, **SMALL)
    part = YOLOE(weights=weights["yoloe"], prompts=prompts, vocabulary=("bus",), **SMALL)
    for expert in (whole, part):
        expert.load()
    assert whole.perceive([picture_of_noise], [Perception()])[0].detections
    assert {d.label for d in part.perceive([picture_of_noise], [Perception()])[0].detections} == {"bus"}
    assert whole.weights_id() != YOLOE(weights=weights["yoloe"]).weights_id()
    with pytest.raises(ExpertError, match="for 'buss'; did you mean 'bus'"):
        YOLOE(weights=weights["yoloe"], vocabulary=("buss",)).load()
    with pytest.raises(AssetError, match="holds no prompts for these weights"):
        YOLOE(weights=weights["bare"], prompts=prompts).load()
    with pytest.raises(AssetError, match="holds no prompt embeddings; make them"):
        YOLOE(weights=weights["bare"]).load()


@needs_ultralytics
def test_wrong_weights_are_sentences(weights, tmp_path):
    with pytest.raises(ExpertError, match="holds a YOLOESegModel, not a WorldModel"):
        YOLOWorld(weights=weights["yoloe"]).load()
    with pytest.raises(ExpertError, match="holds a DetectionModel, not a YOLOEModel"):
        YOLOE(weights=weights["plain"]).load()
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"not a checkpoint")
    with pytest.raises(AssetError, match=r"broken\.pt is no checkpoint that Ultralytics can load"):
        YOLOWorld(weights=str(broken)).load()


@needs_ultralytics
def test_weights_that_would_run_code_are_refused(tmp_path):
    import torch

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"model": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(AssetError, match=r"trap\.pt is no checkpoint"):
        YOLOWorld(weights=str(tmp_path / "trap.pt")).load()
    assert not (tmp_path / "sprung").exists()
