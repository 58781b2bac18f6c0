"""What a dry run refuses before any weights are read, and what it says that it could not check."""

import pytest
import tiny

from moai.errors import ExpertError, HostError, RecipeError
from moai.training.check import check_recipe


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    for name in ("moai.model.run_folder.load_host", "moai.model.encoders.vision.build_vision"):
        monkeypatch.setattr(name, lambda *args, **kwargs: pytest.fail("weights are read"))


def test_a_recipe_that_fits_is_checked_whole():
    assert check_recipe(tiny.recipe()) == []
    assert check_recipe(tiny.recipe(perception={"options": {"tiny-panoptic": {}}, "context_layer": 3})) == []


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"perception": {"experts": ["tiny-panoptik"]}}, ExpertError, "did you mean 'tiny-panoptic'"),
        ({"perception": {"options": {"tiny-panoptic": {"size": 3}}}}, ExpertError, "has no option 'size'"),
        ({"perception": {"language": "tlh"}}, RecipeError, "no templates in language 'tlh'"),
        ({"perception": {"style": "papr"}}, RecipeError, "no style 'papr'"),
        ({"data": tiny.data("tinny")}, RecipeError, "did you mean 'tiny'"),
        ({"data": tiny.data("tiny", colour="red")}, RecipeError, "options does not fit data set 'tiny'"),
        ({"data": {"sources": [{"format": "jsonl", "options": {"marke": "x"}}]}}, RecipeError, "fit format 'jsonl'"),
        ({"data": {"sources": [{"format": "jsnl"}]}}, RecipeError, "did you mean 'jsonl'"),
        ({"vision": {"kind": "encoder", "connector": {"kind": "mpl"}}}, RecipeError, "did you mean 'mlp'"),
        ({"vision": {"kind": "encoder", "connector": {"options": {"depht": 2}}}}, RecipeError, "fit connector 'mlp'"),
        ({"mixer": {"layers": [0, 99]}}, HostError, "mixer in layer 99, but the host has layers 0 to 3"),
        ({"mixer": {"layers": None, "every": 9}}, HostError, "mixer.every is 9 and the host has 4 layers"),
        ({"perception": {"context_layer": 4}}, HostError, "context_layer is 4; this host takes 1 to 3"),
        ({"vision": {"kind": "host"}, "stages": [tiny.stage(train={"mixers": 1e-3})]}, HostError, "no vision-language"),
        ({"training": {"trainer": {"bf61": True}}}, RecipeError, "did you mean 'bf16'"),
    ],
)
def test_what_needs_no_weights_is_refused(changes, kind, said):
    with pytest.raises(kind, match=said):
        check_recipe(tiny.recipe(**changes))


def test_what_is_not_here_is_said(tmp_path):
    source = {"format": "jsonl", "path": {"train": str(tmp_path / "rows.jsonl"), "test": str(tmp_path / "*.jsonl")}}
    (host, *files) = check_recipe(tiny.recipe(host={"reference": "nobody/nothing"}, data={"sources": [source]}))
    assert "'nobody/nothing/config.json'" in host or "nobody/nothing" in host
    assert files == [f"the rows of data.sources: {tmp_path / name} is not there" for name in ("rows.jsonl", "*.jsonl")]
    (tmp_path / "rows.jsonl").touch()
    assert check_recipe(tiny.recipe(data={"sources": [source]})) == []
