"""A budget of tokens, which are letters here: as few whole facts as possible are left out, in the stated order."""

from __future__ import annotations

import re

import pytest

from moai.errors import RecipeError
from moai.perception.explaining.facts import find_facts
from moai.perception.words.token_budget import IMPORTANCE, Dropped, verbalize_within
from moai.perception.words.verbalize import NOTHING_FOUND, languages, verbalize
from moai.plugins import load_registry
from moai.types import Detection, Perception, Relation, Segment, Source, TextLine

BOX = (0.25, 0.25, 0.75, 0.75)
SEEN = Perception(
    segments=tuple(Segment(f"segment {i}", score, BOX) for i, score in enumerate((0.9, 0.3, 0.6))),
    detections=tuple(Detection(f"detection {i}", 0.5, BOX) for i in range(3)),
    relations=(Relation("cup", "on", "table", 0.4), Relation("dog", "under", "table", 0.8)),
    texts=(TextLine("EXIT", 0.7), TextLine("OPEN", 0.95)),
    notes={"weather": ("It rains.", "It is cold."), "depth": ("The dog is near.",), "ocr": ("A note on the text.",)},
)
ORDER = [
    ("scene_graph", "cup"),
    ("scene_graph", "dog"),
    ("weather", "It is cold."),
    ("weather", "It rains."),
    ("depth", "The dog is near."),
    ("open_world", "detection 2"),
    ("open_world", "detection 1"),
    ("open_world", "detection 0"),
    ("ocr", "A note on the text."),
    ("ocr", "EXIT"),
    ("ocr", "OPEN"),
    ("panoptic", "segment 1"),
    ("panoptic", "segment 2"),
    ("panoptic", "segment 0"),
]


@pytest.fixture(scope="module")
def registry():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOAI_PLUGINS", "")
        return load_registry()


def shown(dropped: tuple[Dropped, ...]) -> list[tuple[str, str]]:
    kinds = {Relation: "subject", TextLine: "text"}
    return [
        (d.role, d.fact if isinstance(d.fact, str) else getattr(d.fact, kinds.get(type(d.fact), "label")))
        for d in dropped
    ]


def test_a_perception_that_fits_is_verbalized_as_without_a_budget(registry, caplog):
    text = verbalize(SEEN, registry=registry)
    words = verbalize_within(SEEN, len(text), list, registry=registry)
    assert words.text == text and words.dropped == () and not caplog.records
    assert verbalize_within(SEEN, len(text) - 1, list, registry=registry).dropped


def test_facts_leave_in_the_documented_order(registry):
    gone = verbalize_within(SEEN, 0, list, registry=registry)
    assert gone.text == "" and shown(gone.dropped) == ORDER


@pytest.mark.parametrize("language", ["en", "ko", "zh", "en-x-compact"])
@pytest.mark.parametrize("budget", range(0, 600, 7))
def test_the_text_fits_and_its_facts_are_whole(registry, language, budget):
    code, _, style = language.partition("-x-")
    options = {"language": code, "style": style or "paper", "registry": registry}
    words = verbalize_within(SEEN, budget, list, **options)
    assert len(words.text) <= budget and "".join(words.ids) == words.text
    assert shown(words.dropped) == ORDER[: len(words.dropped)]
    for box in re.findall(r"\[[^\]]*", words.text):
        assert re.fullmatch(r"\[(0\.\d\d, ){3}0\.\d\d", box)


def test_one_fact_less_than_needed_does_not_fit(registry):
    whole = {
        k: verbalize_within(SEEN, k, list, registry=registry) for k in range(len(verbalize(SEEN, registry=registry)))
    }
    lengths = {len(words.dropped): len(words.text) for words in whole.values()}
    assert sorted(lengths) == list(range(1, len(ORDER) + 1))  # every number of facts is the right one for some budget
    for budget, words in whole.items():
        assert lengths.get(len(words.dropped) - 1, budget + 1) > budget


def test_the_other_facts_keep_their_order(registry):
    seen = Perception(texts=tuple(TextLine(f"t{i}", i / 10) for i in (5, 1, 9, 3)))
    words = verbalize_within(seen, len("The image includes text descriptions: t5, and t9."), list, registry=registry)
    assert words.text == "The image includes text descriptions: t5, and t9."


def test_another_importance(registry):
    gone = verbalize_within(SEEN, 0, list, registry=registry, importance=("scene_graph", "weather", "panoptic"))
    roles = list(dict.fromkeys(role for role, _, _ in gone.dropped))
    assert roles == ["depth", "open_world", "ocr", "panoptic", "weather", "scene_graph"]
    with pytest.raises(RecipeError, match="names a role twice"):
        verbalize_within(SEEN, 0, list, registry=registry, importance=("ocr", "ocr"))


def test_the_log_counts_the_facts_left_out(registry, caplog):
    text = verbalize(SEEN, registry=registry)
    verbalize_within(SEEN, len(text) - 100, list, registry=registry)
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert f"{len(text)} tokens was cut to {len(text) - 100}" in record.message
    assert "2 of 2 from scene_graph" in record.message and "raise perception.max_tokens" in record.message


def test_scores_and_merging_are_counted_too(registry):
    seen = Perception(segments=(Segment("dog", 0.5, BOX),), detections=(Detection("dog", 0.9, BOX),))
    text = verbalize(seen, registry=registry, scores=True, merge=True)
    words = verbalize_within(seen, len(text), list, registry=registry, scores=True, merge=True)
    assert words.text == text and text.endswith("dog (0.90).") and not words.dropped


def test_a_template_that_is_too_long_without_facts_is_left_out_whole(registry, monkeypatch, caplog):
    monkeypatch.setitem(registry.templates, ("depth", "en"), lambda perception: "far " * 50)
    seen = Perception(sources=(Source("d", "depth", "1"),), texts=(TextLine("EXIT", 1.0),))
    words = verbalize_within(seen, 60, list, registry=registry)
    assert words.text == "" and len(words.dropped) == 1 and caplog.records


def test_few_renderings_are_enough(registry):
    calls = []
    seen = Perception(texts=tuple(TextLine(f"line {i}", 0.5) for i in range(1000)))
    verbalize_within(seen, 500, lambda text: calls.append(text) or text, registry=registry)
    assert len(calls) <= 12


def test_the_default_importance_names_every_role_once(registry):
    roles = {role for role, _ in registry.templates} - {NOTHING_FOUND}
    assert set(IMPORTANCE) == roles | {"own"} and len(IMPORTANCE) == 5
    assert "en" in languages(registry)


# Nothing found -----------------------------------------------------------------------------------------------------

LOOKED = (Source("finder", "open_world", "1"),)


@pytest.mark.parametrize(
    "style, said, sign",
    [
        ("compact", "no objects.", "no objects. text EXIT."),
        ("paper", "The image includes no objects.", "The image includes no objects. The image includes text"),
    ],
)
def test_an_expert_that_found_no_object_is_said_where_it_is_asked_for(style, said, sign):
    def words(**found):
        return verbalize_within(Perception(**found), 100, str.split, style=style, say_nothing_found=True)

    assert words(sources=LOOKED).text == said and words(sources=LOOKED).nothing_found
    exit_sign = words(sources=LOOKED, texts=(TextLine("EXIT", 0.9),))
    assert exit_sign.text.startswith(sign)
    spans = find_facts(Perception(sources=LOOKED, texts=(TextLine("EXIT", 0.9),)), exit_sign, style=style)
    assert ["EXIT" in exit_sign.text[span.start : span.end] for span in spans] == [True]
    assert words().text == "" and words(sources=(Source("reader", "ocr", "1"),)).text == ""  # nobody looked
    there = (Detection("dog", 0.9, (0.4, 0.4, 0.6, 0.6)),)
    assert "no objects" not in words(sources=LOOKED, detections=there).text
    assert verbalize_within(Perception(sources=LOOKED), 100, str.split, style=style).text == ""


def test_objects_that_do_not_fit_were_found():
    there = Perception(sources=LOOKED, detections=(Detection("a b c d", 0.9, (0.4, 0.4, 0.6, 0.6)),))
    assert verbalize_within(there, 3, str.split, style="compact", say_nothing_found=True).text == ""


def test_a_language_without_words_for_it_says_so():
    with pytest.raises(RecipeError, match="'nothing_found' has no template in language 'ko'"):
        verbalize_within(Perception(sources=LOOKED), 100, str.split, "ko", say_nothing_found=True)
