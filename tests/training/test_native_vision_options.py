"""A host with its own vision, with the recipe's other options and the commands: what works, what is refused."""

import json

import native_vision_families
import pytest
import tiny
import torch

import moai
from moai.errors import PromptError
from moai.training.build import build
from moai.training.log import read_log
from moai.training.memory_plan.plan import plan
from moai.training.trainer import train
from moai.types import IMAGE, Conversation, Turn

PLAN = {"batch_size": 4, "schedule": {"warmup": 1}, "monitor_every": 2, "threads": 1}
QUESTION = "What color is the shape?"


pytestmark = pytest.mark.slow  # each of them over three families


@pytest.fixture(params=native_vision_families.HOSTS)
def family(request):
    return request.param


def small(family="llava", **changes):
    return native_vision_families.recipe(family, **{"training": {**PLAN, **changes.pop("training", {})}, **changes})


def augmented_of(recipe):
    model, processor = tiny.made_of(recipe)
    return moai.Augmented(model, processor, processor.perceiver)


def asked(images):
    return [Conversation.ask(QUESTION, [image]) for image in images]


# Options ----------------------------------------------------------------------------------------------------------


# All samples, and answers behind a space: the tiny vocabulary has the word " red", and "red" in pieces only.
WHOLE = [tiny.stage("modules", routing="random_module"), tiny.stage("gates", continues=True)]
SUPERVISED = {"host": {"chat_template": "question_answer"}, "compressor": {"latents": 48}}  # a slot for every word


def test_attention_supervision_and_align_work(family, tmp_path):
    given = {**SUPERVISED, "mixer": {"null_token": True}}
    plan = {"attention_supervision": 0.5}
    align = tiny.stage("align", objective="attention", train={"mixers": 2e-3})
    recipe = small(family, training=plan, stages=[align, *WHOLE], **given)
    first, second = (train(recipe, tmp_path / name) for name in ("first", "second"))
    lines = read_log(first)
    losses = [line["attention"] for line in lines]
    assert losses[4] > 0 and losses == [line["attention"] for line in read_log(second)]
    unaligned = train(small(family, training=plan, stages=WHOLE, **given), tmp_path / "unaligned")
    assert read_log(unaligned)[0]["attention"] != losses[3], "aligning changed nothing"


def test_aligning_asks_about_each_image(monkeypatch, tmp_path):
    """The host always gets the image, so the state of a prompt is that of one question about one image."""
    from moai.training.objectives import attention

    kept, cache = [], attention._cache

    def watched(*args):
        kept.append(cache(*args))
        return kept[-1]

    monkeypatch.setattr(attention, "_cache", watched)
    align = tiny.stage("align", 1, objective="attention", train={"mixers": 2e-3})
    train(small(**SUPERVISED, stages=[align, *WHOLE]), tmp_path / "run")
    keys = list(kept[0].questions)
    assert len(keys) > len({turns for _, turns in keys})
    assert set(keys) <= {(sample.image_ids, sample.conversation.prompt.turns) for sample in tiny.dataset("train")}
    states = torch.stack([kept[0].questions[key].states for key in keys if key[1] == keys[0][1]])
    assert (states[0] != states[1]).any(), "the image does not reach the state"


def test_words_are_read_in_context_and_by_fact(family, tmp_path):
    perception = {"context_layer": 1, "fact_context": True, "style": "compact"}
    run = train(small(family, perception=perception), tmp_path / "run")
    loaded = moai.load(run, device="cpu")
    seen = [[tiny.seen("red circle")], [tiny.seen("blue box", "green box")]]
    questions = asked([tiny.picture("red"), tiny.picture("blue")])
    together = loaded.processor.batch(questions, seen)
    with torch.no_grad():
        loaded.model(**together)  # what a family remembers of this batch must not reach the next one
        logits = loaded.model(**together).logits[:, -1]
        for row in range(2):
            alone = loaded.processor.batch(questions[row : row + 1], seen[row : row + 1])
            assert torch.allclose(loaded.model(**alone).logits[0, -1], logits[row], atol=2e-4)


def test_words_in_the_prompt_stand_after_the_whole_image(family):
    augmented = augmented_of(small(family, perception={"inject": "prompt"}))
    processor, seen, image = augmented.processor, tiny.seen("red circle"), tiny.picture("red")
    [ids] = processor.batch(asked([image]), [[seen]])["input_ids"].tolist()
    [bare] = processor.batch(asked([image]), [[None]])["input_ids"].tolist()
    words = [*processor.plain_ids(processor.verbalize(seen).text), *processor.plain_ids("\n")]
    text = processor.tokenizer.decode(ids)
    assert len(ids) == len(bare) + len(words) and processor.tokenizer.decode(words) in text
    tail = processor.placeholder.split(processor.image_token)[-1]
    assert text.split(processor.image_token)[-1].startswith(tail + "The image includes")
    inputs = processor(images=[image], text=[processor.placeholder + QUESTION], perceptions=[seen])
    assert processor.tokenizer.decode(words) in processor.tokenizer.decode(inputs["input_ids"][0])
    assert augmented.model(**inputs).logits.isfinite().all()


def test_a_host_in_half_precision(family, tmp_path):
    run = train(small(family, host={"dtype": "bfloat16"}), tmp_path / "run")
    loaded = moai.load(run, device="cpu")
    assert loaded.model.host.dtype == torch.bfloat16
    assert {p.dtype for p in loaded.model.adapter_parameters().values()} == {torch.float32}
    assert loaded.ask(tiny.picture("red"), QUESTION).verbalized


def test_what_an_answer_rests_on_and_what_it_costs(family):
    augmented = augmented_of(small(family))
    questions = asked([tiny.picture("red"), tiny.picture("blue").resize((64, 32))])
    seen = [[tiny.seen("red circle")], [None]]
    counts = augmented.token_counts(questions, seen)
    inputs = augmented.processor.batch(questions, seen)
    assert [count["prompt"] for count in counts] == inputs["attention_mask"].sum(dim=1).tolist()
    [explanation] = augmented.explain(questions[:1], seen[:1])
    assert "red" in json.dumps(explanation.to_dict())
    weights = augmented.gate_weights(questions, seen)
    assert len(weights[0][0]) == int((inputs["input_ids"] == augmented.model.config.image_token_id).sum())


def test_a_prompt_says_where_each_picture_stands(family):
    processor = augmented_of(small(family)).processor
    images = [tiny.picture("red"), tiny.picture("blue")]
    with pytest.raises(PromptError, match="2 images for 1 image marks"):
        Conversation([Turn("user", (IMAGE, QUESTION))], images)
    with pytest.raises(PromptError, match="image placeholders for 2 images"):
        processor(images=images, text=[processor.placeholder + QUESTION])


# Commands ---------------------------------------------------------------------------------------------------------


def test_the_commands(family, run_cli, tmp_path, monkeypatch):
    tiny.draw_nothing(monkeypatch)
    path, run, image = tmp_path / "own-vision.yaml", tmp_path / "run", tmp_path / "red.png"
    evaluation = {"limit": 4, "batch_size": 3, "max_new_tokens": 2}
    path.write_text(small(family, evaluation=evaluation).to_yaml())
    image.write_bytes(tiny.png(tiny.picture("red")))
    trained = run_cli("train", path, "--run", run)
    assert trained.exit_code == 0, trained.output
    evaluated = run_cli("eval", run)
    assert evaluated.exit_code == 0, evaluated.output
    assert "shuffled" in evaluated.stdout and list(run.glob("eval/*.json"))
    asked = run_cli("ask", run, image, QUESTION, "--json")
    assert asked.exit_code == 0, asked.output
    assert "red" in json.loads(asked.stdout)["verbalized"]


def test_a_plan_counts_what_is_built(family, run_cli, tmp_path):
    recipe = small(family)
    model, processor = build(recipe)
    made = plan(recipe, picture=(64, 32), prompt=6, aux=10)
    parts = {part.name: part.parameters for part in made.parts}
    expected = {"host": model.host, **model.adapters()}
    assert parts == {name: sum(p.numel() for p in module.parameters()) for name, module in expected.items()}
    [place], _ = processor.images.encode([[tiny.picture("blue").resize((64, 32))]])
    assert made.tokens["image"] == len(place)
    path = tmp_path / "own-vision.yaml"
    path.write_text(recipe.to_yaml())
    printed = run_cli("plan", path, "--picture", "64x32")
    assert printed.exit_code == 0, printed.output
    assert "host" in printed.output and "vision" not in printed.output and f"{len(place)} image" in printed.output
