"""The shift of the gates' logits: what it does in the model, where it points, and what it must not depend on."""

import pytest
import tiny
import torch

from moai.data.collate import Collator
from moai.errors import CheckpointError, HostError, RecipeError
from moai.model.analysis.rerouting import (
    FOLDER,
    Record,
    Rerouting,
    gate_gradients,
    load_record,
    question_states,
    save_record,
)
from moai.types import Sample

QUESTIONS = ("What color?", "Is there a red shape in it, or none?", "Which one?")
PERCEPTIONS = (tiny.seen("red circle"), tiny.seen("blue box", "green disc", text="hello"), tiny.seen("black ring"))


@pytest.fixture
def inputs(processor):
    return tiny.prompt_inputs(processor, QUESTIONS, PERCEPTIONS)


def shift_of(rows, seed=0, scale=2.0):
    return torch.randn(rows, 2, 2, 3, generator=torch.Generator().manual_seed(seed)) * scale


def logits(model, inputs, **others):
    with torch.no_grad():
        return model(**inputs, **others).logits[:, -1]


# In the model -----------------------------------------------------------------------------------------------------


def test_a_shift_of_zero_changes_no_bit_and_another_one_changes_its_row_alone(model, inputs):
    plain = logits(model, inputs)
    assert torch.equal(logits(model, inputs, gate_shift=torch.zeros(3, 2, 2, 3)), plain)
    shift = shift_of(3) * torch.tensor([0.0, 1.0, 0.0])[:, None, None, None]
    moved = logits(model, inputs, gate_shift=shift)
    assert torch.equal(moved[[0, 2]], plain[[0, 2]]) and (moved[1] - plain[1]).abs().max() > 0.01


def test_the_gates_are_shifted_layer_by_layer_and_stream_by_stream(model, inputs):
    for layer in range(2):
        for stream in range(2):
            shift = torch.zeros(3, 2, 2, 3)
            shift[:, layer, stream, 0] = 50.0
            found = tiny.gates_of(model, lambda shift=shift: logits(model, inputs, gate_shift=shift))
            taken = [[bool((found[at][one][..., 0] > 0.999).all()) for one in range(2)] for at in range(2)]
            assert taken == [[(layer, stream) == (at, one) for one in range(2)] for at in range(2)]


def test_generation_keeps_the_shift_with_and_without_a_cache_and_with_beams(model, inputs):
    shift = shift_of(3, scale=8.0)
    found = [
        model.generate(**inputs, max_new_tokens=4, do_sample=False, gate_shift=shift, **settings)
        for settings in ({}, {"use_cache": False}, {"num_beams": 2}, {"num_beams": 2, "use_cache": False})
    ]
    plain = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert torch.equal(found[0], found[1]) and torch.equal(found[2], found[3])
    assert not torch.equal(found[0], plain)


def test_attribution_shows_the_gates_that_were_used(model, inputs):
    shift = torch.zeros(3, 2, 2, 3)
    shift[..., 0] = 50.0
    with torch.no_grad():
        shown = model(**inputs, gate_shift=shift, return_attribution=True).attribution
    real = shown.language_mask
    assert all((mixer.language.gates[..., 0][real] > 0.999).all() for mixer in shown.mixers)


# What is recorded -------------------------------------------------------------------------------------------------


@pytest.fixture
def labelled(processor):
    answers = ("red", "no it is not", "black")
    pictures = [tiny.picture(color) for color in ("red", "green", "blue")]
    samples = [Sample(str(i), pictures[i], str(i), QUESTIONS[i], answers[i], "x") for i in range(3)]
    return samples, Collator(processor)(samples, PERCEPTIONS)


def test_the_gradient_is_that_of_each_rows_own_loss(model, processor, labelled):
    samples, batch = labelled
    together = gate_gradients(model, batch)
    assert together.shape == (3, 2, 2, 3)
    assert torch.allclose(together.sum(dim=-1), torch.zeros(3, 2, 2), atol=1e-5), "a softmax knows no common shift"
    for row in range(3):
        one = Collator(processor)(samples[row : row + 1], PERCEPTIONS[row : row + 1])
        assert torch.allclose(gate_gradients(model, one)[0], together[row], atol=1e-4)
        step = torch.zeros(1, 2, 2, 3)
        step[0, 1, 1, 0] = 0.02
        with torch.no_grad():
            up, down = (model(**one, gate_shift=sign * step).loss for sign in (1, -1))
        assert float((up - down) / 0.04) == pytest.approx(float(together[row, 1, 1, 0]), abs=2e-3)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_states_do_not_depend_on_other_rows_or_on_a_shift(model, processor, inputs):
    together = question_states(model, inputs)
    assert together.shape == (3, tiny.WIDTH) and together.dtype == torch.float32
    pictures = [tiny.picture(tiny.COLORS[row]) for row in range(3)]
    for row in range(3):
        rows = slice(row, row + 1)
        alone = tiny.prompt_inputs(processor, QUESTIONS[rows], PERCEPTIONS[rows], pictures[rows])
        assert torch.allclose(question_states(model, alone)[0], together[row], atol=1e-4)
    assert torch.equal(question_states(model, {**inputs, "gate_shift": shift_of(3)}), together)
    blind = tiny.prompt_inputs(processor, QUESTIONS, (None, *PERCEPTIONS[1:]))
    assert (question_states(model, blind) - together).abs().amax(dim=1)[0] > 0.01, "what was seen counts"
    first = logits(model, inputs)
    question_states(model, inputs)
    assert torch.equal(logits(model, inputs), first), "the watch is off again"


def test_a_run_without_mixers_has_no_gates_to_move():
    model, processor = tiny.made(mixer={"layers": []})
    with pytest.raises(HostError, match="no mixers, so there are no gates to re-route"):
        question_states(model, tiny.prompt_inputs(processor, QUESTIONS[:1], PERCEPTIONS[:1]))


def test_question_states_are_the_prompts_where_the_words_are_read_further_up():
    """The host reads auxiliary words up to layer 3 here, past its middle layer, before it reads the prompt."""
    model, processor = tiny.made(perception={"context_layer": 3, "panoptic_map": False})
    inputs = tiny.prompt_inputs(processor, QUESTIONS[:1], PERCEPTIONS[:1])
    found = question_states(model, inputs)
    with torch.no_grad():
        middle = model(**inputs, use_cache=False, output_hidden_states=True).hidden_states[2]
    c = model.holder.conditioning
    assert torch.allclose(found, middle[:, c.language_index[0][c.language_mask[0]]].mean(dim=1), atol=1e-5)


# The step ---------------------------------------------------------------------------------------------------------


def record(states, gradients):
    made = torch.zeros(len(gradients), 1, 2, 3)
    made[:, 0, 1] = torch.tensor(gradients)
    return Record(torch.tensor(states), made, {})


NORTH, EAST = (1.0, -1.0, 0.0), (0.0, 1.0, -1.0)
COMPASS = ([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [1.0, 0.1], [-1.0, -1.0]], [NORTH, NORTH, EAST, EAST, EAST])


def test_the_shift_goes_down_the_neighbours_gradients():
    rerouting = Rerouting(record(*COMPASS), neighbours=2)
    north, east = rerouting.shift(torch.tensor([[0.05, 1.0], [1.0, 0.05]]))[:, 0, 1]
    assert torch.allclose(north / north.norm(), -torch.tensor(NORTH) / 2**0.5, atol=1e-5)
    assert torch.allclose(east / east.norm(), -torch.tensor(EAST) / 2**0.5, atol=1e-5)


def test_neighbours_that_agree_move_by_the_strength_and_those_that_do_not_by_less():
    states = torch.tensor([[0.05, 1.0]])
    for strength in (0.5, 2.0):
        shift = Rerouting(record(*COMPASS), 2, strength).shift(states)
        assert float(shift.square().mean().sqrt()) == pytest.approx(strength)
    opposed = (COMPASS[0], [NORTH, [-x for x in NORTH], EAST, EAST, EAST])
    assert float(Rerouting(record(*opposed), 2).shift(states).square().mean().sqrt()) < 0.2
    surer = (COMPASS[0], [[0.1 * x for x in NORTH]] * 2 + [EAST] * 3)
    assert float(Rerouting(record(*surer), 2).shift(states).square().mean().sqrt()) < 0.2


def test_a_row_depends_on_itself_alone():
    states = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    found = Record(torch.randn(40, 16), torch.randn(40, 3, 2, 3), {})
    rerouting = Rerouting(found, 5)
    together = rerouting.shift(states)
    for row in range(8):
        # Near, and not bit for bit: a product with one row is another kernel than one with eight.
        assert torch.allclose(rerouting.shift(states[row : row + 1])[0], together[row], atol=1e-5)


def test_the_kernel_ends_where_the_next_neighbour_stands():
    rerouting = Rerouting(record(*COMPASS), neighbours=2)
    weights, chosen = rerouting.nearest(torch.tensor([[0.02, 1.0]]))
    assert set(chosen[0].tolist()) == {0, 1} and weights[0, 0] >= weights[0, 1] and weights.sum() == pytest.approx(1)
    bare = (weights[0] * 0 + 1) / 2
    whole, everyone = Rerouting(record(*COMPASS), neighbours=9).nearest(torch.tensor([[0.02, 1.0]]))
    assert torch.allclose(whole, torch.full((1, 5), 0.2)) and sorted(everyone[0].tolist()) == [0, 1, 2, 3, 4]
    same = ([[0.0, 1.0]] * 4 + [[5.0, 1.0]], [NORTH] * 5)
    assert torch.allclose(Rerouting(record(*same), 2).nearest(torch.tensor([[0.0, 1.0]]))[0], bare), "all equally far"


@pytest.mark.parametrize("neighbours, strength", [(0, 1.0), (3, 0.0)])
def test_no_neighbour_or_no_strength_is_no_shift(neighbours, strength):
    assert Rerouting(record(*COMPASS), neighbours, strength).shift(torch.tensor([[0.0, 1.0]])) is None


@pytest.mark.parametrize("neighbours, strength", [(-1, 1.0), (1, -0.1), (1, float("nan"))])
def test_what_cannot_be(neighbours, strength):
    with pytest.raises(RecipeError, match="at least 0"):
        Rerouting(record(*COMPASS), neighbours, strength)
    with pytest.raises(RecipeError, match="no sample was solved"):
        Rerouting(Record(torch.zeros(0, 2), torch.zeros(0, 1, 2, 3), {}), 1)


# Its file ---------------------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was(tmp_path):
    made = Record(torch.randn(4, 8), torch.randn(4, 2, 2, 3), {"solved": ["a", "b"], "asked": 9})
    assert save_record(made, tmp_path) == tmp_path / FOLDER
    found = load_record(tmp_path)
    assert torch.equal(found.states, made.states) and torch.equal(found.gradients, made.gradients)
    assert found.about == made.about
    assert not list(tmp_path.rglob("*.part"))


def test_a_missing_or_damaged_record_is_a_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="has no record of solved samples; `moai eval .* --reroute 8` makes it"):
        load_record(tmp_path)
    folder = save_record(Record(torch.randn(1, 2), torch.randn(1, 1, 2, 3), {}), tmp_path)
    (folder / "record.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="is damaged .*; delete it, and evaluate with --reroute again"):
        load_record(tmp_path)
