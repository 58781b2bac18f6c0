"""The map's colours mean the class, use the full range, and cover every segment."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from moai.perception.drawing.panoptic_map import label_colour, render_map
from moai.types import Mask, Perception, Segment

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


def seen(*segments: Segment) -> Perception:
    return Perception(segments=segments)


def test_nothing_is_black():
    drawn = render_map(Perception(), 4, 6)
    assert drawn.shape == (4, 6, 3) and drawn.dtype == np.uint8
    assert not drawn.any()


def test_full_contrast():
    drawn = render_map(seen(Segment("cat", 1.0, LEFT)), 8, 8)
    assert drawn.max() == 255 and drawn.min() == 0
    assert drawn[:, :4].any(axis=2).all() and not drawn[:, 4:].any()


def test_colour_means_the_class_not_the_place_in_the_list():
    cat, dog = Segment("cat", 1.0, LEFT), Segment("dog", 1.0, RIGHT)
    assert np.array_equal(render_map(seen(cat, dog), 8, 8), render_map(seen(dog, cat), 8, 8))
    assert tuple(render_map(seen(cat), 8, 8)[0, 0]) == label_colour("cat")
    assert label_colour("cat") != label_colour("dog")


def test_instances_of_a_class_differ():
    drawn = render_map(seen(Segment("cat", 1.0, LEFT), Segment("cat", 1.0, RIGHT)), 8, 8)
    assert tuple(drawn[0, 0]) != tuple(drawn[0, 7])
    assert len({label_colour("cat", number) for number in range(6)}) == 6


def test_more_than_133_segments_are_drawn():
    assert render_map(seen(*(Segment(f"c{i}", 1.0, LEFT) for i in range(300))), 8, 8).any()


def test_colours_do_not_depend_on_the_process():
    code = "from moai.perception.drawing.panoptic_map import label_colour; print(label_colour('cat'))"
    env = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == str(label_colour("cat")), done.stderr


def test_masks_are_resized_nearest():
    mask = np.zeros((2, 2), bool)
    mask[0, 1] = True
    drawn = render_map(seen(Segment("cat", 1.0, (0, 0, 1, 1), Mask.encode(mask))), 6, 4)
    inside = drawn.any(axis=2)
    assert inside[:3, 2:].all() and inside.sum() == 6


def test_a_mask_thinner_than_a_pixel_does_not_vanish():
    mask = np.zeros((100, 100), bool)
    mask[:, 7] = True
    drawn = render_map(seen(Segment("pole", 1.0, (0.07, 0.0, 0.08, 1.0), Mask.encode(mask))), 5, 5)
    assert drawn[:, 0].any(axis=1).all() and not drawn[:, 1:].any()


@pytest.mark.parametrize("box", [(1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0), (0.5, 0.2, 0.5, 0.9)])
def test_boxes_without_area_cover_a_pixel(box):
    assert render_map(seen(Segment("dot", 1.0, box)), 7, 7).any()


def test_small_over_large_and_things_over_stuff():
    whole = (0.0, 0.0, 1.0, 1.0)
    small, large = Segment("cup", 1.0, (0.4, 0.4, 0.6, 0.6)), Segment("table", 1.0, whole)
    stuff = Segment("grass-merged", 1.0, (0.45, 0.45, 0.55, 0.55), is_thing=False)
    for order in ((small, large, stuff), (stuff, large, small)):
        assert tuple(render_map(seen(*order), 20, 20)[10, 10]) == label_colour("cup")


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match="at least 1 x 1"):
        render_map(Perception(), 0, 5)
