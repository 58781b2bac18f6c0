"""Which words a question should read: in the right fact, only where words and answer agree."""

from dataclasses import replace

import pytest
import tiny
import torch

from moai.data.collate import Collator
from moai.errors import RecipeError
from moai.training.objectives.alignment import align
from moai.training.objectives.supervision import Guide, guide_for
from moai.training.word_cache import KeptWords

WORDS = "top red circle , left blue star , red circle right of blue star . text bread".split()
OTHER = "center green square , text lemon".split()


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

    def of(question, answer, none_token=True, words=WORDS):
        guide = Guide(rows, table.ids(", ."), lambda token: table.known[token], none_token)
        found = guide.targets(table.ids(words), table.ids(question), table.ids(answer), answer)
        return found

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


def test_without_a_none_token_nothing_stands_for_no(find):
    assert find("is there a green circle ?", "no", none_token=False) == []


def test_a_plural_asks_for_its_singular(find):
    words = "two circle . one red . text bread".split()
    assert find("how many circles ?", "two", words=words) == [[0]]


def test_of_two_facts_that_say_the_answer_the_one_without_other_things_counts(find):
    words = "right of red circle , top of star , top star left of red circle".split()
    assert find("in which part of it is the star ?", "top", words=words) == [[5]]


def test_how_every_perception_begins_is_said_of_nothing(table):
    rows = [table.ids(f"the image has , {name} .".split()) for name in ("red circle", "blue star", "green box")]
    guide = Guide(rows, table.ids(", ."), lambda token: table.known[token], none_token=True)
    question = table.ids("what color is the circle in the image ?")  # "the image" is more than "circle"
    assert guide.targets(rows[0], question, table.ids("red"), "red") == [[4]]


def test_case_and_spaces_do_not_count(table):
    rows = [table.ids("Top circle".split())]
    guide = Guide(rows, [], lambda token: " " + table.known[token] + " ")
    assert guide.targets(rows[0], table.ids("where is the circle ?"), table.ids("top"), "top") == [[0]]


# With a model -----------------------------------------------------------------------------------------------------


def built(**changes):
    mixer = {"none_token": True, "match_init": True, "sharpness": None, "question_context": True}
    perception = {"style": "compact", "fact_context": True, "panoptic_map": False}
    return tiny.made(noise=0.0, perception=perception, mixer=mixer, **changes)


def guided(processor, seen):
    return Collator(processor, guide=guide_for(processor, seen, none_token=True))


@pytest.fixture
def rows():
    samples = tiny.dataset("train")[:16]
    return samples, {sample.image_id: tiny.seen(sample.image_id.split("-")[0], "circle") for sample in samples}


def test_a_batch_names_words_of_its_own_row(rows):
    samples, perceptions = rows
    model, processor = built()
    collator = guided(processor, perceptions.values())
    batch = collator(samples, [perceptions[sample.image_id] for sample in samples])
    assert batch["guide"].shape == (len(samples), 1, batch["aux_input_ids"].shape[1] + 1)
    padding = torch.nn.functional.pad(batch["aux_attention_mask"] == 0, (0, 1))[:, None]
    assert not (batch["guide"] & padding).any() and batch["guide"].any()
    for row, sample in enumerate(samples):
        marked = batch["aux_input_ids"][row][batch["guide"][row, 0, :-1]]
        if sample.answer not in ("yes", "no") and len(marked):
            assert sample.answer in processor.tokenizer.decode(marked)
    output = model(**batch)
    assert output.guide_loss > 0 and output.guide_loss.requires_grad
    assert "guide" not in collator(samples, [None] * len(samples))


def test_a_gloss_says_what_is_asked_for_and_is_not_shown(rows):
    samples, perceptions = rows
    seen = [perceptions[sample.image_id] for sample in samples]
    collator = guided(built()[1], perceptions.values())
    foreign = [replace(sample, question="그것은?", gloss=sample.question) for sample in samples]
    plain, glossed = collator(samples, seen), collator(foreign, seen)
    without = collator([replace(sample, gloss=None) for sample in foreign], seen)
    assert torch.equal(glossed["guide"], plain["guide"]) and not torch.equal(without["guide"], plain["guide"])
    assert torch.equal(glossed["input_ids"], without["input_ids"])


def test_an_answer_of_two_words_asks_for_both(rows):
    samples, perceptions = rows
    model, processor = built(compressor={"latents": 64})
    two = [replace(s, image_id="both", question="What is it?", answer="red circle", kind="open") for s in samples[:8]]
    mixed, perceptions = [*two, *samples[8:]], {**perceptions, "both": tiny.seen("red circle")}
    collator = guided(processor, perceptions.values())
    batch = collator(mixed, [perceptions[sample.image_id] for sample in mixed])
    said = [batch["aux_input_ids"][0][group[:-1]].tolist() for group in batch["guide"][0] if group.any()]
    answer = processor.answer_ids("What is it?", "red circle")[:-1]
    assert len(answer) > 1 and [set(group) for group in said] == [{token} for token in answer]
    assert batch["guide"][8:].any(dim=2).sum(dim=1).max() < len(answer)  # a batch may mix both
    with torch.no_grad():
        whole = model(**batch).guide_loss
        either = batch["guide"].any(dim=1, keepdim=True)
        assert model(**{**batch, "guide": either}).guide_loss < whole
    losses = align(model, collator, mixed, perceptions, steps=40, batch_size=8, learning_rate=1e-2, seed=0)
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_aligning_teaches_where_to_look_and_nothing_else(rows):
    samples, perceptions = rows
    model, processor = built()
    batch = guided(processor, perceptions.values())(samples, [perceptions[sample.image_id] for sample in samples])
    with torch.no_grad():
        before, logits = model(**batch).guide_loss, model(**batch).logits
    old = {name: p.detach().clone() for name, p in model.adapter_parameters().items()}
    told = []
    losses = align(
        model, guided(processor, perceptions.values()), samples, perceptions,
        steps=60, batch_size=8, learning_rate=1e-2, seed=0, advance=lambda count, text: told.append(text),
    )  # fmt: skip
    assert len(losses) == len(told) == 60 and sum(losses[-10:]) < 0.9 * sum(losses[:10])
    moved = {name for name, p in model.adapter_parameters().items() if not torch.equal(p, old[name])}
    assert moved and all(name.endswith(".none") or ".language_aux." in name for name in moved)
    assert not any(".value." in name or ".output." in name for name in moved)
    with torch.no_grad():
        output = model(**batch)
    assert output.guide_loss < before and torch.equal(output.logits, logits)


def test_aligning_is_the_same_again(rows):
    samples, perceptions = rows
    found = []
    for _ in range(2):
        model, processor = built()
        collator = guided(processor, perceptions.values())
        found.append(align(model, collator, samples, perceptions, steps=5, batch_size=4, learning_rate=1e-3, seed=3))
    assert found[0] == found[1]


def test_latents_that_start_from_no_words_cannot_be_guided(rows):
    samples, perceptions = rows
    model, processor = tiny.made(arithmetic="published")
    batch = guided(processor, perceptions.values())(samples, [perceptions[sample.image_id] for sample in samples])
    with pytest.raises(RecipeError, match="training.guide needs arithmetic: moai"):
        model(**batch)


def test_kept_words_are_those_of_the_forward(rows):
    samples, perceptions = rows
    model, processor = tiny.made(perception={"context_layer": 2, "style": "compact", "fact_context": True})
    kept = KeptWords(model)
    batch = Collator(processor)(samples, [perceptions[sample.image_id] for sample in samples])
    first = kept.add(batch)
    again = kept.add(batch)
    assert torch.equal(first["aux_words"], again["aux_words"]) and len(kept.rows) == len({p for p in kept.rows})
    words = model.aux_words(batch["aux_input_ids"], batch["aux_attention_mask"])
    real = batch["aux_attention_mask"].bool()
    assert torch.allclose(first["aux_words"][real], words[real], atol=2e-2)
    with torch.no_grad():
        assert torch.allclose(model(**first).loss, model(**batch).loss, atol=2e-2)
    kept.most = 1
    kept.add(batch)
    assert len(kept.rows) == 1


@pytest.mark.parametrize(
    "changes,named",
    [
        ({"perception": {"through": "prompt"}}, "through"),
        ({"perception": {"experts": []}}, "experts"),
        ({"mixer": {"layers": []}}, "mixer.layers"),
    ],
)
@pytest.mark.parametrize("plan", [{"guide": 0.3}, {"align": {"steps": 5}}])
def test_a_recipe_that_cannot_be_guided_is_refused(changes, named, plan):
    with pytest.raises(ValueError, match=f"training.guide and training.align need .*{named}"):
        tiny.recipe(training=plan, **changes)
    tiny.recipe(**changes)


def test_a_guided_run_logs_its_guide_and_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    from moai.training import trainer as running
    from moai.training.log import read_log

    tiny.register()
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "cache"))
    changes = {
        "mixer": {"none_token": True, "sharpness": None},
        "perception": {"context_layer": 2, "fact_context": True},
    }
    recipe = tiny.recipe(training={"guide": 0.3, "align": {"steps": 4}, "mixed_lengths": True}, **changes)
    whole = running.train(recipe, tmp_path / "whole")
    assert all(line["guide"] > 0 for line in read_log(whole))

    stepped = running._Run._step

    def killed(self, step, *rest):
        if step == 4:
            raise KeyboardInterrupt
        return stepped(self, step, *rest)

    monkeypatch.setattr(running._Run, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        running.train(recipe, tmp_path / "part")
    monkeypatch.setattr(running._Run, "_step", stepped)
    part = running.train(recipe, tmp_path / "part", resume=True)
    assert [line["loss"] for line in read_log(part)] == [line["loss"] for line in read_log(whole)]
    assert (part / "moai.safetensors").read_bytes() == (whole / "moai.safetensors").read_bytes()


def test_perceptions_that_never_say_an_answer_cannot_align(rows):
    samples, perceptions = rows
    silent = {image: tiny.seen("cat", "dog") for image in perceptions}
    model, processor = built()
    opened = [sample for sample in samples if sample.answer not in ("yes", "no")]
    with pytest.raises(RecipeError, match=r"training\.align can teach nothing"):
        align(
            model, guided(processor, silent.values()), opened, silent, steps=2, batch_size=4, learning_rate=1e-3, seed=0
        )


def test_something_has_to_train():
    frozen = {"steps": 1, "routing": "gates", "train_connector": False}
    with pytest.raises(ValueError, match="leaves nothing to train"):
        tiny.recipe(mixer={"layers": []}, training={"step1": frozen})
