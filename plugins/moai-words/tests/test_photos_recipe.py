"""The recipe `photos`: words alone, and its experts say what the data set says."""

from __future__ import annotations

from moai_words.experts import DERIVED

from moai.recipe.loading import load_recipe
from moai.recipe.places import find_recipe


def test_it_is_found_and_its_experts_have_the_options_of_the_data_set():
    recipe = load_recipe(find_recipe("photos"))
    assert recipe.vision.kind == "none" and recipe.data.sources[0].name == "words"
    assert {name: recipe.perception.options[name] for name in DERIVED} == DERIVED
    photographs = next(source for source in recipe.data.sources if source.name == "photographs")
    assert photographs.options["experts"] == DERIVED and recipe.data.train_split not in photographs.splits
    assert set(DERIVED) < set(recipe.perception.experts)
    answered = sum(stage.steps * stage.batch_size for stage in recipe.stages if stage.objective == "answers")
    assert recipe.stages[0].samples >= 20_000 > answered
