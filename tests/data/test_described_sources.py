"""What a recipe says of a source beside its files: answer type, response format, splits; and LLaVA's captions."""

import json

import pytest
import tiny

from moai.data.sources import open_sources
from moai.errors import DataError, RecipeError
from moai.recipe.sections import DataSource
from moai.types import IMAGE, Turn


@pytest.fixture
def rows(tmp_path):
    """A JSON file of LLaVA's layout, with one conversation of two questions."""
    tiny.picture("red").save(tmp_path / "a.png")
    turns = [("human", "Describe it.\n<image>"), ("gpt", "red shape"), ("human", "Why?"), ("gpt", "so")]
    spoken = [{"from": who, "value": text} for who, text in turns]
    first = {"id": 1, "image": "a.png", "conversations": spoken[:2]}
    path = tmp_path / "llava.json"
    path.write_text(json.dumps([first, {"id": "2", "image": "a.png", "conversations": spoken}]))
    return path


def opened(path, split="train", **about):
    return open_sources([DataSource(format="llava", path=str(path), **about)], split)


def test_a_response_format_follows_the_first_question(rows):
    single, double = opened(rows, response_format="Answer with one word.", kind="instruction")
    assert single.conversation.turns[0].content == ("Describe it.", IMAGE, "\nAnswer with one word.")
    assert [turn.text for turn in double.conversation.turns[1:]] == ["red shape", "Why?", "so"]
    assert (single.kind, single.answers, single.image_ids) == ("instruction", ("red shape",), double.image_ids)
    plain = opened(rows)
    assert [s.kind for s in plain] == ["", ""] and plain[0].conversation.turns[0].content == ("Describe it.", IMAGE)


def test_plain_rows_are_an_image_and_its_caption(rows):
    samples = opened(rows, options={"plain": True}, response_format="Answer with one word.", kind="caption")
    assert samples[0].conversation.turns == (Turn("text", (IMAGE, "red shape\n")),)
    assert samples[0].conversation.loss == "all" and samples[0].kind == "caption"
    with pytest.raises(DataError, match=r"llava.json:\d+: plain needs a question with one image, and an answer"):
        samples[1]


def test_a_source_may_be_a_part_of_some_splits_only(monkeypatch):
    tiny.register()
    both = [
        DataSource(format="dataset", name="tiny", splits=("train",), kind="caption"),
        DataSource(format="dataset", name="tiny"),
    ]
    assert len(open_sources(both, "train")) == 48 and len(open_sources(both, "test")) == 24
    with pytest.raises(RecipeError, match="the split 'test' of tiny is empty"):
        open_sources(both[:1], "test")


def test_what_is_held_out_is_described_too(rows):
    held = DataSource(format="llava", path=str(rows), hold_out={"validation": 0.5}, kind="a")
    whole = DataSource(format="llava", path={"train": str(rows), "validation": str(rows)})
    found = [sample for split in ("train", "validation") for sample in open_sources([held, whole], split)]
    assert sorted(sample.kind for sample in found) == ["", "", "", "", "a", "a"]
