"""What the conditions show: names checked, experts left out together with what is built on them, noise that repeats."""

from collections import Counter
from dataclasses import replace

import pytest

from moai.data.perceive import perceive_without
from moai.errors import RecipeError
from moai.evaluation.conditions import expand_conditions
from moai.evaluation.noise import noisy
from moai.expert import Expert
from moai.perception.running.perceiver import Perceiver
from moai.types import Detection, Perception, Relation, Segment, TextLine, check_perception

EXPERTS = ("shapes", "geometry")


def test_leave_one_out_becomes_one_condition_per_expert():
    assert expand_conditions(["on", "leave-one-out", "noisy:0.30"], EXPERTS) == [
        "on",
        "without:shapes",
        "without:geometry",
        "noisy:0.3",
    ]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["leave-one-out"], "this run has none"),
        (["without:shape"], "no expert 'shape'; did you mean 'shapes'"),
        (["noisy:0"], "above 0 and up to 1"),
        (["noisy:some"], "'noisy:some'"),
        (["noisy:nan"], "'noisy:nan'"),
        (["oracel"], "did you mean 'oracle'"),
        (["noisy:0.5", "noisy:.5"], "each condition once"),
    ],
)
def test_a_wrong_condition_is_a_sentence(names, words):
    with pytest.raises(RecipeError, match=words):
        expand_conditions(names, () if words.startswith("this") else EXPERTS)


class Finder(Expert):
    name, role, version = "finder", "panoptic", "1"

    def perceive(self, images, context):
        return [Perception(segments=(Segment("cup", 0.9, (0.1, 0.1, 0.2, 0.2)),)) for _ in images]


class Relater(Expert):
    name, role, version = "relater", "scene_graph", "1"
    requires = ("panoptic",)

    def perceive(self, images, context):
        return [
            Perception(relations=tuple(Relation(s.label, "beside", s.label, 0.5) for s in c.segments)) for c in context
        ]


class Reading(Expert):
    name, role, version = "reading", "ocr", "1"

    def perceive(self, images, context):
        return [Perception(texts=(TextLine("EXIT", 0.8),)) for _ in images]


def test_without_an_expert_what_is_built_on_it_is_gone_as_well(samples):
    perceiver = Perceiver([Finder(), Relater(), Reading()])
    whole = perceive_without(perceiver, "nobody", samples, fix="")["red"]
    assert (len(whole.segments), len(whole.relations), len(whole.texts)) == (1, 1, 1)
    bare = perceive_without(perceiver, "finder", samples, fix="")
    assert set(bare) == {image for s in samples for image in s.image_ids}
    assert (bare["red"].segments, bare["red"].relations, len(bare["red"].texts)) == ((), (), 1)
    assert [s.expert for s in bare["red"].sources] == ["relater", "reading"] and not bare["red"].has_panoptic
    assert perceive_without(perceiver, "reading", samples, fix="")["red"].relations == whole.relations
    assert [e.name for e in perceiver.experts] == ["finder", "relater", "reading"], "the perceiver itself is untouched"


def test_without_its_only_expert_nothing_is_seen(samples):
    assert perceive_without(Perceiver([Reading()]), "reading", samples, fix="")["red"] == Perception()


# Noise --------------------------------------------------------------------------------------------------------------


def scene(name, x, text):
    box, other = (x, 0.1, x + 0.2, 0.5), (0.7, 0.1, 0.9, 0.4)
    return Perception(
        segments=(Segment(name, 0.9, box, attributes={"color": "red"}), Segment("table", 0.8, other)),
        detections=(Detection(f"red {name}", 0.7, box),),
        relations=(Relation(f"red {name}", "on", "table", 0.6, box, other),),
        texts=(TextLine(text, 0.5, ((0.1, 0.1), (0.4, 0.1), (0.4, 0.2), (0.1, 0.2))),),
        notes={"weather": (f"It is {text}.",)},
    )


@pytest.fixture
def scenes():
    return {f"i{i}": scene(name, i / 10, text) for i, (name, text) in enumerate(zip("abcdef", "uvwxyz"))}


def test_no_noise_changes_nothing(scenes):
    assert noisy(scenes, 0.0, seed=1) == scenes


def test_full_noise_replaces_every_word_and_breaks_no_rule(scenes):
    for image, p in noisy(scenes, 1.0, seed=1).items():
        own = scenes[image]
        check_perception(p)
        assert all(a.label != b.label or a.attributes != b.attributes for a, b in zip(p.segments, own.segments))
        assert p.texts[0].text != own.texts[0].text and p.notes["weather"] != own.notes["weather"]
        assert p.segments[0].box != own.segments[0].box and p.texts[0].polygon != own.texts[0].polygon
        assert [s.score for s in p.segments] == [s.score for s in own.segments]


def test_an_object_is_misnamed_alike_by_all_experts(scenes):
    for p in noisy(scenes, 0.7, seed=3).values():
        segment, detection, relation = p.segments[0], p.detections[0], p.relations[0]
        said = " ".join([*segment.attributes.values(), segment.label])
        assert said == detection.label == relation.subject
        assert segment.box == detection.box == relation.subject_box and p.segments[1].box == relation.object_box


def test_the_share_is_the_share():
    many = {str(i): Perception(texts=(TextLine(str(i), 0.9),)) for i in range(2000)}
    changed = sum(p.texts != many[i].texts for i, p in noisy(many, 0.3, seed=0).items())
    assert 0.26 < changed / 2000 < 0.34
    drawn = Counter(p.texts[0].text for p in noisy(many, 1.0, seed=0).values())
    assert max(drawn.values()) < 12, "drawn from all other images, not from a few"


def test_noise_depends_on_image_and_seed_and_not_on_the_order(scenes):
    backwards = noisy(dict(reversed(scenes.items())), 0.5, seed=1)
    assert backwards == noisy(scenes, 0.5, seed=1) != noisy(scenes, 0.5, seed=2)


def test_what_was_seen_once_only_has_nothing_to_be_mistaken_for():
    alone = {"i": replace(Perception(), texts=(TextLine("EXIT", 0.9),))}
    assert noisy(alone, 1.0, seed=0) == alone
