"""A host with its own vision, trained from a recipe: what trains, what stays, what is saved, and what comes back."""

import native_vision_families
import pytest
import tiny
import torch
from agreement import assert_near
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

import moai
import moai.training.run
from moai.errors import RecipeError
from moai.model.processor.processor import MoaiProcessor
from moai.training.build import build
from moai.training.log import read_log
from moai.training.trainer import train
from moai.types import Conversation

QUESTIONS = ["What color is the shape?", "Is it red, or is it green?"]
RATES = {"compressor": 0.005, "mixers": 0.05}
SHORT = {"batch_size": 2, "schedule": {"warmup": 1}, "checkpoint_every": 1, "monitor_every": 2, "threads": 1}


def two(steps=1):
    """MoAI's two steps."""
    first = tiny.stage("modules", steps, routing="random_module", train=RATES)
    return [first, tiny.stage("gates", steps, continues=True, train={**RATES, "gates": 0.05})]


@pytest.fixture(params=native_vision_families.HOSTS)
def family(request):
    return request.param


def small(family, template=True, **changes):
    return native_vision_families.recipe(family, template, training=SHORT, **{"stages": two(), **changes})


def pictures():
    """Of two shapes: a host that cuts or scales images by their size makes different numbers of tokens of them."""
    return [tiny.picture("red"), tiny.picture("blue").resize((64, 32))]


def asked(images=None, questions=QUESTIONS):
    return [Conversation.ask(q, [i]) for i, q in zip(images or pictures(), questions, strict=True)]


def answers(augmented, seen=None):
    return augmented.answer(asked(), seen or [[tiny.seen("red circle")], [tiny.seen("blue box")]])


def placed(processor, image, question):
    """The ids of a prompt, with all tokens of its image."""
    return processor.batch([Conversation.ask(question, [image])], [[]])["input_ids"][0].tolist()


@pytest.fixture
def watched(monkeypatch):
    """The model that ``train`` builds, its processor, and its frozen half before the first step."""
    kept = {}

    def keep(recipe):
        kept["model"], kept["processor"] = build(recipe)
        kept["host"] = {name: tensor.clone() for name, tensor in kept["model"].host.state_dict().items()}
        kept["adapters"] = {name: p.detach().clone() for name, p in kept["model"].adapter_parameters().items()}
        return kept["model"], kept["processor"]

    monkeypatch.setattr(moai.training.run, "build", keep)
    return kept


def test_two_steps_train_save_and_load(family, tmp_path, watched):
    run = train(small(family), tmp_path / "run")
    model, processor = watched["model"], watched["processor"]
    assert {name.split(".")[0] for name in load_file(run / "moai.safetensors")} == {"compressor", "mixers"}
    after = model.host.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in watched["host"].items())
    moved = {name for name, p in model.adapter_parameters().items() if not torch.equal(p, watched["adapters"][name])}
    assert {name.split(".")[0] for name in moved} == {"compressor", "mixers"}
    assert [line["step"] for line in read_log(run)] == [1, 2] and "loss_shuffled" in read_log(run)[1]

    before = moai.Augmented(model.eval(), processor, processor.perceiver)
    loaded = moai.load(run, device="cpu")
    assert loaded.processor.host_processor is not None and loaded.processor.experts == ["tiny-panoptic"]
    inputs = [each.processor.batch(asked(), [[tiny.seen("red circle")], [None]]) for each in (before, loaded)]
    with torch.no_grad():
        logits = [each.model(**given).logits for each, given in zip((before, loaded), inputs, strict=True)]
    # Bits: host and adapters come from the same files, at the same places, and are frozen and copied alike.
    assert torch.equal(*logits)
    assert answers(loaded) == answers(before)
    answer = loaded.ask(tiny.picture("red"), QUESTIONS[0])
    assert "red" in answer.verbalized and not answer.failures


def test_the_auto_classes_open_the_run(family, tmp_path):
    model, processor = build(small(family))
    processor.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    again, twin = AutoModelForImageTextToText.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    assert type(twin) is MoaiProcessor and twin.host_processor is not None
    assert MoaiProcessor.from_pretrained(tmp_path).host_processor is not None
    assert twin.to_dict() == processor.to_dict() and twin.chat_template == processor.chat_template
    turns = tiny.user_turn(tiny.picture("red"), QUESTIONS[0])
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = twin.apply_chat_template(turns, **options)
    assert inputs["aux_attention_mask"].any(), "the experts did not look"
    expected = moai.Augmented(model.eval(), processor, processor.perceiver)
    [seen] = processor.perceiver.perceive([tiny.picture("red")])
    question = [Conversation.ask(QUESTIONS[0], [tiny.picture("red")])]
    assert torch.equal(inputs["input_ids"], processor.batch(question, [[seen]])["input_ids"])
    output = again.generate(**inputs, max_new_tokens=4, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    [text] = twin.batch_decode(output, skip_special_tokens=True)
    assert text.strip() == expected.answer(question, [[seen]], max_new_tokens=4)[0]


def test_a_template_that_begins_the_prompt_itself():
    """A tokenizer that begins texts does not begin it twice, nor does what users wrote pass for the beginning."""
    _, processor = build(small("llava", host={"chat_template": "question_answer"}))
    turns = tiny.user_turn(tiny.picture("red"), "<|im_start|>What <image>?")
    inputs = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=True)
    ids = inputs["input_ids"][0].tolist()
    assert ids[0] == 1 and ids.count(1) == 1
    assert placed(processor, tiny.picture("red"), "<|im_start|>What <image>?") == ids


def test_the_pipeline_answers(tmp_path):
    model, processor = build(small("qwen"))
    processor.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    pipe = pipeline("image-text-to-text", model=str(tmp_path))
    turns, length = tiny.user_turn(tiny.picture("red"), QUESTIONS[0]), {"max_new_tokens": 4, "min_new_tokens": 4}
    [answer] = pipe(text=turns, generate_kwargs=length, return_full_text=False)
    inputs = processor.batch([Conversation.ask(QUESTIONS[0], [tiny.picture("red")])])
    ids = model.eval().generate(**inputs, **length)[0, inputs["input_ids"].shape[1] :]
    assert answer["generated_text"].strip() == processor.tokenizer.decode(ids, skip_special_tokens=True).strip() != ""


def test_prompts_are_the_hosts_own(family):
    """With its own template, the ids that its own processor makes of the same conversation and images."""
    assert build(small("llava"))[1].prompts._start, "LLaVA's tokenizer begins no text; this shows too little"
    model, processor = build(small(family))
    own = AutoProcessor.from_pretrained(native_vision_families.folder(family))
    own.tokenizer.padding_side = "left"
    given = processor.batch(asked(), [[], []])
    rows = [ids[mask].tolist() for ids, mask in zip(given["input_ids"], given["attention_mask"].bool(), strict=True)]
    about_text = ("input_ids", "attention_mask", "prompt_mask")
    tensors = {name: tensor for name, tensor in given.items() if name not in about_text}
    turns = [tiny.user_turn(image, q) for image, q in zip(pictures(), QUESTIONS, strict=True)]
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    expected = own.apply_chat_template(turns, **options, processor_kwargs={"padding": True})
    kept = expected["attention_mask"].bool()
    assert rows == [ids[mask].tolist() for ids, mask in zip(expected["input_ids"], kept, strict=True)]
    assert {"pixel_values"} <= set(tensors) <= set(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors.items())
    bare = AutoModelForImageTextToText.from_pretrained(native_vision_families.folder(family))
    model.remove_mixers()
    with torch.no_grad():
        # Two loads, of which one is frozen: near, and not bit for bit.
        assert_near(model.eval()(**given).logits, bare(**expected).logits)


@pytest.mark.parametrize(
    "chat_template", ["question_answer", "{% for m in messages %}{{ m['content'] }} A:{% endfor %}"]
)
def test_without_a_template_of_its_own_the_recipes_is_taken(family, chat_template):
    with pytest.raises(RecipeError, match="has no chat template; set host.chat_template"):
        build(small(family, template=False))
    _, processor = build(small(family, template=False, host={"chat_template": chat_template}))
    placeholder = native_vision_families.made(family)[2]
    text = processor.tokenizer.decode(processor.prompt_ids("What?"))
    assert f"{placeholder}What?" in text and text.endswith((" Answer:", " A:"))


def test_what_is_asked_and_seen_writes_no_image(family):
    model, processor = build(small(family))
    token = processor.image_token
    prompt = processor.prompt_ids(f"What is {token} here?")
    assert prompt.count(model.config.image_token_id) == 1
    spoken = processor.perceptions.auxiliary([[tiny.seen("red", text=f"{token}<|im_end|>")]])["aux_input_ids"]
    assert not torch.isin(spoken, torch.tensor([model.config.image_token_id, 2])).any()


def test_only_the_answer_is_learnt(family):
    _, processor = build(small(family))
    samples = tiny.dataset("train")[6:10]
    batch = processor.batch([sample.conversation for sample in samples], [[None]] * 4, labels=True)
    for row, sample in enumerate(samples):
        answer = batch["input_ids"][row][batch["labels"][row] != -100]
        assert processor.tokenizer.decode(answer, skip_special_tokens=True).strip() == sample.answer
        assert answer[-1] == processor.tokenizer.eos_token_id
        assert not (batch["prompt_mask"][row] & (batch["labels"][row] != -100)).any()
        assert batch["attention_mask"][row].sum() == batch["prompt_mask"][row].sum() + len(answer)
        prompt = placed(processor, sample.conversation.images[0], sample.question)
        assert batch["input_ids"][row][batch["prompt_mask"][row]].tolist() == prompt


@torch.no_grad()
def test_a_batch_equals_single_rows(family):
    """Padded on the left to answer, and on the right to train; pictures of different sizes beside each other."""
    model, processor = tiny.made_of(small(family))
    augmented = moai.Augmented(model, processor, processor.perceiver)
    seen = [[tiny.seen("red circle")], [tiny.seen("blue box", "green box")]]
    together = processor.batch(asked(), seen)
    assert not together["attention_mask"][:, 0].all() and together["attention_mask"][:, -1].all()
    logits = model(**together).logits[:, -1]
    for row in range(2):
        alone = processor.batch(asked()[row : row + 1], seen[row : row + 1])
        assert torch.allclose(model(**alone).logits[0, -1], logits[row], atol=2e-4)
    single = [augmented.answer([one], [given])[0] for one, given in zip(asked(), seen, strict=True)]
    assert answers(augmented, seen) == single
    samples = tiny.dataset("train")[7:9]
    conversations = [sample.conversation for sample in samples]
    whole = processor.batch(conversations, seen, labels=True)
    assert not whole["attention_mask"][:, -1].all(), "the rows are of one length; the test shows nothing"
    single = [processor.batch([c], [p], labels=True) for c, p in zip(conversations, seen, strict=True)]
    losses = [float(model(**batch).loss) for batch in single]
    counts = (whole["labels"] != -100).sum(dim=1)
    expected = sum(loss * int(count) for loss, count in zip(losses, counts, strict=True)) / int(counts.sum())
    assert float(model(**whole).loss) == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_a_resumed_run_repeats_an_uninterrupted_one(tmp_path, monkeypatch):
    whole = train(small("qwen", stages=two(2)), tmp_path / "whole")
    with monkeypatch.context() as patch:
        tiny.interrupt(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(small("qwen", stages=two(2)), tmp_path / "parts")
    resumed = train(small("qwen", stages=two(2)), tmp_path / "parts", resume=True)
    assert (resumed / "moai.safetensors").read_bytes() == (whole / "moai.safetensors").read_bytes()
    assert [line["loss"] for line in read_log(resumed)] == [line["loss"] for line in read_log(whole)]
