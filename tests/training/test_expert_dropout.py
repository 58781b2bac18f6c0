"""Expert dropout: which rows lose which expert, what they are given instead, and that a resumed run repeats it."""

from collections import Counter

import pytest
import tiny

import moai.training.trainer
from moai.data.collate import Collator
from moai.expert import Expert
from moai.plugins import registry
from moai.training.expert_dropout import ExpertDropout
from moai.training.log import read_log
from moai.training.trainer import train
from moai.types import Perception, Relation

NAMES = ("a", "b", "c")


def test_each_expert_is_lost_equally_often_and_together_they_have_their_share():
    lost = [expert for step in range(500) for expert in ExpertDropout(0, 0.3, NAMES).lost(step, 32)]
    counts = Counter(lost)
    assert abs(1 - counts[None] / len(lost) - 0.3) < 0.012  # three standard deviations of 16,000 draws
    assert all(abs(counts[name] / len(lost) - 0.1) < 0.008 for name in NAMES)


def test_a_row_depends_on_seed_step_and_row_alone():
    dropout = ExpertDropout(3, 0.5, NAMES)
    backwards = [dropout.lost(step, 8) for step in reversed(range(20))]
    assert backwards[::-1] == [ExpertDropout(3, 0.5, NAMES).lost(step, 8) for step in range(20)]
    assert dropout.lost(4, 3) == dropout.lost(4, 8)[:3]
    assert dropout.lost(4, 8) != dropout.lost(5, 8)
    assert ExpertDropout(4, 0.5, NAMES).lost(4, 8) != dropout.lost(4, 8)


def test_without_a_share_or_without_experts_nothing_is_lost():
    assert ExpertDropout(0, 0.0, NAMES).lost(0, 4) == [None] * 4
    assert ExpertDropout(0, 1.0, ()).lost(0, 4) == [None] * 4 and ExpertDropout(0, 1.0, ()).needed([[1, 2]]) == {}
    assert None not in ExpertDropout(0, 1.0, NAMES).lost(0, 50)


def test_only_what_is_drawn_is_perceived_again():
    dropout, batches = ExpertDropout(0, 0.4, NAMES), [[7, 8, 9], [1, 7, 2]]
    drawn = {(e, i) for step, batch in enumerate(batches) for e, i in zip(dropout.lost(step, 3), batch) if e}
    assert {(e, i) for e, indices in dropout.needed(batches).items() for i in indices} == drawn != set()


# In training --------------------------------------------------------------------------------------------------------


class TinyRelations(Expert):
    """Relates every segment to itself, so that it sees nothing where nobody finds segments."""

    name, role, version = "tiny-relations", "scene_graph", "1"
    requires = ("panoptic",)

    def perceive(self, images, context):
        """One relation per segment of the context."""
        return [
            Perception(relations=tuple(Relation(s.label, "is", s.label, 0.9, s.box, s.box) for s in seen.segments))
            for seen in context
        ]


def recipe(share):
    return tiny.recipe(
        perception={"experts": ["tiny-panoptic", "tiny-relations"]},
        training={"expert_dropout": share, "perception_dropout": 0.0},
    )


@pytest.fixture
def given(monkeypatch):
    """What training gave the collator, batch after batch; the monitor's batches are at the end of each third step."""
    monkeypatch.setitem(registry().experts, TinyRelations.name, TinyRelations)
    kept, call = [], Collator.__call__

    def watched(self, samples, perceptions, answers=True):
        kept.append(list(perceptions))
        return call(self, samples, perceptions, answers)

    monkeypatch.setattr(Collator, "__call__", watched)
    monkeypatch.setattr("moai.training.trainer.Monitor.measure", lambda self, model: {})
    return kept


def test_a_drawn_row_is_perceived_anew_by_the_others(tmp_path, given):
    train(recipe(0.6), tmp_path / "run")
    names = ("tiny-panoptic", "tiny-relations")
    lost = [expert for step in range(6) for expert in ExpertDropout(0, 0.6, names).lost(step, 4)]
    seen = [perception for batch in given for perception in batch]
    assert len(seen) == len(lost) == 24 and set(lost) == {None, *names}
    for expert, perception in zip(lost, seen):
        assert {source.expert for source in perception.sources} == set(names) - {expert}
        assert len(perception.segments) == (expert != "tiny-panoptic")
        assert len(perception.relations) == (expert is None), "relations need segments to build on"


def test_no_share_gives_every_row_everything(tmp_path, given):
    train(recipe(0.0), tmp_path / "run")
    assert all(len(perception.relations) == 1 for batch in given for perception in batch)


def test_a_resumed_run_loses_the_same_experts(tmp_path, given, monkeypatch):
    class Stop(Exception):
        pass

    whole = train(recipe(0.6), tmp_path / "whole")
    step = moai.training.trainer._Run._step

    def stopping(self, at, *rest):
        if at == 3:
            raise Stop
        return step(self, at, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(moai.training.trainer._Run, "_step", stopping)
        with pytest.raises(Stop):
            train(recipe(0.6), tmp_path / "cut")
    train(recipe(0.6), tmp_path / "cut", resume=True)
    assert [line["loss"] for line in read_log(whole)] == [line["loss"] for line in read_log(tmp_path / "cut")]
    assert (whole / "moai.safetensors").read_bytes() == (tmp_path / "cut" / "moai.safetensors").read_bytes()
