"""OWLv2, the Grounding-DINO family and OmDet-Turbo, tiny and random, through everything but their weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from moai_transformers import GroundingDino, LLMDet, MMGroundingDino, OmDetTurbo, OWLv2
from PIL import Image
from tiny_engines import NAMES

from moai.errors import ExpertError
from moai.testing import check_expert
from moai.types import Detection, Perception

EVERYTHING = {"vocabulary": NAMES, "min_score": 0.0, "nms": 1.0, "max_detections": 10_000}


def noise(width=100, height=60, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)


def loaded(kind, folder, **options):
    expert = kind(model=folder, **{**EVERYTHING, **options})
    expert.load()
    return expert


def perceive(expert, *images):
    return [perceived.detections for perceived in expert.perceive(list(images), [Perception()] * len(images))]


def normalised(result, size, names):
    """Transformers' own result as detections, clipped as moai wants it."""
    perceived = []
    for box, score, label in zip(*(result[key].tolist() for key in ("boxes", "scores", "labels")), strict=True):
        x0, y0, x1, y1 = (round(min(max(v / side, 0.0), 1.0), 4) for v, side in zip(box, size * 2, strict=True))
        if x0 < x1 and y0 < y1:
            perceived.append(Detection(names[label], score, (x0, y0, x1, y1)))
    return perceived


def same(left, right):
    def order(item):
        return (-round(item.score, 4), item.label, item.box)

    left, right = sorted(left, key=order), sorted(right, key=order)
    assert [item.label for item in left] == [item.label for item in right]
    for a, b in zip(left, right, strict=True):
        assert a.score == pytest.approx(b.score, abs=1e-4) and a.box == pytest.approx(b.box, abs=1e-3)
    assert left, "nothing was found, so nothing was compared"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [(OWLv2, "owlv2"), (LLMDet, "grounding"), (OmDetTurbo, "omdet")])
def test_it_keeps_the_contract(kind, name, engine):
    check_expert(kind(model=engine(name), vocabulary=NAMES, min_score=0.01))


def test_owlv2_sees_with_kept_embeddings_what_the_whole_model_sees(engine):
    expert, image = loaded(OWLv2, engine("owlv2")), noise()
    with torch.inference_mode():
        inputs = expert._processor(text=[list(NAMES)], images=image, return_tensors="pt")
        outputs = expert._model(**inputs)
    (own,) = expert._processor.post_process_grounded_object_detection(outputs, threshold=0, target_sizes=[(60, 100)])
    same(perceive(expert, image)[0], normalised(own, (100, 60), NAMES))


def test_owlv2_embeds_a_vocabulary_once_for_all_processes(engine, monkeypatch):
    first = loaded(OWLv2, engine("owlv2"))
    expected = perceive(first, noise())
    first.unload()
    monkeypatch.setattr(OWLv2, "_embed", lambda self, prompts: pytest.fail("the text tower was asked again"))
    assert perceive(loaded(OWLv2, engine("owlv2")), noise()) == expected


def test_owlv2_boxes_are_in_units_of_the_picture_not_of_its_padding(engine):
    # The same pixels on the same square, once as picture and once as padding: a box's place must not move.
    wide = noise(100, 50)
    square = Image.new("RGB", (100, 100))
    square.paste(wide)
    expert = loaded(OWLv2, engine("owlv2"))
    (in_wide,), (in_square,) = perceive(expert, wide), perceive(expert, square)
    places = {(d.label, round(d.score, 3)): d.box for d in in_square}
    inside = [d for d in in_wide if d.box[3] < 1 and (d.label, round(d.score, 3)) in places]
    assert inside
    for perceived in inside:
        x0, y0, x1, y1 = places[perceived.label, round(perceived.score, 3)]
        assert perceived.box == pytest.approx((x0, y0 * 2, x1, y1 * 2), abs=2e-3)


def test_owlv2_batches_and_shrinks_without_harm(engine):
    expert = loaded(OWLv2, engine("owlv2"))
    images = [noise(90, 60, 1), noise(40, 120, 2), noise(64, 64, 3)]
    for together, alone in zip(
        perceive(expert, *images), [perceive(expert, image)[0] for image in images], strict=True
    ):
        same(together, alone)
    assert perceive(expert, noise(3000, 40))[0]  # the processor alone would blur this for minutes


def test_a_name_that_owlv2_cannot_read_is_named(engine):
    with pytest.raises(ExpertError, match=r"16 tokens per name, and 'a very long name of a thing'.*shorten it"):
        OWLv2(model=engine("owlv2"), vocabulary=("cat", "a very long name of a thing")).load()
    with pytest.raises(ExpertError, match=r"'zebras' \(as 'a photo of a zebras'\)"):
        OWLv2(model=engine("owlv2"), vocabulary=("zebras",), template="a photo of a {}").load()
    with pytest.raises(ExpertError, match="template"):
        OWLv2(template="a photo")


@pytest.mark.parametrize("kind", ["MMGroundingDino", "GroundingDino"])
def test_grounding_dino_gives_class_ids_with_the_engines_scores(kind, tmp_path):
    from tiny_engines import grounding

    expert = loaded(MMGroundingDino if kind == "MMGroundingDino" else GroundingDino, str(grounding(tmp_path, kind)))
    image = noise()
    with torch.inference_mode():
        inputs = expert._processor(images=image, text=[list(NAMES)], return_tensors="pt")
        outputs = expert._model(**inputs)
    ids = inputs["input_ids"][0].tolist()
    tokens = outputs.logits[0].sigmoid()[:, : len(ids)]
    own = expert._processor.post_process_grounded_object_detection(
        outputs, inputs["input_ids"], threshold=0, text_threshold=1, target_sizes=[(60, 100)]
    )[0]
    words = expert._processor.tokenizer.convert_ids_to_tokens(ids)
    text, expected = " ".join(words), []
    assert text == "[CLS] " + " . ".join(NAMES) + " . [SEP]"
    frame = {"[CLS]", ".", "[SEP]"}
    for query in range(len(own["scores"])):
        position = int(tokens[query].argmax())
        if words[position] not in frame:  # where the engine's best token is a name's, its score is ours
            name = NAMES[words[:position].count(".")]
            one = {"boxes": own["boxes"][[query]], "scores": own["scores"][[query]], "labels": torch.tensor([0])}
            expected += normalised(one, (100, 60), [name])
    perceived = perceive(expert, image)[0]
    assert len(perceived) <= 10 and expected
    for wanted in expected:
        same(
            [d for d in perceived if d.label == wanted.label and d.box == pytest.approx(wanted.box, abs=1e-3)], [wanted]
        )


def test_a_vocabulary_over_the_token_limit_is_read_in_passes(engine):
    # 32 tokens hold 6 names of 8 words; 18 names need two texts, and each pass finds what it would find alone
    names = (*NAMES, *(f"{name} cat" for name in NAMES), *(f"{name} tv" for name in NAMES))
    expert = loaded(LLMDet, engine("grounding"), vocabulary=names, names_per_pass=6)
    assert [group for _, _, group in expert._passes] == [list(range(s, s + 6)) for s in (0, 6, 12)]
    parts = [loaded(LLMDet, engine("grounding"), vocabulary=names[s : s + 6]) for s in (0, 6, 12)]
    assert all(len(part._passes) == 1 for part in parts)
    same(perceive(expert, noise())[0], [d for part in parts for d in perceive(part, noise())[0]])
    many = loaded(LLMDet, engine("grounding"), vocabulary=names)
    assert len(many._passes) == 2 and perceive(many, noise())[0]


def test_a_name_that_grounding_dino_cannot_read_is_named(engine):
    with pytest.raises(ExpertError, match="reads 32 tokens at once, and 'cat cat.*' alone has 40"):
        LLMDet(model=engine("grounding"), vocabulary=("cat " * 40,)).load()


def test_omdet_sees_what_the_engine_sees(engine):
    expert, image = loaded(OmDetTurbo, engine("omdet"), nms=0.4, min_score=0.2), noise()
    with torch.inference_mode():
        inputs = expert._processor(images=image, text=list(NAMES), return_tensors="pt")
        inputs.pop("pixel_mask", None)
        outputs = expert._model(**inputs)
    (own,) = expert._processor.post_process_grounded_object_detection(
        outputs, threshold=0.2, nms_threshold=0.4, target_sizes=[(60, 100)]
    )
    same(perceive(expert, image)[0], normalised(own, (100, 60), NAMES))


def test_omdet_embeds_a_vocabulary_larger_than_its_cache_once(engine):
    expert = loaded(OmDetTurbo, engine("omdet"))  # its own cache is for two names
    calls = []
    backbone = expert._model.language_backbone
    backbone.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(kwargs["encode_type"]), with_kwargs=True
    )
    perceive(expert, noise())
    perceive(expert, noise(80, 80, 1))
    assert "class" not in calls


@pytest.mark.parametrize(("kind", "name"), [(OWLv2, "owlv2"), (LLMDet, "grounding"), (OmDetTurbo, "omdet")])
def test_reduced_precision_runs(kind, name, engine):
    assert perceive(loaded(kind, engine(name), dtype="bfloat16"), noise())[0]


def test_equal_names_count_once_and_order_does_not_matter_to_labels(engine):
    perceived = perceive(loaded(OmDetTurbo, engine("omdet"), vocabulary=(*NAMES, "CAT")), noise())[0]
    assert {d.label for d in perceived} <= set(NAMES)
