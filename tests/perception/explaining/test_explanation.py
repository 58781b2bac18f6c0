"""Shares of words and findings: nothing is lost on the way from tokens to words, and what stands out is named."""

import json

import numpy as np
import pytest

from moai.perception.explaining.explanation import FRAME, MAP, build_explanation, split_words, token_word_matrix
from moai.perception.explaining.facts import FactSpan

TEXT = "Seen: [0.10, 0.20, 0.30, 0.40] red cup, blue cup."
FINDINGS = [FactSpan(6, 38, "panoptic", "x", ("shapes",)), FactSpan(40, 48, "open_world", "y", ("finder",))]


def explained(tokens=None, shares=None, maps=1):
    spans = tokens or [(0, 4), (4, 5), (5, 30), (30, 34), (34, 38), (38, 39), (39, 44), (44, 48), (48, 49)]
    count = len(spans) + maps
    shares = np.full(count, 1 / count) if shares is None else np.asarray(shares, dtype=float)
    read = np.zeros((2, count))
    read[0, 3], read[1] = 1.0, 1 / count
    gates = np.array([[0.8, 0.1, 0.1], [0.2, 0.4, 0.4]])
    layers = [(4, gates, gates, read, read)]
    return build_explanation(TEXT, FINDINGS, spans, ["what", "color"], layers, shares, (1, 2))


def test_words_belong_to_their_findings():
    words = split_words(TEXT, FINDINGS)
    assert [(word.text, word.finding) for word in words] == [
        ("Seen", -1), (":", -1), ("[0.10, 0.20, 0.30, 0.40]", 0), ("red", 0), ("cup", 0), (",", -1), ("blue", 1),
        ("cup", 1), (".", -1),
    ]  # fmt: skip
    assert all(TEXT[word.start : word.end] == word.text for word in words)


def test_tokens_are_distributed_whole():
    words = split_words(TEXT, FINDINGS)
    matrix = token_word_matrix(words, [(0, 6), (5, 6), (34, 43), (49, 49)], maps=2)
    assert matrix.sum(axis=1) == pytest.approx(np.ones(6))
    assert matrix[0, :2] == pytest.approx([0.8, 0.2])  # "Seen" and ":", white space counting for nobody
    assert matrix[1, 1] == 1.0 or matrix[1, 2] == 1.0  # white space alone goes to a neighbour
    assert matrix[2, [4, 5, 6]] == pytest.approx([3 / 7, 1 / 7, 3 / 7])
    assert matrix[3, 8] == 1.0 and (matrix[4:, -1] == 1.0).all()


def test_sources_are_ranked_and_add_up():
    found = explained(shares=[0.1, 0, 0.05, 0.4, 0.05, 0, 0.1, 0.1, 0, 0.2])
    sources = found.sources()
    assert [source.text for source in sources] == ["[0.10, 0.20, 0.30, 0.40] red cup", "blue cup", MAP, FRAME]
    assert [source.share for source in sources] == pytest.approx([0.5, 0.2, 0.2, 0.1])
    assert [source.even for source in sources] == pytest.approx([0.3, 0.2, 0.1, 0.4])
    assert sources[0].experts == ("shapes",) and sources[1].role == "open_world"


def test_the_sharpest_reading_names_token_layer_and_word():
    [first, *_] = explained().sharpest()
    assert (first.layer, first.token, first.gate) == (4, "what", 0.8)
    assert first.words[0] == ("red", 1.0)


def test_gates_keep_their_order_and_json_takes_all():
    found = explained()
    assert found.gates("image")[0] == pytest.approx([0.8, 0.1, 0.1])
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["modules"]["question"] == ["auxiliary", "image", "language"]
    assert plain["layers"][0]["words"]["question"][0] == {"3": 1.0}
    assert sum(source["share"] for source in plain["sources"]) == pytest.approx(1.0)


def test_nothing_seen_leaves_the_gates():
    gates = np.full((2, 3), 1 / 3)
    empty = np.zeros((2, 0))
    found = build_explanation("", [], [], ["what", "color"], [(0, gates, gates, empty, empty)], np.zeros(0))
    assert found.sources() == [] and found.sharpest() == [] and found.words == ()
    assert found.gates("question").shape == (2, 3) and json.dumps(found.to_dict())
