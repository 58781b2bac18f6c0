"""Where tags are likely, which tag names a part, and (marked `weights`) the parts of photographs."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from moai.errors import AssetError
from moai.testing import check_declaration, check_expert, check_options, check_registration_is_light
from moai.types import Perception, check_perception

plugin = pytest.importorskip("moai_tags", reason="not installed: pip install -e plugins/moai-tags")
pytest.importorskip("timm", reason="timm is not installed: pip install timm")
TagRegions = plugin.TagRegions


@pytest.fixture(scope="module")
def tags():
    """Tag -> numbers of its classes."""
    from moai_tags.classifier import first_names
    from moai_tags.names import tag_classes

    return tag_classes(first_names())


@pytest.fixture
def expert(tags):
    """An expert with its names and without a classifier; call it with options."""
    from moai_tags.names import detected_tags

    def make(**options):
        made = TagRegions(**options)
        made._tags, made._detected = tags, detected_tags(tags)
        return made

    return make


def region(tag, score=0.9, box=(0.2, 0.2, 0.4, 0.4), reach=None):
    from moai_tags.regions import Region

    return Region(tag, score, box, reach or box)


# --- where -----------------------------------------------------------------------------------------------------------


def test_a_region_is_what_is_connected_and_half_as_likely_as_its_peak():
    from moai_tags.regions import find_regions

    scores = np.zeros((8, 8))  # windows of 3 x 3 cells: 10 x 10 cells
    scores[2, 2], scores[3, 3], scores[3, 4], scores[2, 3] = 0.8, 0.5, 0.39, 0.4
    scores[6, 7] = 0.6
    first, second = find_regions({"lemon": scores})
    assert (first.tag, first.score) == ("lemon", 0.8) and second.score == 0.6
    assert first.box == pytest.approx((0.3, 0.3, 0.5, 0.5)) == first.reach
    assert second.box == pytest.approx((0.8, 0.7, 0.9, 0.8))
    assert second.reach == pytest.approx((0.8, 0.7, 1.0, 0.8))  # the outermost window reaches the picture's edge


def test_what_is_nowhere_likely_has_no_region_and_the_strongest_comes_first():
    from moai_tags.regions import find_regions

    maps = {"lemon": np.full((3, 4), 0.49), "dome": np.full((3, 4), 0.6), "fountain": np.full((3, 4), 0.7)}
    found = find_regions(maps)
    assert [one.tag for one in found] == ["fountain", "dome"]
    assert found[0].reach == (0.0, 0.0, 1.0, 1.0)


def test_regions_that_overlap_by_half_are_one_place():
    from moai_tags.regions import places

    one, other = region("fruit"), region("lemon", 0.8, (0.2, 0.2, 0.4, 0.35))
    apart, aside = region("dome", 0.7, (0.6, 0.2, 0.8, 0.4)), region("nail", 0.6, (0.35, 0.35, 0.5, 0.5))
    assert places([one, other, apart, aside]) == [[one, other], [apart], [aside]]


# --- which name ------------------------------------------------------------------------------------------------------


def test_the_more_particular_tag_names_a_part_when_it_is_nearly_as_likely(expert):
    place = [region("fruit"), region("lemon")]
    assert expert().name_part(place, {"fruit": 0.9, "lemon": 0.8}).tag == "lemon"
    assert expert().name_part(place, {"fruit": 0.9, "lemon": 0.55}).tag == "fruit"
    assert expert().name_part(place, {"fruit": 0.9, "lemon": 0.8}).score == 0.8


def test_a_kind_by_which_people_call_a_thing_is_its_name(expert):
    from moai_tags.names import BROAD, KINDS

    place = [region("table tennis ball"), region("ball")]
    assert expert().name_part(place, {"ball": 0.7, "table tennis ball": 0.7}).tag == "ball"
    assert expert().name_part(place, {"ball": 0.4, "table tennis ball": 0.4}) is None
    assert KINDS.keys() > BROAD


def test_the_second_look_decides(expert):
    place = [region("fruit", 0.99)]
    assert expert().name_part(place, {"fruit": 0.49}) is None
    assert expert(min_score=0.4).name_part(place, {"fruit": 0.49}).tag == "fruit"


def test_what_a_detector_finds_is_left_to_it(expert, tags):
    from moai_tags.names import detected_tags

    assert expert().name_part([region("fruit"), region("orange")], {"fruit": 0.9, "orange": 0.6}) is None
    names = detected_tags(tags)
    assert {"cat", "tabby cat", "collie", "orange", "school bus", "Windsor tie"} <= names
    assert not {"fruit", "lemon", "building", "fountain", "ball", "flower pot", "wolf"} & names


def test_each_name_is_said_once_around_all_of_its_parts(expert):
    named = [
        region("building", 0.6, (0.1, 0.1, 0.3, 0.3)),
        region("fountain", 0.9, (0.4, 0.7, 0.6, 0.9), (0.4, 0.7, 0.6, 1.0)),
        region("building", 0.7, (0.2, 0.5, 0.4, 0.6)),
    ]
    seen = expert().to_perception(named)
    check_perception(seen)
    assert [(d.label, d.score, d.box) for d in seen.detections] == [
        ("fountain", 0.9, (0.4, 0.7, 0.6, 1.0)),
        ("building", 0.7, (0.1, 0.1, 0.4, 0.6)),
    ]
    assert expert().to_perception([]) == Perception()


# --- looking ---------------------------------------------------------------------------------------------------------


def test_a_part_is_looked_at_with_what_is_around_it():
    from moai_tags.views import part_views

    picture = Image.new("RGB", (400, 200), "black")
    picture.paste("white", (300, 100, 350, 150))
    closer, wider = part_views(picture, (0.75, 0.5, 0.875, 0.75), 64)
    assert closer.shape == (64, 64, 3)
    assert closer.mean() == pytest.approx(1 / 1.2**2, abs=0.03) and wider.mean() == pytest.approx(1 / 1.6**2, abs=0.03)
    corner, _ = part_views(picture, (0.0, 0.0, 0.01, 0.01), 64)  # moved into the picture, and no less than 24 pixels
    assert corner.shape == (64, 64, 3) and corner.max() == 0.0


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (4000, 8), (300, 200)])
def test_the_whole_of_any_picture_fits_the_cells(size):
    from moai_tags.views import whole

    seen = whole(Image.new("RGB", size, (255, 0, 51)), 64, 32, 192)
    assert not any(length % 32 or not 64 <= length <= 192 for length in seen.shape[:2])
    assert np.allclose(seen, [1.0, 0.0, 0.2], atol=1e-3)


def test_it_keeps_the_declared_part_of_the_contract():
    check_declaration(TagRegions)
    check_options(TagRegions)
    check_registration_is_light(TagRegions)


@pytest.fixture(scope="module")
def loaded():
    """The expert with its weights, from the cache or a package registry."""
    expert = TagRegions(side=256)
    try:
        expert.load()
    except AssetError as error:
        pytest.skip(f"the weights cannot be resolved: {error}")
    yield expert
    expert.unload()


@pytest.mark.weights
def test_a_part_of_a_photograph_is_named_where_it_is(loaded):
    data = pytest.importorskip("skimage.data", reason="scikit-image, whose wheel brings photographs, is not installed")
    coffee = Image.fromarray(data.coffee())
    wide = Image.new("RGB", (1000, 400), "grey")
    wide.paste(coffee, (400, 0))
    seen, nothing, cat = loaded.perceive(
        [wide, Image.new("RGB", (64, 64), "grey"), Image.fromarray(data.chelsea())], [Perception()] * 3
    )
    [espresso] = seen.detections
    x0, y0, x1, y1 = espresso.box
    assert espresso.label == "espresso" and x0 > 0.4 and 0.6 < (x0 + x1) / 2 < 0.8
    assert nothing == Perception()
    assert all(detection.label != "cat" for detection in cat.detections)  # a detector's


@pytest.mark.weights
def test_the_features_of_a_window_give_what_the_classifier_gives(loaded):
    """A picture of 3 x 3 cells has one window, which is the picture."""
    pixels = np.random.default_rng(0).random((96, 96, 3), dtype=np.float32)
    assert np.allclose(loaded._windows(loaded._features(pixels))[0, 0], loaded.classify(pixels[None])[0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.weights
def test_it_keeps_the_whole_contract(loaded):
    check_expert(TagRegions(side=256))
