"""Matching: words of the question are found among auxiliary words, each fact by itself, and it changes what is read."""

import pytest
import tiny
import torch

from moai.errors import PromptError, RecipeError
from moai.model.mixer.copying import NO_WORD
from moai.model.mixer.matching import directions, find_matches, with_matches
from moai.model.mixer.mixer import Mixer
from moai.training.objectives.attention import AttentionObjective

FACTS = {"style": "compact", "fact_context": True}
MIXER = {"question_context": 1.0, "match_words": 1.0, "null_token": True}
COMPRESSOR = {"latents": 40, "depth": 1, "heads": 2, "head_width": 16}


@pytest.fixture
def table():
    torch.manual_seed(0)
    made = torch.randn(20, 64)
    made[9] = made[8] + 0.3 * torch.randn(64)  # "dogs" beside "dog"
    return made


def test_a_fact_holds_words_of_the_question(table):
    # Two facts, "1 2 8" and "3 8", a token that starts from no word, and padding in the question.
    starts = torch.tensor([[[1, 0], [2, 0], [8, 0], [NO_WORD, 0], [3, 1], [8, 1], [NO_WORD, 1]]])
    question, words = torch.tensor([[5, 8, 1, 2]]), torch.tensor([[True, True, True, False]])
    own, fact = find_matches(question, words, starts, table, torch.zeros(64))[0].T
    assert own[[0, 2, 5]].tolist() == pytest.approx([1, 1, 1], abs=1e-4)
    assert own[[1, 3, 4, 6]].max() < 0.1 and not own[[3, 6]].any()  # word 2 is asked for in padding alone
    assert fact[:3].tolist() == pytest.approx([2, 2, 2], abs=0.1) and fact[4:6].tolist() == pytest.approx(
        [1] * 2, abs=0.1
    )
    assert not fact[[3, 6]].any()


def test_a_similar_word_counts_for_less_than_the_same_one(table):
    starts = torch.tensor([[[8, 0], [9, 1], [10, 2]]])
    same, similar, other = find_matches(torch.tensor([[8]]), torch.ones(1, 1).bool(), starts, table, torch.zeros(64))[0]
    assert same[0] > similar[0] + 0.1 > 0.5 > other[0] + 0.3


@pytest.mark.parametrize("question, tokens", [(0, 3), (2, 0)])
def test_nothing_matches_nothing(table, question, tokens):
    starts = torch.zeros(2, tokens, 2, dtype=torch.long)
    words = torch.ones(2, question).bool()
    assert not find_matches(words.long(), words, starts, table, torch.zeros(64)).any()


def test_it_is_written_along_two_orthogonal_directions():
    one, two = directions(64, torch.zeros(1))
    assert one @ one == two @ two == 64 and one @ two == 0
    aux, matches = torch.randn(2, 3, 64), torch.rand(2, 3, 2)
    found = with_matches(aux, matches, 2.0) - aux
    torch.testing.assert_close(found, 2 * (matches[..., :1] * one + matches[..., 1:] * two), atol=1e-5, rtol=0)


def test_which_word_is_asked_for_changes_what_is_read():
    """The embeddings of the question being equal, only the matches tell one perception's facts apart."""
    made = {"mixer": MIXER, "perception": FACTS, "compressor": COMPRESSOR}
    model, processor = tiny.made(**made)
    inputs = tiny.prompt_inputs(processor, ["the red?"] * 2, (tiny.seen("red circle"), tiny.seen("blue box")))
    with tiny.forward_contexts() as contexts, torch.no_grad():
        model(**inputs)
    red, blue = contexts[0].inputs.word_matches[..., 1].amax(dim=1)
    assert red > blue + 0.2
    with torch.no_grad():
        found = model(**inputs).logits
        for mixer in model.mixers.values():
            mixer.match_words = 0.0
        assert (model(**inputs).logits - found).abs().max() > 1e-4


def test_the_objective_on_cached_states_is_that_of_a_forward_pass():
    model, processor = tiny.made(mixer=MIXER, perception=FACTS, compressor=COMPRESSOR)
    inputs = tiny.prompt_inputs(processor, ["the red?"], (tiny.seen("red circle", "blue box"),))
    aux = model.auxiliary.encode(*(inputs[name] for name in ("aux_input_ids", "aux_attention_mask")))
    words = inputs["prompt_mask"] & (inputs["input_ids"] != processor.image_token_id)
    matches = model.auxiliary.find_matches(inputs["input_ids"], words, aux.starts)
    assert matches.any() and matches.shape == (1, 40, 2)
    targets = torch.zeros(1, 1, 41).bool()
    targets[0, 0, 0] = True
    states = torch.randn(1, len(model.mixers) + 1, aux.states.shape[-1])
    given = (states, aux.states, aux.mask, targets)
    objective = AttentionObjective(model)
    assert objective(*given, matches)["loss"] != objective(*given)["loss"]


def test_what_it_needs():
    with pytest.raises(RecipeError, match="set mixer.question_context"):
        Mixer(32, match_words=1.0)
    with pytest.raises(RecipeError, match="arithmetic: published has no mixer.match_words"):
        Mixer(32, match_words=1.0, arithmetic="published")
    needed = "mixer.match_words needs mixer.question_context and perception.fact_context: true"
    with pytest.raises(ValueError, match=needed):
        tiny.recipe(mixer={"match_words": 1.0})
    model, processor = tiny.made(mixer=MIXER, perception=FACTS)
    inputs = tiny.prompt_inputs(processor, ["the red?"], (tiny.seen("red circle"),))
    words = {name: inputs.pop(name) for name in list(inputs) if name.startswith("aux_")}
    aux = model.auxiliary.encode(words["aux_input_ids"], words["aux_attention_mask"])
    with pytest.raises(PromptError, match="copies or matches words"):
        model(**inputs, aux=aux._replace(starts=None))
    model.auxiliary.fact_ends = None
    with pytest.raises(RecipeError, match="match_words needs perception.fact_context: true"):
        model(**inputs, **words)
