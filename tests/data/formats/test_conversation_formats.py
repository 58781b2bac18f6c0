"""The formats jsonl, llava and instructions: what a row becomes, and what a bad one says."""

from __future__ import annotations

import json

import pytest

from moai.errors import DataError
from moai.types import IMAGE


@pytest.fixture
def read(photos, opened):
    """Write rows beside the pictures, and open them."""

    def read_it(format, rows, **keys):
        path = photos / "rows.jsonl"
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
        return opened(format, path, **keys)

    return read_it


def turns(sample):
    return [(turn.role, turn.content) for turn in sample.conversation.turns]


def test_a_question_about_a_picture(read, photos):
    [one] = read("jsonl", [{"image": "red.png", "question": "What color?", "answer": "red", "kind": "color", "id": 7}])
    assert turns(one) == [("user", (IMAGE, "What color?")), ("assistant", ("red",))]
    assert one.images == (photos / "red.png",) and one.image_ids == ((photos / "red.png").as_posix(),)
    assert (one.id, one.kind, one.answers) == ("7", "color", ("red",))


def test_ids_are_the_rows_own_or_file_and_line(read):
    rows = read("jsonl", ["", {"question": "a?", "answer": 1}, "", {"question": "b?", "answer": "c", "id": "x"}])
    assert [row.id for row in rows] == ["rows.jsonl:2", "x"]
    assert rows[0].answer == "1"


@pytest.mark.parametrize("key", ["image", "images"])
def test_an_image_is_one_name_and_a_list_is_several(read, key):
    one, two, none = read("jsonl", [
        {key: "red.png", "question": "?", "answer": "a"},
        {key: ["red.png", "blue.png"], "question": "?", "answer": "a"},
        {key: None, "question": "?", "answer": "a"},
    ])  # fmt: skip
    assert [len(sample.images) for sample in (one, two, none)] == [1, 2, 0]


def test_messages_place_their_images(read):
    rows = read("jsonl", [
        {"images": ["red.png", "blue.png"], "messages": [
            {"role": "user", "content": "<image>\nand <image>?"}, {"role": "assistant", "content": "two"}]},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [
            {"type": "text", "text": "look: "}, {"type": "image", "path": "red.png"}]},
            {"role": "assistant", "content": "red"}]},
        {"image": "red.png", "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "a"}]},
    ])  # fmt: skip
    first, second, third = rows
    assert turns(first)[0][1] == (IMAGE, "and ", IMAGE, "?")
    assert turns(second)[1][1] == ("look: ", IMAGE) and len(second.images) == 1
    assert turns(third)[0][1] == (IMAGE, "?")


def test_a_question_keeps_what_looks_like_a_place_and_control_tokens_stay_text(read):
    [one] = read("jsonl", [{"image": "red.png", "question": "<image> <|im_end|>?", "answer": "a"}])
    assert turns(one)[0][1] == (IMAGE, "<image> <|im_end|>?")


def test_a_marker_can_be_another_or_none(read):
    row = {"messages": [{"role": "user", "content": "what is <image>?"}, {"role": "assistant", "content": "a tag"}]}
    [one] = read("jsonl", [row], options={"marker": None})
    assert turns(one)[0][1] == ("what is <image>?",)
    with pytest.raises(DataError, match="1 image place for 0 images"):
        read("jsonl", [row])[0]


def test_placeholders_can_be_refused(read):
    rows = [{"image": "red.png", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "a"}]}]
    assert turns(read("llava", rows)[0])[0][1] == (IMAGE, "?")
    with pytest.raises(DataError, match="1 image without a place in the text; write it, or set placeholders: insert"):
        read("llava", rows, placeholders="refuse")[0]


def llava(*values, **keys):
    return {**keys, "conversations": [{"from": ("human", "gpt")[n % 2], "value": v} for n, v in enumerate(values)]}


def test_llavas_file_is_an_array_with_ids_of_any_type_and_rows_without_images(photos, opened):
    rows = [
        llava("<image>\nWhat color?", "red", "And now?", "red", id="000000033471", image="red.png"),
        llava("Hello", "Hi", id=5),
        llava("Compare.\n<image>\n<image>", "two", id=None, image=["red.png", "blue.png"]),
    ]
    (photos / "llava.json").write_text(json.dumps(rows, indent=1))
    first, second, third = opened("llava", photos / "llava.json")
    assert turns(first) == [
        ("user", (IMAGE, "What color?")), ("assistant", ("red",)), ("user", ("And now?",)), ("assistant", ("red",)),
    ]  # fmt: skip
    assert (first.id, second.id, second.images) == ("000000033471", "5", ())
    assert turns(third)[0][1] == ("Compare.", IMAGE, IMAGE) and third.id.startswith("llava.json:")


def test_instructions_have_an_input_or_none(read):
    one, two = read("instructions", [
        {"instruction": "Add.", "input": "1 2", "output": "3"}, {"instruction": "Greet.", "input": "", "output": "Hi"},
    ], options={"system": "Be brief."})  # fmt: skip
    assert turns(one) == [("system", ("Be brief.",)), ("user", ("Add.\n\n1 2",)), ("assistant", ("3",))]
    assert turns(two)[1] == ("user", ("Greet.",))


@pytest.mark.parametrize(
    ("format", "row", "said"),
    [
        ("jsonl", {"image": "red.png", "question": "?"}, r"no key 'answer' \(keys: image, question\)"),
        ("jsonl", {"question": "?", "answer": None}, "'answer' is NoneType; write a text"),
        ("jsonl", {"question": "?", "answer": " "}, "turn 2 has an empty answer"),
        ("jsonl", {"question": "", "answer": "a"}, "turn 1 has an empty text"),
        ("jsonl", {"question": "?", "answer": "a", "answers": "a"}, "answers is a list of texts"),
        ("jsonl", {"image": "a", "images": ["a"], "question": "?", "answer": "a"}, "image or images, not both"),
        ("jsonl", {"image": "gone.png", "question": "?", "answer": "a"}, "gone.png is missing"),
        ("jsonl", {"image": "empty.png", "question": "?", "answer": "a"}, r"empty.png is empty \(0 bytes\)"),
        ("jsonl", {"image": "../secret.png", "question": "?", "answer": "a"}, "leads out of"),
        ("jsonl", {"image": "/etc/passwd", "question": "?", "answer": "a"}, "leads out of"),
        ("jsonl", {"image": "http://a/b.png", "question": "?", "answer": "a"}, "is no file name; download"),
        ("jsonl", {"image": "a\0b", "question": "?", "answer": "a"}, "is no file name"),
        ("jsonl", {"image": "n" * 5000, "question": "?", "answer": "a"}, "is missing"),
        ("jsonl", {"image": 5, "question": "?", "answer": "a"}, "an image is a file name, not 5"),
        ("jsonl", {"image": [["red.png"]], "question": "?", "answer": "a"}, "an image is a file name"),
        ("jsonl", {"messages": "hello"}, "messages is str; write a list"),
        ("jsonl", {"messages": []}, "no turns; write a question and an answer"),
        ("jsonl", {"messages": [{"role": "user"}]}, "a message is {role, content}"),
        ("jsonl", {"messages": [{"role": "tool", "content": "a"}]}, "with a role of system, user, assistant"),
        ("jsonl", {"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "text or image, not 'audio'"),
        ("jsonl", {"messages": [{"role": "assistant", "content": "a"}]}, r"turns out of order \(assistant\)"),
        ("llava", {"conversations": None}, "no list 'conversations'"),
        ("llava", llava("a"), r"turns out of order \(user\); user and assistant alternate, and an answer ends them"),
        ("llava", llava("<image>", "b"), "1 image place for 0 images"),
        ("llava", llava("<image><image>", "b", image="red.png"), "2 image places for 1 image"),
        ("llava", llava("a", 5), "a turn's text is int"),
        ("llava", {"conversations": [{"from": "bing", "value": "a"}]}, "a turn is {from, value}"),
        ("instructions", {"instruction": "a"}, "no key 'output'"),
        ("instructions", {"instruction": ["a"], "output": "b"}, "'instruction' is list"),
    ],
)  # fmt: skip
def test_a_bad_row_names_its_place_and_the_fix(read, photos, format, row, said):
    (photos / "empty.png").touch()
    good = {"instruction": "a", "output": "b", "question": "?", "answer": "a", **llava("a", "b")}
    rows = read(format, [good, row])
    assert rows[0].answer
    with pytest.raises(DataError, match=rf"rows.jsonl:2: .*{said}"):
        rows[1]


def test_absolute_names_are_for_an_absolute_folder(read, photos):
    row = {"image": str(photos / "red.png"), "question": "?", "answer": "a"}
    assert read("jsonl", [row], images=str(photos))[0].images == (photos / "red.png",)
    with pytest.raises(DataError, match="leads out of"):
        read("jsonl", [row])[0]
