"""Benchmarks on a run with the host's own vision."""

import native_vision_families
import pytest
import tiny
from moai_lmms_eval.decoding import Decoding
from moai_lmms_eval.engine import Engine
from moai_lmms_eval.prompts import from_text

import moai

QUESTION = "What color is the shape?"


@pytest.mark.parametrize("family", native_vision_families.HOSTS)
def test_benchmarks_with_any_number_of_images(family):
    model, processor = tiny.made_of(native_vision_families.recipe(family))
    augmented = moai.Augmented(model, processor, processor.perceiver)
    red, blue, wide = tiny.picture("red"), tiny.picture("blue"), tiny.picture("green").resize((64, 32))
    prompts = [from_text(QUESTION, [red]), from_text("Two: <image> and <image>?", [blue, wide]), from_text("None?")]
    engine = Engine(augmented)
    together = engine.generate(prompts, Decoding(4))
    assert together == [engine.generate([prompt], Decoding(4))[0] for prompt in prompts]
    scores = engine.loglikelihood(prompts, ["red"] * 3)
    single = [engine.loglikelihood([prompt], ["red"])[0].logprob for prompt in prompts]
    assert [score.logprob for score in scores] == pytest.approx(single, abs=1e-3)
