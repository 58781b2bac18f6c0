"""The recipes `photos` and `quickstart`: words alone, and their experts say what the data set says."""

from __future__ import annotations

from moai_photographs.photographs import questions
from moai_words.experts import DERIVED

from moai.recipe.loading import load_recipe
from moai.recipe.places import find_recipe


def test_it_is_found_and_its_experts_have_the_options_of_the_data_set():
    recipe = load_recipe(find_recipe("photos"))
    assert recipe.vision.kind == "none" and recipe.data.sources[0].name == "words"
    assert DERIVED.items() <= recipe.perception.options.items()
    assert set(DERIVED) < set(recipe.perception.experts)
    answered = sum(stage.steps * stage.batch_size for stage in recipe.stages if stage.objective == "answers")
    assert recipe.stages[0].samples >= 20_000 > answered


def test_the_quickstart_is_photos_with_less_to_train_on():
    photos, quick = load_recipe(find_recipe("photos")), load_recipe(find_recipe("quickstart"))
    same = ("host", "vision", "perception", "compressor", "mixer", "training")
    assert all(getattr(photos, name) == getattr(quick, name) for name in same)
    assert [stage.name for stage in quick.stages] == [stage.name for stage in photos.stages]
    for ours, theirs in zip(quick.stages, photos.stages, strict=True):
        assert ours.steps < theirs.steps and ours.train == theirs.train and ours.batch_size <= theirs.batch_size
    scenes = [next(s.options["scenes"] for s in one.data.sources if s.splits == ("train",)) for one in (quick, photos)]
    assert scenes[0] < scenes[1] <= 4096  # states of words in context that are cached


def test_the_quickstart_is_in_english_and_evaluated_on_all_test_photographs():
    quick = load_recipe(find_recipe("quickstart"))
    words, tested = quick.data.sources[:-1], quick.data.sources[-1]
    assert all(source.name == "words" and source.options["languages"] == {} for source in words)
    assert tested.name == "photographs" and quick.evaluation.split == "test" in tested.splits
    assert tested.options["experts"] == DERIVED
    asked = [question for question in questions() if question["split"] == "test"]
    assert quick.evaluation.limit >= len(asked) > 200
    assert set(quick.evaluation.conditions) == {"on", "off", "shuffled"}
