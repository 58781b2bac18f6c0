"""Names from lists and files, texts that fit a model, and embeddings that stay on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from moai_transformers import OWLv2
from moai_transformers.boxes import Found, detections, join, suppress
from moai_transformers.chunking import chunks, name_scores, text_of, token_labels, written
from moai_transformers.coco import THINGS
from moai_transformers.embeddings import cached
from moai_transformers.vocabulary import names_of

from moai.errors import ExpertError
from moai.types import Detection


def test_names_come_from_a_list_a_file_or_coco(tmp_path):
    assert names_of(("Cat", " red  dog ", "cat", "")) == ("Cat", "red dog")
    assert names_of("coco") == THINGS
    file = tmp_path / "names.txt"
    file.write_text("\ufeffzebra\r\n\r\nred panda\r\n", encoding="utf-8")
    assert names_of(str(file)) == ("zebra", "red panda")


@pytest.mark.parametrize(
    ("vocabulary", "says"),
    [
        ("cocoo", "did you mean 'coco'"),
        ((), "vocabulary is empty"),
        (("  ",), "vocabulary is empty"),
        (("x" * 300,), "300 characters; at most 256"),
    ],
)
def test_bad_vocabularies_are_a_sentence(vocabulary, says):
    with pytest.raises(ExpertError, match=says):
        names_of(vocabulary)


def test_a_file_that_is_not_text_is_a_sentence(tmp_path):
    (tmp_path / "names.txt").write_bytes(b"\xff\xfe\x00c")
    with pytest.raises(ExpertError, match="cannot be read as UTF-8"):
        names_of(str(tmp_path / "names.txt"))


def test_another_content_of_the_file_is_another_cache_key(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("cat\n")
    expert = OWLv2(model="owner/none", vocabulary=str(file))
    before = expert.weights_id()
    assert before == OWLv2(model="owner/none", vocabulary=str(file)).weights_id()
    file.write_text("dog and cat\n")
    assert expert.weights_id() != before


def test_a_text_holds_as_many_names_as_fit():
    names = ["a", "b b", "c", "d d d", "e"]
    groups = chunks(names, lambda name: len(name.split()), tokens=7, most=80)
    assert groups == [[0, 1], [2], [3], [4]]
    for group in groups:
        assert sum(len(names[i].split()) + 1 for i in group) + 2 <= 7
    assert chunks(names, lambda name: 1, tokens=256, most=2) == [[0, 1], [2, 3], [4]]
    with pytest.raises(ExpertError, match="'d d d' alone has 3; shorten it"):
        chunks(names, lambda name: len(name.split()), tokens=5, most=80)


def test_separators_in_a_name_do_not_split_it():
    assert written("St. Bernard?") == "st bernard"
    assert text_of(["st bernard", "cat"]) == "st bernard. cat."
    with pytest.raises(ExpertError, match="nothing but separators"):
        written("...")


def test_tokens_are_led_back_to_names():
    ids = [101, 7, 8, 1012, 9, 1012, 102]
    labels = token_labels(ids, 1012, 2)
    assert labels.tolist() == [-1, 0, 0, -1, 1, -1, -1]
    with pytest.raises(ExpertError, match="made 2 names of 3"):
        token_labels(ids, 1012, 3)
    probabilities = np.array([[0.9, 0.1, 0.3, 0.8, 0.2, 0.7, 0.6, 0.99]])
    assert name_scores(probabilities, labels, 2).tolist() == [[0.3, 0.2]]


def test_embeddings_are_computed_once_and_damage_is_noticed(tmp_path, caplog):
    calls = []

    def compute():
        calls.append(1)
        return torch.arange(6.0).reshape(2, 3)

    for _ in range(2):
        assert torch.equal(cached(["weights", ("a", "b")], compute), torch.arange(6.0).reshape(2, 3))
    assert len(calls) == 1
    cached(["weights", ("a", "c")], compute)
    assert len(calls) == 2
    files = sorted((tmp_path / "cache" / "text-embeddings").iterdir())
    assert len(files) == 2 and all(file.suffix == ".safetensors" for file in files)
    for damage in (lambda data: data[:-1], lambda data: data[:-1] + b"\x01", lambda data: b""):
        for file in files:
            file.write_bytes(damage(file.read_bytes()))
        before = len(calls)
        assert torch.equal(cached(["weights", ("a", "b")], compute), torch.arange(6.0).reshape(2, 3))
        assert len(calls) == before + 1 and "computed again" in caplog.text


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "file"))
    assert cached(["x"], lambda: torch.ones(1)).tolist() == [1.0]
    assert "were not cached" in caplog.text


def found(boxes, scores, labels):
    return Found(np.array(boxes, np.float32), np.array(scores, np.float32), np.array(labels, np.int64))


def test_overlapping_boxes_are_suppressed_per_label_or_across():
    box, near, far = (0.1, 0.1, 0.5, 0.5), (0.1, 0.1, 0.5, 0.52), (0.6, 0.6, 0.9, 0.9)
    raw = found([box, near, near, far], [0.5, 0.9, 0.4, 0.3], [0, 0, 1, 0])
    assert [round(float(s), 2) for s in suppress(raw, 0.5).scores] == [0.9, 0.4, 0.3]
    assert [round(float(s), 2) for s in suppress(raw, 0.5, across_labels=True).scores] == [0.9, 0.3]
    assert len(suppress(found(np.zeros((0, 4)), [], []), 0.5).scores) == 0
    assert join([raw, raw]).boxes.shape == (8, 4)


def test_detections_are_clipped_sorted_and_limited():
    raw = found([(-0.5, 0.2, 0.5, 1.5), (1.1, 0.1, 1.4, 0.3), (0.1, 0.1, 0.2, 0.2)], [0.3, 0.9, 0.8], [0, 1, 1])
    assert detections(raw, ("cat", "dog"), 9) == (
        Detection("dog", 0.8, (0.1, 0.1, 0.2, 0.2)),
        Detection("cat", 0.3, (0.0, 0.2, 0.5, 1.0)),
    )
    assert len(detections(raw, ("cat", "dog"), 1)) == 1
