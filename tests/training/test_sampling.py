"""What trains when: step 1's draw, the order of samples, rates, and that no draw depends on an earlier one."""

from collections import Counter

import numpy as np
import pytest
import tiny
import torch

from moai.errors import RecipeError
from moai.model.mixer.mixer import IMAGE_MODULES, LANGUAGE_MODULES
from moai.recipe.stages import Schedule, Stage, Training
from moai.training import sampling as steps
from moai.training.epochs import StageBatches
from moai.training.facts import text_code
from moai.training.schedule import mm1_rate, rate_factor
from moai.training.stage_plan import plan_stages

DRAWS = 3000


def batches_of(count, steps_, size=8, seed=0, kinds=None, lengths=None, pairs=None, number=1, mixed=False, **options):
    """The batches of one stage over ``count`` samples."""
    stage = Stage(name="gates", steps=steps_, batch_size=size, **options)
    facts = GivenFacts(lengths or [index * 7 % 13 for index in range(count)], kinds or ["a"] * count, pairs)
    return list(StageBatches(seed, stage, number, facts, mixed))


class GivenFacts:
    """Facts of samples that are given as lists."""

    lazy = False

    def __init__(self, lengths, kinds, pairs=None):
        self.given = np.array(lengths)
        self.codes = np.array([text_code(kind) for kind in kinds])
        pairs = pairs or [("?", "x")] * len(lengths)
        self.coded_pairs = np.array([[text_code(text) for text in pair] for pair in pairs])
        self.asked = []

    def __len__(self):
        return len(self.given)

    def epoch_rows(self, epoch):
        return np.arange(len(self.given))

    def lengths(self, rows):
        self.asked.append(rows)
        return self.given[rows]

    def kind_codes(self):
        return self.codes

    def pair_codes(self):
        return self.coded_pairs


# Step 1's draw ----------------------------------------------------------------------------------------------------


def chi_square(counts, cells):
    expected = sum(counts.values()) / cells
    return sum((counts.get(cell, 0) - expected) ** 2 / expected for cell in range(cells))


def test_each_module_is_drawn_equally_often():
    draws = torch.stack([steps.draw_modules(0, step, mixers=2) for step in range(DRAWS)])  # (steps, mixers, 2)
    for mixer in range(2):
        for modality in range(2):
            counts = Counter(draws[:, mixer, modality].tolist())
            assert set(counts) == {0, 1, 2}
            assert chi_square(counts, 3) < 13.8  # p = 0.001 with two degrees of freedom


def test_modalities_and_mixers_are_drawn_independently():
    draws = torch.stack([steps.draw_modules(0, step, mixers=2) for step in range(DRAWS)]).flatten(1)
    for a, b in ((0, 1), (0, 2), (1, 3)):
        counts = Counter((draws[:, a] * 3 + draws[:, b]).tolist())
        assert chi_square(counts, 9) < 26.1  # p = 0.001 with eight degrees of freedom


def test_the_draw_is_a_function_of_seed_and_step():
    torch.manual_seed(0)
    first = [steps.draw_modules(7, step, 3) for step in range(20)]
    torch.manual_seed(1)
    again = [steps.draw_modules(7, step, 3) for step in reversed(range(20))]
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(again)))
    other = [steps.draw_modules(8, step, 3) for step in range(20)]
    assert not all(torch.equal(a, b) for a, b in zip(first, other))
    assert len({tuple(draw.flatten().tolist()) for draw in first}) > 15


def test_the_draw_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    steps.draw_modules(1, 2, 3)
    steps.draw_rows(1, 2, 3, 0.5, "image")
    assert torch.equal(torch.rand(3), expected)


def test_row_draws_have_their_share_and_are_kept_apart():
    image = torch.stack([steps.draw_rows(0, step, 32, 0.3, "image") for step in range(500)])
    perception = torch.stack([steps.draw_rows(0, step, 32, 0.3, "perception") for step in range(500)])
    assert abs(image.float().mean() - 0.3) < 0.012  # three standard deviations of 16,000 draws
    assert abs((image & perception).float().mean() - 0.09) < 0.01
    assert not steps.draw_rows(0, 0, 32, 0.0, "image").any() and steps.draw_rows(0, 0, 32, 1.0, "image").all()


# What the draw trains ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def batch_of():
    def make(model, processor, **extra):
        samples = tiny.dataset("train")[6:10]
        seen = [[tiny.seen("red")], [tiny.seen("blue", "green")], [tiny.seen("red")], [tiny.seen()]]
        return {**processor.batch([s.conversation for s in samples], seen, labels=True), **extra}

    return make


def reached(model):
    """``(mixer, module)`` of the attention modules with a gradient."""
    names = [name.split(".") for name, p in model.adapter_parameters().items() if p.grad is not None and p.grad.any()]
    return {(name[1], name[3]) for name in names if name[2:3] == ["attention"]}


def test_step_one_trains_the_drawn_modules_only_and_reaches_all_in_time(batch_of):
    model, processor = tiny.made(noise=0.05)
    model.train()
    everything = {(mixer, name) for mixer in model.mixers for name in IMAGE_MODULES + LANGUAGE_MODULES}
    found = set()
    for step in range(16):
        choices = steps.draw_modules(0, step, len(model.mixers))
        model.zero_grad()
        model(**batch_of(model, processor, module_choices=choices)).loss.backward()
        drawn = {
            (mixer, names[pick])
            for mixer, picks in zip(model.mixers, choices.tolist())
            for names, pick in zip((IMAGE_MODULES, LANGUAGE_MODULES), picks)
        }
        assert reached(model) == drawn
        assert all(p.grad is None for name, p in model.adapter_parameters().items() if ".gate_" in name)
        found |= drawn
        if found == everything:
            break
    assert found == everything


def test_step_two_trains_everything(batch_of):
    model, processor = tiny.made(noise=0.05)
    model.train()
    model(**batch_of(model, processor)).loss.backward()
    grads = {name: p.grad for name, p in model.adapter_parameters().items()}
    assert all(grad is not None and grad.any() for grad in grads.values())


def test_step_two_gates_sum_to_one_at_every_token():
    model, processor = tiny.made(noise=0.3)
    inputs = tiny.prompt_inputs(processor, ["What?", "Is it red?"], [tiny.seen("red"), tiny.seen("blue")])
    gates = tiny.gates_of(model, lambda: model(**inputs))
    assert len(gates) == len(model.mixers)
    for image, language in gates:
        assert image.shape == (2, tiny.IMAGE_TOKENS, 3) and language.shape[2] == 3
        for weights in (image, language):
            assert torch.allclose(weights.sum(dim=-1), torch.ones(weights.shape[:2]), atol=1e-6)
            assert weights.std() > 0.01


# The order of samples ---------------------------------------------------------------------------------------------


def test_every_sample_once_per_epoch():
    batches = batches_of(50, 21)  # seven batches make an epoch
    assert len(batches) == 21
    for epoch in range(3):
        seen = [index for batch in batches[7 * epoch : 7 * epoch + 7] for index in batch]
        assert sorted(seen) == list(range(50))
    assert batches[:7] != batches[7:14]


@pytest.mark.parametrize("count, size", [(1, 4), (3, 4), (64, 8), (65, 8)])
def test_odd_counts(count, size):
    batches = batches_of(count, 30, size)
    assert len(batches) == 30 and all(1 <= len(batch) <= size for batch in batches)
    per_epoch = -(-count // size)
    assert sorted(index for batch in batches[:per_epoch] for index in batch) == list(range(count))


def test_batches_are_a_function_of_the_seed():
    assert batches_of(50, 26, seed=3) == batches_of(50, 26, seed=3)
    assert batches_of(50, 26, seed=3) != batches_of(50, 26, seed=4)


def test_a_longer_run_starts_like_a_shorter_one():
    assert batches_of(50, 40)[:10] == batches_of(50, 10)


def test_samples_of_one_length_stand_together():
    lengths = [index * 7 % 13 for index in range(640)]
    batches = batches_of(640, 80, lengths=lengths)
    spans = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in batches]
    assert sum(spans) / len(spans) < 3  # unsorted batches of eight span about ten of the twelve
    firsts = [lengths[batch[0]] for batch in batches[:8]]
    assert firsts != sorted(firsts), "the batches of a pool must not come in order of length"


def test_each_stage_walks_through_its_own_epochs():
    halves = [batches_of(32, 4, number=number) for number in (1, 2)]
    for half in halves:
        assert sorted(index for batch in half for index in batch) == list(range(32))
    assert halves[0] != halves[1]


def test_a_stage_of_epochs_ends_with_the_last_sample():
    batches = batches_of(30, None, epochs=2)
    assert len(batches) == 8
    assert Counter(index for batch in batches for index in batch) == dict.fromkeys(range(30), 2)


@pytest.mark.parametrize("mixed", [False, True])
def test_any_step_is_drawn_without_the_samples_before(mixed):
    facts = GivenFacts([index * 7 % 13 + 1 for index in range(10_000)], ["a"] * 10_000)
    facts.lazy = True
    stage = Stage(name="gates", epochs=3, batch_size=4)
    batches = StageBatches(0, stage, 1, facts, mixed)
    assert len(batches) == 7500 and not facts.asked, "the number of steps follows from the count"
    last = batches[6100:][17]
    pool = 4 * (64 if mixed else 8)
    assert [len(rows) for rows in facts.asked] == [pool] and set(last) <= set(facts.asked[0].tolist())
    whole = list(StageBatches(0, stage, 1, facts, mixed))
    assert whole[6117] == last
    for epoch in range(3):
        drawn = [row for batch in whole[2500 * epoch : 2500 * epoch + 2500] for row in batch]
        assert sorted(drawn) == list(range(10_000))
    if mixed:
        lengths = [sorted(facts.given[batch]) for batch in whole]
        assert sum(two[-1] >= 2 * two[0] for two in lengths) < len(whole) * 0.1, "at the borders of classes alone"


def test_what_is_used_of_an_epoch_that_is_cut_short_is_known_without_the_rest():
    facts = GivenFacts([index * 7 % 13 + 1 for index in range(10_000)], ["a"] * 10_000)
    batches = StageBatches(0, Stage(name="gates", steps=1003, batch_size=4), 1, facts)
    used = batches.used().tolist()
    assert sum(map(len, facts.asked)) == 32, "the lengths of the last pool"
    assert used == sorted(row for batch in batches for row in batch)


def test_each_epoch_draws_its_own_mixture_over_all_stages():
    facts = GivenFacts([1] * 12, ["a"] * 12)
    facts.epoch_rows = lambda epoch: np.array([(epoch + n) % 12 for n in (0, 0, 1, 2)])
    stages = [{"name": "one", "epochs": 2}, {"name": "two", "steps": 3}, {"name": "three", "epochs": 1}]
    made = [Stage(**{"batch_size": 2, "schedule": Schedule(), **stage}) for stage in stages]
    plans = plan_stages(made, Training(), 0, facts)
    drawn = [[sorted(row for batch in plan.batches[at : at + 2] for row in batch) for at in (0, 2)] for plan in plans]
    assert drawn[0] == [[0, 0, 1, 2], [1, 1, 2, 3]]
    assert drawn[1][0] == [2, 2, 3, 4] and set(drawn[1][1]) <= {3, 4, 5} and len(drawn[1][1]) == 2
    assert drawn[2] == [[4, 4, 5, 6], []]


def test_a_stage_that_leaves_nothing_of_an_epoch_is_refused():
    with pytest.raises(RecipeError, match="stages.gates leaves no samples of an epoch"):
        batches_of(4, 3, pairs=[("red?", "no")] * 4, balance_yes_no=True)


def test_shares_of_kinds():
    kinds = ["open", "yes/no"] * 200
    batches = batches_of(400, 800, 16, kinds=kinds, sampling_rate_by_type={"yes/no": 0.25})
    counts = Counter(index for batch in batches for index in batch)
    used = {kind: sum(counts[i] for i in range(400) if kinds[i] == kind) for kind in ("open", "yes/no")}
    assert abs(used["yes/no"] / used["open"] - 0.25) < 0.04
    assert all(counts[i] for i in range(400)), "a different share each epoch, so that all are seen in time"
    none = batches_of(400, 50, 16, kinds=kinds, sampling_rate_by_type={"yes/no": 0.0})
    assert {kinds[index] for batch in none for index in batch} == {"open"}


def test_balanced_questions_have_as_many_of_each_answer():
    pairs = [("red?", "no")] * 70 + [("red?", "yes")] * 10 + [("what?", "red")] * 20 + [("never?", "no")] * 5
    batches = batches_of(len(pairs), 120, lengths=[1] * len(pairs), pairs=pairs, balance_yes_no=True)
    drawn = Counter(pairs[index] for batch in batches[:5] for index in batch)
    assert drawn == {("red?", "no"): 10, ("red?", "yes"): 10, ("what?", "red"): 20}
    seen = {index for batch in batches for index in batch if pairs[index] == ("red?", "no")}
    assert len(seen) > 60, "other samples of the frequent answer in each epoch"


# Rates and groups -------------------------------------------------------------------------------------------------


def plans_of(*stages):
    """The plan of stages over 16 samples."""
    made = [Stage(**{"batch_size": 8, "schedule": Schedule(), **stage}) for stage in stages]
    return plan_stages(made, Training(), 0, GivenFacts([1] * 16, ["a"] * 16))


def test_a_stage_that_continues_goes_on_with_the_schedule_of_the_one_before():
    plans = plans_of(
        {"name": "align", "steps": 5, "objective": "attention"},
        {"name": "one", "steps": 3},
        {"name": "two", "epochs": 2, "continues": True},
        {"name": "three", "steps": 4},
    )
    assert [plan.steps for plan in plans] == [5, 3, 4, 4]
    assert [plan.first for plan in plans] == [0, 5, 8, 12]
    assert [plan.first_draw for plan in plans] == [0, 0, 3, 7], "draws are of steps that answer"
    assert [(plan.schedule_step, plan.schedule_steps) for plan in plans] == [(0, 5), (0, 7), (3, 7), (0, 4)]


def test_rates_warm_up_and_fall():
    for kind in ("cosine", "linear"):
        schedule = Schedule(kind=kind, warmup=10, final_rate=0.05)
        rates = [rate_factor(schedule, step, 100) for step in range(100)]
        assert rates[0] == pytest.approx(0.1, rel=0.01) and max(rates) == rates[9] > 0.9
        assert rates[9:] == sorted(rates[9:], reverse=True)
        assert rates[-1] == pytest.approx(0.05, abs=0.01) and min(rates) > 0
    assert rate_factor(Schedule(warmup=0), 0, 1) == pytest.approx(1.0)
    constant = Schedule(kind="constant", warmup=2)
    assert [rate_factor(constant, step, 4) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("parameters, rate", [(9e6, 6.7e-4), (1.2e9, 8.6e-5), (3e9, 5.8e-5), (30e9, 2.2e-5)])
def test_the_law_of_mm1_gives_its_papers_rates(parameters, rate):
    assert mm1_rate(int(parameters)) == pytest.approx(rate, rel=0.02)


def test_mixed_lengths_keep_kinds_together_and_padding_small():
    lengths = [14] * 40 + [20] * 40 + [27] * 40 + [40] * 40 + [90] * 40
    batches = batches_of(200, 13, 16, lengths=lengths, mixed=True)
    assert len(batches) == 13
    widths = [{lengths[index] for index in batch} for batch in batches]
    assert all(max(width) < 2.3 * min(width) for width in widths)
    assert any(width == {14, 20, 27} for width in widths)
    pooled = batches_of(200, 13, 16, lengths=lengths)
    assert not any(len({lengths[index] for index in batch}) > 2 for batch in pooled)
    assert batches == batches_of(200, 13, 16, lengths=lengths, mixed=True)
