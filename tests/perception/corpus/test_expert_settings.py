"""What decides an expert's findings identifies a corpus: names, versions, options, weights, and their order of work."""

from __future__ import annotations

import pytest

from moai.errors import CorpusError
from moai.expert import Expert, Options
from moai.perception.corpus.expert_settings import check_settings, expert_settings, settings_key


class Weighed(Expert):
    """Has weights."""

    name, role, version = "weighed", "ocr", "1"
    found: object = "sha"

    class Options(Options):
        size: int = 3

    def weights_id(self):
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def perceive(self, images, context):
        return []


class First(Weighed):
    """Runs before it is required."""

    name, role = "first", "panoptic"


class Last(Weighed):
    """Needs the other."""

    name, role, requires = "last", "scene_graph", ("panoptic",)


def changed(**attributes):
    options = attributes.pop("options", {})
    return type("Changed", (Weighed,), attributes)(**options)


def test_equal_settings_have_equal_keys_and_each_difference_another():
    same = settings_key(expert_settings([Weighed()], {}))
    assert same == settings_key(expert_settings([Weighed(size=3)], {})) and len(same) == 64
    others = [changed(version="2"), changed(found="other"), changed(options={"size": 4}), changed(role="panoptic")]
    assert len({same, *(settings_key(expert_settings([one], {})) for one in others)}) == 5


def test_experts_stand_in_the_order_in_which_they_run():
    assert expert_settings([Last(), First()], {}) == expert_settings([First(), Last()], {})
    assert [one["name"] for one in expert_settings([Last(), First()], {})] == ["first", "last"]


@pytest.mark.parametrize(
    ("expert", "difference"),
    [
        (changed(version="2"), "version '1' of expert 'weighed', and this run has '2'; fix it"),
        (changed(found="other"), "weights 'sha' of expert 'weighed', and this run has 'other'; fix it"),
        (changed(options={"size": 4}), 'options {"size": 3} of expert \'weighed\', and this run has {"size": 4}; fix'),
        (First(), "DIR was made by weighed, not by first; fix it"),
    ],
)
def test_a_difference_is_named(expert, difference):
    made, wanted = (expert_settings([one], {}) for one in (Weighed(), expert))
    check_settings(made, made, "DIR", "fix it")
    with pytest.raises(CorpusError) as caught:
        check_settings(made, wanted, "DIR", "fix it")
    assert difference in str(caught.value)


@pytest.mark.parametrize(("found", "reason"), [(OSError("gone"), "OSError: gone"), (5, "returned int, not str")])
def test_weights_that_cannot_be_identified_are_refused(found, reason):
    with pytest.raises(CorpusError, match=f"'weighed' cannot identify its weights .*{reason}"):
        expert_settings([changed(found=found)], {})
