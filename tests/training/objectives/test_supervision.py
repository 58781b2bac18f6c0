"""Which words a question should read: in the right fact, only where words and answer agree."""

from dataclasses import replace

import pytest
import tiny
import torch

from moai.errors import RecipeError
from moai.recipe.stages import Stage
from moai.training.batches import COUNT, Share
from moai.training.objectives.attention import AttentionBatches, AttentionObjective, HeldOutAttention
from moai.training.objectives.supervision import TargetFinder, target_masks
from moai.training.sampling import draw_questions
from moai.training.word_cache import WordCache
from moai.types import Conversation

WORDS = "top red circle , left blue star , red circle right of blue star . text bread".split()
OTHER = "center green square , text lemon".split()


ALIGN = tiny.stage("align", 4, objective="attention", train={"mixers": 2e-3})


def aligned(model, processor, finder, samples, perceptions, steps=4):
    """The batches of a stage that teaches where to look."""
    stage = Stage(**{**ALIGN, "steps": steps, "batch_size": 8})
    given = {"chosen": range(len(samples)), "stage": stage, "word_cache": WordCache(model)}
    return AttentionBatches(model, processor, finder, samples, perceptions, **given)


def align(model, processor, finder, samples, perceptions, steps, rate):
    """Train with them, and return the losses."""
    made = aligned(model, processor, finder, samples, perceptions, steps)
    objective, losses = AttentionObjective(model), []
    optimizer = torch.optim.AdamW(objective.parameters(), lr=rate)
    for step, indices in enumerate(draw_questions(0, made.usable, Stage(**{**ALIGN, "steps": steps, "batch_size": 8}))):
        batch = made([Share(step, indices, range(len(indices)))])
        assert batch.pop(COUNT) == len(indices)
        loss = objective(**batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


class Table:
    """Words as numbers."""

    def __init__(self):
        self.known = []

    def ids(self, text):
        words = text.split() if isinstance(text, str) else text
        for word in words:
            if word not in self.known:
                self.known.append(word)
        return [self.known.index(word) for word in words]


@pytest.fixture
def table():
    return Table()


@pytest.fixture
def find(table):
    rows = [table.ids(WORDS), table.ids(OTHER)]

    def of(question, answer, null_token=True, words=WORDS):
        finder = TargetFinder(rows, table.ids(", ."), lambda token: table.known[token], null_token)
        return finder.targets(table.ids(words), table.ids(question), table.ids(answer), answer)

    return of


@pytest.mark.parametrize(
    "question,answer,expected",
    [
        ("where is the red circle ?", "top", [[0]]),
        ("where is the blue star ?", "left", [[4]]),
        ("what shape is right of the blue star ?", "red circle", [[8], [9]]),  # either word of the answer
        ("what does the text say ?", "bread", [[16]]),
        ("what does the text say ?", "lemon", []),
        ("is there a red circle ?", "yes", [[1, 2, 8, 9]]),
        ("is there a red star ?", "no", [[17]]),  # both words stand in one fact, but not in a row
        ("is no red circle present ?", "no", [[1, 2, 8, 9]]),  # where to look does not depend on the answer
        ("is no green circle present ?", "yes", [[17]]),
        ("is the red circle right of the blue star ?", "yes", [[8, 9, 10, 11, 12, 13]]),
        ("is the blue star right of the red circle ?", "no", [[17]]),
        ("is the circle red ?", "yes", [[1, 2, 8, 9]]),
        ("is it raining ?", "no", []),
        ("where is the green square ?", "center", [[17]]),  # an expert missed it
        ("is the blue star at the left or in the center ?", "left", [[4]]),
        ("is the red circle at the left or in the center ?", "left", [[17]]),  # the star is at the left
    ],
)
def test_targets(find, question, answer, expected):
    assert find(question, answer) == expected


def test_without_a_null_token_nothing_stands_for_no(find):
    assert find("is there a green circle ?", "no", null_token=False) == []


def test_a_plural_asks_for_its_singular(find):
    words = "two circle . one red . text bread".split()
    assert find("how many circles ?", "two", words=words) == [[0]]


def test_of_two_facts_that_say_the_answer_the_one_without_other_things_counts(find):
    words = "right of red circle , top of star , top star left of red circle".split()
    assert find("in which part of it is the star ?", "top", words=words) == [[5]]


def test_how_every_perception_begins_is_said_of_nothing(table):
    rows = [table.ids(f"the image has , {name} .".split()) for name in ("red circle", "blue star", "green box")]
    finder = TargetFinder(rows, table.ids(", ."), lambda token: table.known[token], null_token=True)
    question = table.ids("what color is the circle in the image ?")  # "the image" is more than "circle"
    assert finder.targets(rows[0], question, table.ids("red"), "red") == [[4]]


def test_case_and_spaces_do_not_count(table):
    rows = [table.ids("Top circle".split())]
    finder = TargetFinder(rows, [], lambda token: " " + table.known[token] + " ")
    assert finder.targets(rows[0], table.ids("where is the circle ?"), table.ids("top"), "top") == [[0]]


def test_rare_names_count_and_words_of_questions_do_not(table):
    """Of an open vocabulary no name is in 1 % of perceptions; a sign that says "is the" is no finding of "is"."""
    names = [f"name{number}" for number in range(300)]
    rows = [table.ids(f"left {name} .".split()) for name in names] + [table.ids("text is the .".split())] * 4
    questions = [table.ids(f"is the {name} left ?".split()) for name in names for _ in range(5)]
    finder = TargetFinder(rows, table.ids("."), lambda token: table.known[token], True, questions)
    assert set(names) <= finder.used and not {"is", "the"} & finder.used
    assert finder.targets(rows[7], table.ids("is the name7 here ?"), table.ids("yes"), "yes") == [[1]]
    assert finder.targets(rows[7], table.ids("is the name8 here ?"), table.ids("no"), "no") == [[3]]
    assert "left" not in finder.used  # which all questions hold, so that it asks for nothing
    careless = TargetFinder(rows, table.ids("."), lambda token: table.known[token], True)
    assert {"is", "the", "left"} <= careless.used  # without questions nothing tells them apart


# With a model -----------------------------------------------------------------------------------------------------


def built(**changes):
    mixer = {"null_token": True, "tie_qk_at_init": True, "qk_norm_scale": None, "question_context": 1.0}
    changes |= {"vision": {"panoptic_map": False}, "perception": {"style": "compact", "fact_context": True}}
    return tiny.made(noise=0.0, mixer=mixer, **changes)


def finder_of(processor, perceptions):
    return TargetFinder.from_perceptions(processor, perceptions.values(), null_token=True)


def batch_of(processor, samples, perceptions, finder=None):
    """A training batch, as the trainer makes it."""
    seen = [[perceptions.get(image) for image in sample.image_ids] for sample in samples]
    batch = processor.batch([sample.conversation for sample in samples], seen, labels=True)
    if finder is not None and "aux_input_ids" in batch:
        words = (batch["aux_input_ids"], batch["aux_attention_mask"])
        batch["attention_targets"] = target_masks(finder, processor, samples, *words)
    return batch


@pytest.fixture
def rows():
    samples = tiny.dataset("train")[:16]
    images = {image for sample in samples for image in sample.image_ids}
    return samples, {image: tiny.seen(image.split("-")[0], "circle") for image in images}


def asking(sample, question, **changes):
    """The sample with another question."""
    conversation = Conversation.ask(question, sample.conversation.images, changes.pop("answer", sample.answer))
    return replace(sample, conversation=conversation, **changes)


def test_a_batch_names_words_of_its_own_row(rows):
    samples, perceptions = rows
    model, processor = built()
    finder = finder_of(processor, perceptions)
    batch = batch_of(processor, samples, perceptions, finder)
    targets = batch["attention_targets"]
    assert targets.shape == (len(samples), 1, batch["aux_input_ids"].shape[1] + 1)
    padding = torch.nn.functional.pad(batch["aux_attention_mask"] == 0, (0, 1))[:, None]
    assert not (targets & padding).any() and targets.any()
    for row, sample in enumerate(samples):
        marked = batch["aux_input_ids"][row][targets[row, 0, :-1]]
        if sample.answer not in ("yes", "no") and len(marked):
            assert sample.answer in processor.tokenizer.decode(marked)
    output = model(**batch)
    assert output.attention_loss > 0 and output.attention_loss.requires_grad
    assert "attention_targets" not in batch_of(processor, samples, {}, finder)


def test_a_translation_says_what_is_asked_for_and_is_not_shown(rows):
    samples, perceptions = rows
    processor = built()[1]
    finder = finder_of(processor, perceptions)
    foreign = [asking(sample, "그것은?", question_translation=sample.question) for sample in samples]
    plain, translated = (batch_of(processor, given, perceptions, finder) for given in (samples, foreign))
    untranslated = [replace(sample, question_translation=None) for sample in foreign]
    without = batch_of(processor, untranslated, perceptions, finder)
    assert torch.equal(translated["attention_targets"], plain["attention_targets"])
    assert not torch.equal(without["attention_targets"], plain["attention_targets"])
    assert torch.equal(translated["input_ids"], without["input_ids"])


def test_an_answer_of_two_words_asks_for_both(rows):
    samples, perceptions = rows
    model, processor = built(compressor={"latents": 64})
    changes = {"answer": "red circle", "answers": ("red circle",), "image_ids": ("both",), "kind": "open"}
    two = [asking(sample, "What is it?", **changes) for sample in samples[:8]]
    mixed, perceptions = [*two, *samples[8:]], {**perceptions, "both": tiny.seen("red circle")}
    finder = finder_of(processor, perceptions)
    batch = batch_of(processor, mixed, perceptions, finder)
    targets = batch["attention_targets"]
    said = [batch["aux_input_ids"][0][group[:-1]].tolist() for group in targets[0] if group.any()]
    answer = [token for token in processor.encode(two[0].conversation, labels=True).labels if token != -100][:-1]
    assert len(answer) > 1 and [set(group) for group in said] == [{token} for token in answer]
    assert targets[8:].any(dim=2).sum(dim=1).max() < len(answer)  # a batch may mix both
    with torch.no_grad():
        whole = model(**batch).attention_loss
        either = targets.any(dim=1, keepdim=True)
        assert model(**{**batch, "attention_targets": either}).attention_loss < whole
    losses = align(model, processor, finder, mixed, perceptions, steps=40, rate=1e-2)
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_aligning_teaches_where_to_look_and_nothing_else(rows):
    samples, perceptions = rows
    model, processor = built()
    finder = finder_of(processor, perceptions)
    batch = batch_of(processor, samples, perceptions, finder)
    with torch.no_grad():
        before, logits = model(**batch).attention_loss, model(**batch).logits
    old = {name: p.detach().clone() for name, p in model.adapter_parameters().items()}
    losses = align(model, processor, finder, samples, perceptions, steps=60, rate=1e-2)
    assert len(losses) == 60 and sum(losses[-10:]) < 0.9 * sum(losses[:10])
    moved = {name for name, p in model.adapter_parameters().items() if not torch.equal(p, old[name])}
    assert moved and all(name.endswith(".null") or ".language_aux." in name for name in moved)
    assert not any(".value." in name or ".output." in name for name in moved)
    with torch.no_grad():
        output = model(**batch)
    assert output.attention_loss < before and torch.equal(output.logits, logits)


def test_the_objective_holds_what_its_loss_reaches_and_nothing_else(rows):
    samples, perceptions = rows
    model, processor = built()
    batches = aligned(model, processor, finder_of(processor, perceptions), samples, perceptions)
    objective = AttentionObjective(model)
    batch = batches([Share(0, batches.usable[:4], range(4))])
    batch.pop(COUNT)
    objective(**batch)["loss"].backward()
    reached = {id(p) for p in model.parameters() if p.grad is not None}
    assert reached and reached == {id(p) for p in objective.parameters()}


def test_word_states_do_not_depend_on_which_batch_asks_first(rows):
    samples, perceptions = rows
    model, processor = tiny.made(perception={"context_layer": 2, "style": "compact", "fact_context": True})
    batch = batch_of(processor, samples, perceptions)
    groups = [{key: batch[key] for key in ("aux_input_ids", "aux_attention_mask")}]
    whole = WordCache(model, groups).fill(batch)["aux_words"]
    other = WordCache(model, groups)
    for row in reversed(range(len(whole))):
        alone = {key: value[row : row + 1] for key, value in batch.items() if key.startswith("aux_")}
        assert torch.equal(other.fill(alone)["aux_words"][0], whole[row])


def test_attention_to_latents_that_start_from_no_words_cannot_be_supervised(rows):
    samples, perceptions = rows
    model, processor = tiny.made(arithmetic="published")
    batch = batch_of(processor, samples, perceptions, finder_of(processor, perceptions))
    with pytest.raises(RecipeError, match="training.attention_supervision needs arithmetic: moai"):
        model(**batch)


def test_cached_words_are_those_of_the_forward(rows):
    samples, perceptions = rows
    model, processor = tiny.made(perception={"context_layer": 2, "style": "compact", "fact_context": True})
    cache = WordCache(model)
    batch = batch_of(processor, samples, perceptions)
    first = cache.fill(batch)
    again = cache.fill(batch)
    texts = {processor.verbalize(perception).text for perception in perceptions.values()}
    assert torch.equal(first["aux_words"], again["aux_words"]) and len(cache.rows) == len(texts)
    words = model.auxiliary.words(batch["aux_input_ids"], batch["aux_attention_mask"])
    real = batch["aux_attention_mask"].bool()
    assert torch.allclose(first["aux_words"][real], words[real], atol=2e-2)
    with torch.no_grad():
        assert torch.allclose(model(**first).loss, model(**batch).loss, atol=2e-2)
    cache.size = 1
    cache.fill(batch)
    assert len(cache.rows) == 1


@pytest.mark.parametrize(
    "changes,named",
    [
        ({"perception": {"inject": "prompt"}}, "perception.inject: mixers"),
        ({"perception": {"experts": []}}, "perception.experts"),
    ],
)
@pytest.mark.parametrize("plan", [{"training": {"attention_supervision": 0.3}}, {"stages": [ALIGN, tiny.stage()]}])
def test_a_recipe_whose_attention_cannot_be_supervised_is_refused(changes, named, plan):
    with pytest.raises(ValueError, match=f"and stages with objective: attention need .*{named}"):
        tiny.recipe(**plan, **changes)
    tiny.recipe(**changes)


def test_without_mixers_no_attention_is_supervised():
    without = {"mixer": {"layers": []}, "stages": [tiny.stage(train={"connector": 1e-3})]}
    with pytest.raises(ValueError, match="objective: attention need .*mixer.layers"):
        tiny.recipe(training={"attention_supervision": 0.3}, **without)
    with pytest.raises(ValueError, match="stages.align.train.mixers needs mixer.layers"):
        tiny.recipe(**{**without, "stages": [ALIGN, *without["stages"]]})
    tiny.recipe(**without)


@pytest.mark.slow
def test_a_supervised_run_logs_its_attention_loss_and_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    from moai.training.log import read_log
    from moai.training.trainer import train

    tiny.register()
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "cache"))
    changes = {
        "mixer": {"null_token": True, "qk_norm_scale": None},
        "perception": {"context_layer": 2, "fact_context": True},
    }
    plan = {"attention_supervision": 0.3, "mixed_lengths": True}
    stages = [ALIGN, tiny.stage("modules", routing="random_module"), tiny.stage("gates", continues=True)]
    recipe = tiny.recipe(training=plan, stages=stages, **changes)
    whole = train(recipe, tmp_path / "whole")
    assert all(line["attention"] > 0 for line in read_log(whole))
    assert [line["stage"] for line in read_log(whole)] == ["align"] * 4 + ["modules"] * 3 + ["gates"] * 3

    # After a checkpoint in each stage: the second begins anew where the words in context are not yet cached.
    tiny.interrupt(monkeypatch, 3, 6, 9)
    for resume in (False, True, True):
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "part", resume=resume)
    part = train(recipe, tmp_path / "part", resume=True)
    timeless = [[{k: v for k, v in line.items() if k != "seconds"} for line in read_log(run)] for run in (part, whole)]
    assert timeless[0] == timeless[1]
    assert (part / "moai.safetensors").read_bytes() == (whole / "moai.safetensors").read_bytes()


def test_perceptions_that_never_say_an_answer_cannot_align(rows):
    samples, perceptions = rows
    silent = {image: tiny.seen("cat", "dog") for image in perceptions}
    model, processor = built()
    opened = [sample for sample in samples if sample.answer not in ("yes", "no")]
    with pytest.raises(RecipeError, match=r"stages\.align can teach nothing; drop it"):
        aligned(model, processor, finder_of(processor, silent), opened, silent)


def test_something_has_to_train():
    with pytest.raises(ValueError, match="stages.gates has nothing to train; name a part under train"):
        tiny.recipe(stages=[tiny.stage(train={})])


def test_held_out_questions_are_measured_and_change_nothing():
    """Their loss is that of a batch of them, and falls with what is learnt only as far as it is alike."""
    model, processor = built()
    samples = tiny.dataset("train")
    perceptions = {sample.image_ids[0]: tiny.seen(f"{sample.image_ids[0].split('-')[0]} shape") for sample in samples}
    finder = finder_of(processor, perceptions)
    made = aligned(model, processor, finder, samples, perceptions)
    objective, held_out = AttentionObjective(model), HeldOutAttention(model, processor, finder, samples, perceptions)
    assert held_out.usable == made.usable
    batch = made([Share(0, made.usable, range(len(made.usable)))])
    batch.pop(COUNT)
    expected = float(objective(**batch)["loss"].detach())
    before = {name: p.clone() for name, p in model.adapter_parameters().items()}
    assert held_out.measure(objective) == {"attention_validation": pytest.approx(expected, abs=1e-5)}
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in model.adapter_parameters().items())
    assert HeldOutAttention(model, processor, finder, samples[:2], {}).measure(objective) == {}
