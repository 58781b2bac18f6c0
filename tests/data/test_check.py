"""Checking data: every kind of problem is counted and named with its place, and what a run would do is said."""

from __future__ import annotations

import json

import pytest
import tiny
from PIL import Image

from moai.data.check import check_samples
from moai.data.context_fit import ContextFit, fit_context
from moai.data.loss_view import PLACE, show_sample, write_page
from moai.data.samples import Listed
from moai.data.source_check import guess_format, samples_to_check
from moai.errors import DataError, RecipeError
from moai.recipe.sections import DataSource
from moai.types import IMAGE, Conversation, Sample, Turn

GOOD = {"image": "red.png", "question": "What color?", "answer": "red", "kind": "color"}


@pytest.fixture(scope="module")
def processor():
    return tiny.made()[1]


@pytest.fixture
def rows(photos, opened):
    """A file of rows beside the pictures, opened."""

    def write(*given):
        path = photos / "rows.jsonl"
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in given))
        return opened("jsonl", path)

    return write


def test_good_rows_are_counted_by_what_they_are(rows):
    report = check_samples(rows(GOOD, {"question": "?", "answer": "a"}, {**GOOD, "image": ["red.png", "blue.png"]}))
    assert report.total == 3 and not report.bad and not report.odd and not report.stops(0)
    assert report.counts == {"one image": 1, "text only": 1, "several images": 1, "one answer": 3, "kind color": 2}


def test_every_kind_of_bad_row_is_counted_with_its_place(rows, photos, processor):
    (photos / "empty.png").touch()
    (photos / "damaged.png").write_bytes((photos / "red.png").read_bytes()[:80])
    long = {**GOOD, "question": "Is there a red circle? " * 60}
    roles = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
    samples = rows(
        GOOD, "{", {**GOOD, "image": "gone.png"}, {**GOOD, "image": "empty.png"}, {**GOOD, "image": "damaged.png"},
        {**GOOD, "image": "../a"}, {"image": "red.png", "messages": roles}, {**GOOD, "answer": ""}, long,
        {"messages": [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": "a"}]}, {"x": 1},
    )  # fmt: skip
    report = check_samples(samples, processor)
    assert set(report.bad) == {
        "row that is no JSON", "missing image", "empty image", "unreadable image", "image outside its folder",
        "turns out of order", "empty answer", "row too long for the context", "row that does not fit its format",
        "images and their places do not match",
    }  # fmt: skip
    assert report.bad.total() == 10 and report.stops(0.5) and not report.stops(0.95)
    for problem, line in (("missing image", 3), ("unreadable image", 5), ("row too long for the context", 9)):
        assert f"rows.jsonl:{line}: " in report.examples[problem][0]
    assert json.loads(json.dumps(report.to_dict()))["bad"]["missing image"] == 1


def test_odd_images_and_ids_are_named_and_stop_nothing(rows, photos):
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    frames[0].save(photos / "moves.gif", save_all=True, append_images=frames[1:])
    Image.new("RGBA", (40, 40)).save(photos / "clear.png")
    Image.new("RGB", (4, 40)).save(photos / "tiny.png")
    Image.new("L", (6000, 20)).save(photos / "huge.png")
    names = ("moves.gif", "clear.png", "tiny.png", "huge.png", "tiny.png")
    report = check_samples(rows(*({**GOOD, "image": name, "id": n % 4} for n, name in enumerate(names))))
    assert not report.bad and not report.stops(0)
    assert dict(report.odd) == {
        "animated image": 1, "image with transparency": 1, "tiny image": 1, "huge image": 1,
        "id that another row has": 1,
    }  # fmt: skip
    [twice] = report.examples["id that another row has"]
    assert "rows.jsonl:1 and" in twice and "rows.jsonl:5" in twice


def conversation(count, image_in=0):
    turns = []
    for number in range(count):
        mark = (IMAGE,) if number == image_in else ()
        turns += [Turn("user", (*mark, f"What color is the shape {number}?")), Turn("assistant", "red " * 5)]
    return Sample("s", Conversation(tuple(turns), (tiny.png(tiny.picture("red")),)), ("red",))


def test_turns_are_dropped_whole_from_the_end_with_their_images(processor):
    long = conversation(30)
    with pytest.raises(DataError, match="holds 192"):
        fit_context(long, processor)
    fitted, dropped = fit_context(long, processor, "drop_turns")
    kept = fitted.conversation.turns
    assert kept == long.conversation.turns[: len(kept)] and kept[-1].role == "assistant" and dropped == 60 - len(kept)
    assert processor.lengths([fitted.conversation])[0] < 192 and len(fitted.images) == 1
    late = fit_context(conversation(30, image_in=29), processor, "drop_turns").sample
    assert late.images == () and late.image_ids == ()
    assert fit_context(conversation(1), processor, "drop_turns").dropped == 0


def test_one_exchange_that_is_too_long_is_refused_all_the_same(processor):
    long = Sample("s", Conversation.ask("Is there a red circle? " * 60, (), "yes"))
    samples = ContextFit(Listed([long]), processor, "drop_turns")
    with pytest.raises(DataError, match="sample 's': the prompt has"):
        samples[0]


def test_what_was_shortened_is_counted(processor):
    samples = ContextFit(Listed([conversation(30), conversation(1)]), processor, "drop_turns")
    assert [len(one.conversation.turns) for one in samples][1] == 2 and samples.shortened[0] > 0 == samples.shortened[1]


def test_the_tokens_that_carry_loss_are_marked(processor):
    shown = show_sample(conversation(2), "here:1", processor)
    text = "".join(segment.text for segment in shown.segments)
    learnt = [segment.text for segment in shown.segments if segment.learnt]
    assert len(learnt) == 2 and all("red red" in piece for piece in learnt) and PLACE in text
    by_turns = show_sample(conversation(2), "here:1", None)
    assert [segment.text for segment in by_turns.segments if segment.learnt] == ["red " * 5] * 2


def test_a_page_escapes_everything(tmp_path):
    evil = "<script>alert(1)</script>"
    sample = Sample("s", Conversation.ask(evil, (), evil))
    write_page(tmp_path / "page.html", evil, [show_sample(sample, evil, None)], [(evil, 1)])
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page and page.count("&lt;script&gt;") == 6 and "<mark>" in page
    with pytest.raises(DataError, match="cannot be written"):
        write_page(tmp_path / "no" / "page.html", "a", [])


def test_a_recipes_rows_are_checked_once_each(photos):
    (photos / "a.jsonl").write_text("\n".join([json.dumps(GOOD)] * 6))
    tiny.register()
    files = DataSource(format="jsonl", path=str(photos / "a.jsonl"), hold_out={"test": 0.5})
    named = DataSource(format="dataset", name="tiny")
    splits = ("train", "validation", "test", "test")
    assert len(samples_to_check([files], splits)) == 6
    each_split = sum(len(tiny.dataset(split)) for split in splits[:3])
    assert len(samples_to_check([files, named], splits)) == 6 + each_split


@pytest.mark.parametrize(
    ("row", "format"),
    [
        (GOOD, "jsonl"), ({"conversations": []}, "llava"), ({"instruction": "a"}, "instructions"),
        ({"image": "a", "caption": "b"}, "captions"), ({"text_list": []}, "interleaved"),
    ],
)  # fmt: skip
def test_the_format_is_guessed(tmp_path, row, format):
    (tmp_path / "a.json").write_text(json.dumps([row]))
    assert guess_format(tmp_path / "a.json") == format
    with pytest.raises(RecipeError, match="no recipe and no file"):
        guess_format(tmp_path / "b.json")
