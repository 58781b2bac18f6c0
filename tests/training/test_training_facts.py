"""What plans need of samples: read when it is asked for, where files are indexed and rows are many."""

import json

import numpy as np
import pytest
import tiny

from moai.data.samples import Listed, Selected
from moai.data.sources import open_sources
from moai.errors import RecipeError
from moai.recipe.sections import DataSource
from moai.recipe.stages import Stage
from moai.training import facts as module
from moai.training.epochs import check_kinds
from moai.training.facts import SampleFacts, text_code


@pytest.fixture
def written(tmp_path):
    """A function that writes rows of text and opens them."""

    def write(count, **keys):
        rows = [{"question": f"q{n % 3}?", "answer": "a" * (n % 7 + 1), "kind": "ab"[n % 2]} for n in range(count)]
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return open_sources([DataSource(format="jsonl", path=str(tmp_path / "rows.jsonl"), **keys)], "train")

    return write


class Counted:
    """Counts conversations whose lengths are asked for."""

    def __init__(self):
        self.count = 0

    def __call__(self, conversations):
        self.count += len(conversations)
        return [len(one.turns[-1].text) for one in conversations]


def test_rows_of_large_files_are_read_when_they_are_asked_for(written, monkeypatch):
    monkeypatch.setattr(module, "AHEAD", 20)
    counted, notes = Counted(), []
    facts = SampleFacts(written(21), counted, notes.append)
    facts.read_ahead()
    assert facts.lazy and facts.digest and counted.count == 0
    assert facts.lengths(np.array([3, 1])).tolist() == [4, 2] and counted.count == 2
    check_kinds(facts, [Stage(name="s", steps=1)])
    assert not notes, "no stage asks for kinds"
    assert facts.kind_codes()[:2].tolist() == [text_code("a"), text_code("b")] and len(notes) == 1
    assert facts.pair_codes()[4].tolist() == [text_code("q1?"), text_code("aaaaa")]
    assert facts.kind_names() == {"a", "b"}
    again = SampleFacts(written(21), counted, notes.append)
    assert again.pair_codes()[4].tolist() == facts.pair_codes()[4].tolist() and len(notes) == 1, "from the cache"
    with pytest.raises(RecipeError, match="sampling_rate_by_type: no sample is of kind 'c'"):
        check_kinds(again, [Stage(name="s", steps=1, sampling_rate_by_type={"c": 0.5})])
    with pytest.raises(RecipeError, match="leaves no samples"):
        check_kinds(again, [Stage(name="s", steps=1, sampling_rate_by_type={"a": 0.0, "b": 0.0})])
    other = SampleFacts(written(21, options={"marker": None}), counted, notes.append, "another format")
    assert other.kind_codes().tolist() == facts.kind_codes().tolist() and len(notes) == 2, "made anew"


def test_small_files_and_samples_in_memory_are_read_once_ahead(written, monkeypatch):
    monkeypatch.setattr(module, "AHEAD", 20)
    counted = Counted()
    for samples in (written(20), Listed(tiny.dataset("train"))):
        facts = SampleFacts(samples, counted)
        facts.read_ahead()
        assert not facts.lazy and counted.count == len(samples)
        facts.lengths(np.arange(5)), facts.kind_codes(), facts.pair_codes()
        assert counted.count == len(samples)
        counted.count = 0


def test_the_digest_is_of_contents_and_of_what_is_drawn(written):
    whole = written(9)
    digests = [SampleFacts(one, Counted()).digest for one in (whole, Selected(whole, [0, 1]), Selected(whole, [1, 0]))]
    assert len(set(digests)) == 3
    held = SampleFacts(written(9, hold_out={"test": 0.5}), Counted()).digest
    assert held not in digests and held == SampleFacts(written(9, hold_out={"test": 0.5}), Counted()).digest
    listed = [SampleFacts(Listed(tiny.dataset(split)), Counted()).digest for split in ("train", "train", "test")]
    assert listed[0] == listed[1] != listed[2]
