"""The formats captions, interleaved, vqa and hf: what a row becomes, and what a bad one says."""

from __future__ import annotations

import io
import json
import sys
import tarfile

import pytest
import tiny

from moai.errors import DataError, RecipeError
from moai.images import read_image
from moai.types import IMAGE


def turns(sample):
    return [(turn.role, turn.content) for turn in sample.conversation.turns]


def lines(path, *rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def sizes(samples):
    return [read_image(image).size for sample in samples for image in sample.images]


# --- captions --------------------------------------------------------------------------------------------------------


def test_captions_of_a_folder_lie_beside_the_pictures(photos, opened):
    for color in ("red", "blue", "ghost"):
        (photos / f"{color}.txt").write_text(f"a {color} shape\n")
    (photos / "blue.txt").write_bytes(b"\xff")
    samples = opened("captions", photos)
    good = {sample.id: sample for sample in (samples[n] for n in range(5) if "red" in samples.place(n))}
    assert turns(good["red.png"]) == [("text", (IMAGE, "a red shape"))]
    assert good["red.png"].conversation.loss == "all" and sizes(good.values()) == [(64, 64)]
    said = []
    for number in range(len(samples)):
        try:
            samples[number]
        except DataError as error:
            said.append(f"{error.problem}: {error}")
    assert len(said) == 4 and any("no text beside black.png" in one for one in said)
    assert any("no picture beside ghost.txt" in one for one in said) and any("save it as UTF-8" in one for one in said)


def test_captions_of_rows_can_answer_a_prompt(photos, opened):
    path = lines(photos / "c.jsonl", {"image": "red.png", "caption": "a red shape"}, {"image": [], "caption": "b"})
    samples = opened("captions", path, options={"prompt": "What is it?"})
    assert turns(samples[0]) == [("user", (IMAGE, "What is it?")), ("assistant", ("a red shape",))]
    with pytest.raises(DataError, match="c.jsonl:2: 0 images for one caption"):
        samples[1]


def shard(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_captions_of_tar_shards_are_read_where_they_lie(tmp_path, opened, mixed):
    picture = tiny.png(tiny.picture("red"))
    shard(tmp_path / "s-0.tar", [
        ("0.png", picture), ("0.json", b'{"caption": "from json"}'), ("0.txt", b"a red shape\n"), ("0.cls", b"1"),
        ("sub/1.json", b'{"caption": "another"}'), ("sub/1.png", picture),
    ])  # fmt: skip
    shard(tmp_path / "s-1.tar", [("2.txt", b"no picture"), ("3.png", b""), ("3.txt", b"empty")])
    samples = opened("captions", tmp_path / "s-*.tar")
    assert [one.conversation.turns[0].text for one in (samples[0], samples[1])] == ["a red shape", "another"]
    assert samples[0].image_ids == (f"{tmp_path}/s-0.tar:1",) and sizes([samples[1]]) == [(64, 64)]
    with pytest.raises(DataError, match="s-1.tar:1: a pair has no image"):
        samples[2]
    with pytest.raises(DataError, match="s-1.tar:2: the image is empty"):
        samples[3]
    held = mixed({"format": "captions", "path": str(tmp_path / "s-0.tar"), "hold_out": {"test": 0.999}}, split="test")
    assert len(held) == 2


def test_a_shard_that_is_none_or_holds_links_is_refused(tmp_path, opened):
    (tmp_path / "a.tar").write_bytes(b"not a tar file")
    with pytest.raises(DataError, match="is no plain tar file"):
        opened("captions", tmp_path / "a.tar")
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        link = tarfile.TarInfo("0.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(DataError, match="is a link or a device"):
        opened("captions", tmp_path / "b.tar")


# --- interleaved -----------------------------------------------------------------------------------------------------


def obelics(*pieces):
    return {
        "texts": [None if piece.endswith(".png") else piece for piece in pieces],
        "images": [piece if piece.endswith(".png") else None for piece in pieces],
    }


def test_documents_keep_their_order_and_end_before_an_image_too_many(photos, opened):
    path = lines(photos / "d.jsonl", obelics("a", "red.png", "b", "blue.png", "c", "red.png", "d"))
    [whole] = opened("interleaved", path)
    assert turns(whole) == [("text", ("a", IMAGE, "b", IMAGE, "c", IMAGE, "d"))]
    [short] = opened("interleaved", path, options={"max_images": 2})
    assert turns(short) == [("text", ("a", IMAGE, "b", IMAGE, "c"))] and len(short.images) == 2


def test_half_of_the_documents_with_one_image_are_left_out_and_counted(photos, opened, caplog):
    rows = [obelics(f"text {n}", "red.png") for n in range(100)] + [obelics("a", "red.png", "blue.png", "b")] * 5
    path = lines(photos / "d.jsonl", *rows)
    kept = opened("interleaved", path)
    assert 30 < len(kept) - 5 < 70 and f"{105 - len(kept)} of 105 documents are left out" in caplog.text
    assert [one.id for one in opened("interleaved", path)] == [one.id for one in kept]
    assert len(opened("interleaved", path, options={"keep_single": 1})) == 105


def test_mmc4_places_images_before_their_texts(photos, opened):
    info = [{"image_name": "red.png", "matched_text_index": 1}, {"image_name": "blue.png", "matched_text_index": 1}]
    path = lines(photos / "d.jsonl", {"text_list": ["One.", "Two.", "Three."], "image_info": info})
    assert turns(opened("interleaved", path)[0]) == [("text", ("One. ", IMAGE, IMAGE, "Two. ", "Three."))]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"texts": ["a"], "images": []}, "lists of one length"),
        ({"texts": [None], "images": [None]}, "not both and not neither"),
        ({"texts": [5], "images": [None]}, "a text of the document is int"),
        ({"text_list": ["a"], "image_info": [{"image_name": "a"}]}, "matched_text_index from 0 to 0"),
        ({"text": "a"}, "choose another format"),
        (obelics("red.png", "blue.png"), "a document without any text"),
    ],
)
def test_a_bad_document_names_its_place(photos, opened, row, said):
    with pytest.raises(DataError, match=rf"d.jsonl:1: .*{said}"):
        opened("interleaved", lines(photos / "d.jsonl", row), options={"keep_single": 1})[0]


# --- vqa -------------------------------------------------------------------------------------------------------------


def test_gqa_and_textvqa(photos, opened):
    gqa = {"07": {"imageId": "red", "question": "What color?", "answer": "red"}}
    (photos / "gqa.json").write_text(json.dumps(gqa))
    keys = {"images": str(photos), "options": {"image_name": "{image_id}.png"}}
    [one] = opened("vqa", photos / "gqa.json", **keys)
    assert (one.id, one.answer, turns(one)[0][1]) == ("07", "red", (IMAGE, "What color?"))
    text = {"data": [{"question_id": 3, "image_id": "blue", "question": "?", "answers": ["b", "a", "b"]}]}
    (photos / "text.json").write_text(json.dumps(text))
    [one] = opened("vqa", photos / "text.json", **keys)
    assert (one.answer, one.answers) == ("b", ("b", "a"))


def test_vqav2_fills_ids_with_zeros_and_needs_its_annotations(photos, opened):
    (photos / "red.png").rename(photos / "COCO_000000000009.png")
    asked = [{"question_id": number, "image_id": 9, "question": "?"} for number in (1, 2)]
    (photos / "q.json").write_text(json.dumps({"questions": asked}))
    answer = {"answer_type": "number", "multiple_choice_answer": "two", "answers": [{"answer": "two"}]}
    (photos / "a.json").write_text(json.dumps({"annotations": [{"question_id": 1, **answer}]}))
    options = {"annotations": str(photos / "a.json"), "image_name": "COCO_{image_id:012d}.png"}
    samples = opened("vqa", photos / "q.json", options=options)
    assert (samples[0].answer, samples[0].kind) == ("two", "number")
    with pytest.raises(DataError, match="q.json:2: no answer; check that the annotations"):
        samples[1]
    with pytest.raises(RecipeError, match="set annotations in options"):
        opened("vqa", photos / "q.json")
    with pytest.raises(RecipeError, match="image_name needs {image_id}"):
        opened("vqa", photos / "q.json", options={"image_name": "{image_id.__class__}"})


def test_a_file_of_another_layout_is_a_sentence(photos, opened):
    for content, said in (("[1]", "none of the layouts"), ("{", "is no JSON"), ('{"a": 1}', "none of the layouts")):
        (photos / "a.json").write_text(content)
        with pytest.raises(DataError, match=said):
            opened("vqa", photos / "a.json")


# --- hf --------------------------------------------------------------------------------------------------------------


def test_parquet_with_images_in_it(tmp_path, opened, mixed):
    datasets = pytest.importorskip("datasets")
    rows = [{"picture": {"bytes": tiny.png(tiny.picture(color)), "path": None}, "question": "?", "answer": color}
            for color in tiny.COLORS]  # fmt: skip
    features = datasets.Features(
        {"picture": datasets.Image(), "question": datasets.Value("string"), "answer": datasets.Value("string")}
    )
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "a.parquet")
    keys = {"options": {"columns": {"image": "picture"}}}
    samples = opened("hf", tmp_path / "a.parquet", **keys)
    assert [one.answer for one in samples] == list(tiny.COLORS) and sizes(samples) == [(64, 64)] * 4
    assert len({one.image_ids for one in samples}) == 4 and samples.place(1).endswith("a.parquet:2")
    source = {"format": "hf", "path": str(tmp_path / "a.parquet"), "hold_out": {"test": 0.5}, **keys}
    assert len(mixed(source)) + len(mixed(source, split="test")) == 4
    with pytest.raises(RecipeError, match="has no column 'b'; known: picture, question, answer"):
        opened("hf", tmp_path / "a.parquet", options={"columns": {"a": "b"}})
    (tmp_path / "b.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="b.parquet cannot be loaded"):
        opened("hf", tmp_path / "b.parquet")


def test_a_hub_id_that_cannot_be_reached_is_one_sentence(monkeypatch, opened):
    datasets = pytest.importorskip("datasets")

    def unreachable(*given, **settings):
        raise ConnectionError("Couldn't reach 'a/b' on the Hub\n  (LocalEntryNotFoundError)")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError) as error:
        opened("hf", name="a/b")
    assert str(error.value) == (
        "a/b cannot be loaded (ConnectionError: Couldn't reach 'a/b' on the Hub (LocalEntryNotFoundError)); check the "
        "name, the split and the network"
    )


def test_a_data_set_by_its_name_has_its_own_splits(tmp_path, mixed):
    """``datasets`` takes a folder for a name as it takes a hub id."""
    datasets = pytest.importorskip("datasets")
    for split, color in (("train", "red"), ("validation", "blue")):
        rows = [{"question": f"{split}?", "answer": color, "spare": None}] * 3
        datasets.Dataset.from_list(rows).to_parquet(tmp_path / f"{split}.parquet")
    for split, color in (("train", "red"), ("validation", "blue")):
        samples = mixed({"format": "hf", "name": str(tmp_path)}, split=split)
        assert [one.answer for one in samples] == [color] * 3


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch, opened):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(RecipeError, match=r"pip install 'moai-vlm\[data\]'"):
        opened("hf", tmp_path / "a.parquet")
    with pytest.raises(RecipeError, match="give data.sources a path or a name"):
        opened("hf")
