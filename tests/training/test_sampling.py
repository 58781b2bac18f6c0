"""What trains when: step 1's draw, the order of samples, rates, and that no draw depends on an earlier one."""

from collections import Counter

import pytest
import tiny
import torch

from moai.model.mixer.mixer import IMAGE_MODULES, LANGUAGE_MODULES
from moai.recipe.sections import Step, Training
from moai.training import sampling as steps

DRAWS = 3000


def training(first=0, second=0, **options):
    return Training(
        step1=Step(steps=first, routing="random_module"),
        step2=Step(steps=second, routing="gates", **options.pop("step2", {})),
        **options,
    )


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


def draw(count=50, first=0, second=26, size=8, seed=0, kinds=None, step2=None):
    lengths = [index * 7 % 13 for index in range(count)]
    plan = training(first, second, batch_size=size, step2=step2 or {})
    return steps.draw_batches(seed, lengths, kinds or ["a"] * count, plan), lengths


def test_every_sample_once_per_epoch():
    batches, _ = draw(count=50, second=21, size=8)  # seven batches make an epoch
    assert len(batches) == 21
    for epoch in range(3):
        seen = [index for batch in batches[7 * epoch : 7 * epoch + 7] for index in batch]
        assert sorted(seen) == list(range(50))
    assert batches[:7] != batches[7:14]


@pytest.mark.parametrize("count, size", [(1, 4), (3, 4), (64, 8), (65, 8)])
def test_odd_counts(count, size):
    batches, _ = draw(count=count, second=30, size=size)
    assert len(batches) == 30 and all(1 <= len(batch) <= size for batch in batches)
    per_epoch = -(-count // size)
    assert sorted(index for batch in batches[:per_epoch] for index in batch) == list(range(count))


def test_batches_are_a_function_of_the_seed():
    assert draw(seed=3)[0] == draw(seed=3)[0]
    assert draw(seed=3)[0] != draw(seed=4)[0]


def test_a_longer_run_starts_like_a_shorter_one():
    assert draw(second=40)[0][:10] == draw(second=10)[0]


def test_samples_of_one_length_stand_together():
    batches, lengths = draw(count=640, second=80, size=8)
    spans = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in batches]
    assert sum(spans) / len(spans) < 3  # unsorted batches of eight span about ten of the twelve
    firsts = [lengths[batch[0]] for batch in batches[:8]]
    assert firsts != sorted(firsts), "the batches of a pool must not come in order of length"


def test_both_training_steps_walk_through_their_own_epochs():
    batches, _ = draw(count=32, first=4, second=4, size=8)
    for half in (batches[:4], batches[4:]):
        assert sorted(index for batch in half for index in batch) == list(range(32))
    assert batches[:4] != batches[4:]


def test_shares_of_kinds():
    kinds = ["open", "yes/no"] * 200
    batches, _ = draw(count=400, second=800, size=16, kinds=kinds, step2={"sampling_rate_by_type": {"yes/no": 0.25}})
    counts = Counter(index for batch in batches for index in batch)
    used = {kind: sum(counts[i] for i in range(400) if kinds[i] == kind) for kind in ("open", "yes/no")}
    assert abs(used["yes/no"] / used["open"] - 0.25) < 0.04
    assert all(counts[i] for i in range(400)), "a different share each epoch, so that all are seen in time"
    none, _ = draw(count=400, second=50, size=16, kinds=kinds, step2={"sampling_rate_by_type": {"yes/no": 0.0}})
    assert {kinds[index] for batch in none for index in batch} == {"open"}


def test_balanced_questions_have_as_many_of_each_answer():
    pairs = [("red?", "no")] * 70 + [("red?", "yes")] * 10 + [("what?", "red")] * 20 + [("never?", "no")] * 5
    plan = training(0, 120, batch_size=8, step2={"balance_yes_no": True})
    batches = steps.draw_batches(0, [1] * len(pairs), ["a"] * len(pairs), plan, pairs)
    drawn = Counter(pairs[index] for batch in batches[:5] for index in batch)
    assert drawn == {("red?", "no"): 10, ("red?", "yes"): 10, ("what?", "red"): 20}
    seen = {index for batch in batches for index in batch if pairs[index] == ("red?", "no")}
    assert len(seen) > 60, "other samples of the frequent answer in each epoch"


# Rates and groups -------------------------------------------------------------------------------------------------


def test_which_training_step_a_step_belongs_to():
    plan = training(3, 2)
    assert [steps.step_at(plan, step).routing for step in range(5)] == ["random_module"] * 3 + ["gates"] * 2
    assert steps.total_steps(plan) == 5


def test_rates_warm_up_and_fall():
    plan = training(50, 50, warmup=10, final_rate=0.05)
    rates = [steps.rate_at(plan, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=0.01) and max(rates) == rates[9] > 0.95
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.05, abs=0.01) and min(rates) > 0
    assert steps.rate_at(training(1, 0, warmup=0), 0) == pytest.approx(1.0)


def test_the_groups_hold_every_adapter_once():
    model, _ = tiny.made()
    groups = steps.parameter_groups(model, training(learning_rate=2e-3, compressor_rate=0.1))
    listed = [id(p) for group in groups for p in group["params"]]
    assert len(listed) == len(set(listed)) and set(listed) == {id(p) for p in model.adapter_parameters().values()}
    assert [group["lr"] for group in groups] == [2e-3, pytest.approx(2e-4)]
    assert {id(p) for p in groups[1]["params"]} == {id(p) for p in model.auxiliary.compressor.parameters()}


def test_mixed_lengths_keep_kinds_together_and_padding_small():
    lengths = [14] * 40 + [20] * 40 + [27] * 40 + [40] * 40 + [90] * 40
    plan = training(second=13, batch_size=16, mixed_lengths=True)
    batches = steps.draw_batches(0, lengths, ["x"] * len(lengths), plan)
    assert len(batches) == 13
    widths = [{lengths[index] for index in batch} for batch in batches]
    assert all(max(width) < 2.3 * min(width) for width in widths)
    assert any(width == {14, 20, 27} for width in widths)
    pooled = steps.draw_batches(0, lengths, ["x"] * 200, training(second=13, batch_size=16))
    assert not any(len({lengths[index] for index in batch}) > 2 for batch in pooled)
    assert batches == steps.draw_batches(0, lengths, ["x"] * len(lengths), plan)
