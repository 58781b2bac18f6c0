"""The contract kit passes a good expert and names what is wrong with a bad one."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest

from moai.expert import Expert, Options
from moai.testing import (
    check_declaration,
    check_expert,
    check_options,
    check_perceive,
    check_registration_is_light,
    sample_context,
    sample_images,
)
from moai.types import Detection, Mask, Perception, Relation, Segment


class Good(Expert):
    """Sees one box as large as the image, scored by its brightness."""

    name, role, version = "good", "open_world", "1"

    def to_detections(self, image):
        low, high = image.convert("L").getextrema()
        return (Detection("thing", (low + high) / 510, (0.0, 0.0, 1.0, 1.0)),)

    def perceive(self, images, context):
        return [Perception(detections=self.to_detections(image)) for image in images]


def pictures(expert):
    images = sample_images()
    return expert, images, [sample_context(expert.requires)] * len(images)


def test_a_good_expert_passes_as_class_and_as_instance():
    check_expert(Good)
    check_expert(Good(), images=sample_images()[:2])


class NumpyScore(Good):
    def to_detections(self, image):
        import numpy as np

        return (Detection("thing", np.float64(0.5) + np.float32(0.1), [0.0, 0.0, np.float32(0.5), 1.0]),)


class OutOfRange(Good):
    def to_detections(self, image):
        return (Detection("thing", 0.5, (0, 0, 1.2, 1)),)


class CrashOnOnePixel(Good):
    def to_detections(self, image):
        return (Detection("thing", 1 / image.width, (0.0, 0.0, 1.0 / (image.width - 1), 1.0)),)


class DependsOnBatch(Good):
    def perceive(self, images, context):
        return [Perception(detections=(Detection("thing", 1 / len(images), (0.0, 0.0, 1.0, 1.0)),)) for _ in images]


class Forgetful(Good):
    def perceive(self, images, context):
        return super().perceive(images, context)[:1]


class Random(Good):
    calls = 0

    def perceive(self, images, context):
        self.calls += 1
        return [Perception(detections=(Detection(f"thing {self.calls}", 0.5, (0.0, 0.0, 1.0, 1.0)),)) for _ in images]


class Lists(Good):
    def perceive(self, images, context):
        return [Perception(detections=[Detection("thing", 0.5, (0.0, 0.0, 1.0, 1.0))]) for _ in images]


class Scribbles(Good):
    def perceive(self, images, context):
        seen = super().perceive(images, context)
        for image in images:
            image.putpixel((0, 0), (1, 2, 3))
        return seen


class NeedsContext(Good):
    requires = ("panoptic",)

    def perceive(self, images, context):
        return [Perception(detections=(Detection(seen.segments[0].label, 0.5, (0, 0, 1, 1)),)) for seen in context]


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (NumpyScore, "Python numbers"),
        (OutOfRange, r"normalised to \[0, 1\]"),
        (CrashOnOnePixel, "ZeroDivisionError"),
        (DependsOnBatch, "gives another perception in a batch than alone"),
        (Forgetful, "returned 1 perceptions for 6 images"),
        (Random, "not deterministic"),
        (Lists, "does not survive JSON"),
        (Scribbles, "changes the images"),
        (NeedsContext, "IndexError"),
    ],
)
def test_what_a_bad_expert_returns_is_named(bad, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_perceive(*pictures(bad()))


class Segmenting(Good):
    """Sees the same square everywhere, and in a batch with ``flipped`` pixels more below it."""

    flipped, score, label = 0, 0.9, "square"

    def perceive(self, images, context):
        mask = np.zeros((64, 64), dtype=bool)
        mask[8:40, 8:40] = True
        score, label, bottom = 0.9, "square", 40
        if len(images) > 1:
            mask[40, 8 : 8 + self.flipped] = True
            score, label, bottom = self.score, self.label, 41 if self.flipped else 40
        box = (8 / 64, 8 / 64, 40 / 64, bottom / 64)
        square = Segment(label, score, box, Mask.encode(mask))
        return [Perception(segments=(square,), relations=(Relation(label, "on", "floor", 0.5, box),)) for _ in images]


@pytest.mark.parametrize("changes", [{}, {"flipped": 1}, {"flipped": 5}, {"score": 0.9005}])
def test_what_last_bits_decide_may_differ_between_batch_and_alone(changes):
    """A product of matrices adds up in an order that depends on the batch: a tied pixel then goes to the other mask."""
    check_perceive(*pictures(type("Tied", (Segmenting,), changes)()))


@pytest.mark.parametrize("changes", [{"flipped": 6}, {"score": 0.902}, {"label": "box"}])
def test_what_last_bits_do_not_decide_may_not_differ(changes):
    with pytest.raises(AssertionError, match="gives another perception in a batch than alone"):
        check_perceive(*pictures(type("Other", (Segmenting,), changes)()))


def test_bad_declarations_are_named():
    for attribute, value, sentence in [
        ("name", "Upper Case", "lower case"),
        ("version", "", "version must be a non-empty string"),
        ("modules", "cv2", "tuple of strings"),
        ("requires", ("open_world",), "requires its own role"),
        ("modules", ("no_such_module_here",), "no_such_module_here not installed; pip install it"),
    ]:
        kind = type("Bad", (Good,), {attribute: value, "install": "pip install it"})
        with pytest.raises(AssertionError, match=sentence):
            check_declaration(kind)
    with pytest.raises(AssertionError, match="does not implement perceive"):
        check_declaration(type("Empty", (Expert,), {"name": "empty", "role": "ocr", "version": "1"}))


def test_options_must_have_defaults():
    class NoDefault(Options):
        size: int

    with pytest.raises(AssertionError, match="without a default: size"):
        check_options(type("Bad", (Good,), {"Options": NoDefault}))


def test_an_expert_that_does_not_come_back_after_unload_is_named():
    class OneLife(Good):
        lives = 1

        def perceive(self, images, context):
            assert self.lives > 0
            return super().perceive(images, context)

        def unload(self):
            self.lives = 0

    with pytest.raises(AssertionError, match="perceive raises"):
        check_expert(OneLife)


@pytest.mark.parametrize(("heavy", "light"), [("import wave", False), ("", True)])
def test_a_heavy_import_at_the_top_of_a_plugin_is_named(tmp_path, monkeypatch, heavy, light):
    name = f"plugin_{'light' if light else 'heavy'}"
    (tmp_path / f"{name}.py").write_text(
        textwrap.dedent(f"""
            {heavy}
            from moai.expert import Expert
            class Thing(Expert):
                name, role, version, modules = "thing", "ocr", "1", ("wave",)
                def perceive(self, images, context):
                    return []
            """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    kind = __import__(name).Thing
    if light:
        check_registration_is_light(kind)
    else:
        with pytest.raises(AssertionError, match="imports wave; import it inside load"):
            check_registration_is_light(kind)
