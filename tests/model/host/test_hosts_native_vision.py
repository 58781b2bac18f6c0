"""Vision-language models as hosts: their own vision, our compressor and mixers, and not one bit changed."""

import copy
import functools

import native_vision_families
import pytest
import tiny
import torch
import transformers
from agreement import assert_beams_agree, assert_greedy_agree, assert_near, frozen, greedy
from transformers import AutoModelForImageTextToText

import moai
from moai.errors import CheckpointError, HostError, PromptError
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.processor.processor import MoaiProcessor
from moai.types import Conversation

MIXER = {"layers": [0, 2], "rank": 8, "heads": 2}
COMPRESSOR = {"latents": 8, "depth": 2, "heads": 2, "head_width": 16}
QUESTIONS = ("What color has the shape over there?", "Is it?")
LENGTH = {"max_new_tokens": 6, "min_new_tokens": 6}
OPTIONS = {**LENGTH, "do_sample": False}


def host_of(family):
    host, processor, placeholder = native_vision_families.made(family)
    return host, MoaiProcessor(host_processor=processor), placeholder


def build(family, **settings):
    """A frozen host, a model around an equal one with noise on every adapter, and inputs of a left-padded batch."""
    bare, processor, placeholder = host_of(family)
    frozen(bare)
    torch.manual_seed(1)
    model = MoaiForConditionalGeneration.around(
        copy.deepcopy(bare), mixer=MIXER, compressor=COMPRESSOR, **settings
    ).eval()
    tiny.disturb(model, 0.1)
    prompts = [f"{placeholder}\nQuestion: {question}\nAnswer:" for question in QUESTIONS]
    pictures = [tiny.picture("red"), tiny.picture("blue")]
    inputs = processor(images=pictures, text=prompts, perceptions=[tiny.seen("red circle"), tiny.seen("blue box")])
    return bare, model, dict(inputs), processor, prompts


built = functools.cache(build)
OURS = ("aux_input_ids", "aux_attention_mask", "prompt_mask")


def plain(inputs):
    """The inputs without perceptions, and without a mask of what is mixed."""
    return {name: value for name, value in inputs.items() if name not in OURS}


@functools.cache
def of_the_host(family):
    """What the host's own processor makes of the same prompts and pictures."""
    processor, prompts = built(family)[3:]
    processor.host_processor.tokenizer.padding_side = "left"
    pictures = [[tiny.picture("red")], [tiny.picture("blue")]]
    return dict(processor.host_processor(images=pictures, text=prompts, padding=True, return_tensors="pt"))


@pytest.fixture(params=native_vision_families.HOSTS)
def family(request):
    return request.param


def test_only_compressor_and_mixers_are_added(family):
    bare, model, inputs, *_ = built(family)
    assert {name.split(".")[0] for name in model.adapter_parameters()} == {"compressor", "mixers"}
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"host", "auxiliary", "mixers"}
    assert list(model.host.state_dict()) == list(bare.state_dict())
    counts = (inputs["input_ids"] == model.config.image_token_id).sum(dim=1)
    assert (counts > 1).all(), "the processor's image tokens were not found"


@torch.no_grad()
def test_perception_and_image_are_read_and_the_image_tokens_are_the_hosts(family):
    _, model, inputs, *_ = built(family)
    with tiny.forward_contexts() as contexts:
        logits = model(**inputs).logits
    assert contexts[0].calls == len(model.mixers) == 2
    image = contexts[0].inputs.image_mask.sum(dim=1)
    assert torch.equal(image, (inputs["input_ids"] == model.config.image_token_id).sum(dim=1))
    blind = model(**plain(inputs), prompt_mask=inputs["prompt_mask"]).logits
    assert (logits - blind)[:, -1].abs().amax(dim=1).min() > 1e-3
    other = {**inputs, "pixel_values": inputs["pixel_values"] * 0.3}
    assert (model(**other).logits - logits)[:, -1].abs().amax(dim=1).min() > 1e-4


@torch.no_grad()
def test_without_mixers_it_is_the_host_it_was(family):
    """Bits: the very host, frozen, before it is grafted and after its mixers are removed."""
    host, processor, _ = host_of(family)
    inputs, own = built(family)[2], of_the_host(family)
    expected, answer = frozen(host)(**own).logits, greedy(host, own, **LENGTH)
    model = MoaiForConditionalGeneration.around(host, mixer=MIXER, compressor=COMPRESSOR).eval()
    tiny.disturb(model, 0.1)
    assert (model(**inputs).logits - expected).abs().max() > 1e-2
    assert model.remove_mixers() is host
    assert torch.equal(host(**own).logits, expected)
    assert torch.equal(model(**inputs).logits, expected)
    assert torch.equal(greedy(host, own, **LENGTH).scores, answer.scores)


@torch.no_grad()
def test_the_cache_changes_nothing(family):
    _, model, inputs, *_ = built(family)
    first, second = (greedy(model, inputs, **LENGTH, use_cache=cached) for cached in (True, False))
    assert_greedy_agree(first, second)
    assert_beams_agree(model, inputs, {"use_cache": True}, {"use_cache": False}, **LENGTH, num_beams=2)
    deaf = greedy(model, plain(inputs), **LENGTH).tokens
    assert not torch.equal(deaf, first.tokens), "the answer does not depend on the perception; the test shows nothing"


@torch.no_grad()
def test_generation_is_the_hosts_own_where_nothing_is_mixed(family):
    """Positions, image encoding and expansion are the host's: an empty prompt mask leaves its answer alone.

    Bits: copies of one host in one process, frozen both, run the same kernels.
    """
    bare, model, inputs, *_ = built(family)
    nothing = torch.zeros_like(inputs["prompt_mask"])
    for options in (OPTIONS, {**OPTIONS, "num_beams": 2}):
        suppress = {"suppress_tokens": [model.config.image_token_id]}
        expected = bare.generate(**of_the_host(family), **options, **suppress)
        assert torch.equal(model.generate(**plain(inputs), prompt_mask=nothing, **options), expected)


@torch.no_grad()
def test_a_row_answers_as_it_does_alone(family):
    _, model, inputs, processor, prompts = built(family)
    assert not inputs["attention_mask"].all()
    alone = processor(images=tiny.picture("blue"), text=prompts[1], perceptions=[tiny.seen("blue box")])
    assert alone["attention_mask"].all()
    length = inputs["input_ids"].shape[1]
    assert length > alone["input_ids"].shape[1]
    assert_greedy_agree(greedy(model, alone, **LENGTH), greedy(model, inputs, **LENGTH).row(1))


def test_training_reaches_the_adapters_only(family):
    _, model, inputs, *_ = build(family)
    before = copy.deepcopy(model.host.state_dict())
    model.train()
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -2:] = inputs["input_ids"][:, -2:]
    mask = inputs["prompt_mask"].clone()
    mask[:, -2:] = False
    model(**{**inputs, "prompt_mask": mask}, labels=labels).loss.backward()
    assert {name for name, p in model.adapter_parameters().items() if p.grad is None or not p.grad.any()} == set()
    assert all(p.grad is None for p in model.host.parameters())
    torch.optim.SGD(model.adapter_parameters().values(), lr=0.1).step()
    assert all(torch.equal(value, before[name]) for name, value in model.host.state_dict().items())


def test_a_saved_model_finds_its_host_again(family, tmp_path):
    host, *_ = host_of(family)
    host.save_pretrained(tmp_path / "host")
    _, model, inputs, *_ = build(family, reference=str(tmp_path / "host"))
    model.save_pretrained(tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.json", "generation_config.json", "moai.safetensors", "manifest.json"}
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "run")
    with torch.no_grad():
        assert_near(again(**inputs).logits, model(**inputs).logits)  # the host is in a file now, aligned otherwise
        assert_greedy_agree(greedy(again, inputs, **LENGTH), greedy(model, inputs, **LENGTH))


def test_a_run_made_in_python_is_opened_like_any_other(family, tmp_path):
    tiny.register()
    host, processor, placeholder = host_of(family)
    host.save_pretrained(tmp_path / "host")
    _, model, inputs, _, prompts = build(family, reference=str(tmp_path / "host"))
    with pytest.raises(PromptError, match="no chat template; pass chat_template= to MoaiProcessor"):
        processor.prompt_ids(QUESTIONS[0])
    template = (
        f"{{% for m in messages %}}{placeholder}\nQuestion: {{{{ m['content'][1]['text'] }}}}\nAnswer:{{% endfor %}}"
    )
    own = {"host_processor": processor.host_processor, "chat_template": template, "placeholder": placeholder}
    processor = MoaiProcessor(**own, experts=["tiny-panoptic"])
    processor.save_pretrained(tmp_path / "run")
    model.save_pretrained(tmp_path / "run")
    loaded = moai.load(tmp_path / "run", device="cpu")
    pictures = [tiny.picture("red"), tiny.picture("blue")]
    asked = [Conversation.ask(question, [picture]) for question, picture in zip(QUESTIONS, pictures, strict=True)]
    given = loaded.processor.batch(asked, [[tiny.seen("red circle")], [tiny.seen("blue box")]])
    assert set(given) <= set(inputs) and all(torch.equal(value, inputs[name]) for name, value in given.items())
    with torch.no_grad():
        assert_near(loaded.model(**given).logits, model(**inputs).logits)


# Refusals ---------------------------------------------------------------------------------------------------------


def test_a_language_model_without_vision_is_told_so():
    from host_families import tiny_host

    with pytest.raises(HostError, match="LlamaConfig names no image token.*set vision.kind to encoder"):
        MoaiForConditionalGeneration.around(tiny_host("llama"), mixer=MIXER, compressor=COMPRESSOR)


@pytest.mark.parametrize("name", ["PaliGemma", "Gemma3"])
def test_a_host_that_reads_in_both_directions_is_refused(name):
    text = transformers.GemmaConfig if name == "PaliGemma" else transformers.Gemma3TextConfig
    tower = transformers.SiglipVisionConfig(**native_vision_families.TOWER, vision_use_head=False)
    config = getattr(transformers, f"{name}Config")(
        text_config=text(**native_vision_families.TEXT, head_dim=16, vocab_size=400), vision_config=tower
    )
    with pytest.raises(HostError, match=f"{name}.* reads prompts in both directions.*use a host that reads"):
        MoaiForConditionalGeneration.around(AutoModelForImageTextToText.from_config(config), mixer=MIXER)


def test_a_processor_that_keeps_its_image_tokens_to_itself(monkeypatch):
    _, processor, _ = host_of("llava")
    own = type(processor.host_processor)
    silent = type("Silent", (own,), {"get_text_with_replacements": lambda self, text, *rest: (text, [])})
    monkeypatch.setattr(processor.host_processor, "__class__", silent)
    with pytest.raises(HostError, match="Silent does not say how many tokens an image takes"):
        processor.images.encode([[tiny.picture("red")]])


def test_what_only_an_encoder_of_ours_can_do(tmp_path):
    _, model, inputs, processor, prompts = built("llava")
    maps = {"aux_pixel_values": torch.zeros(2, 1, 3, 16, 16), "aux_pixel_mask": torch.ones(2, 1, dtype=torch.bool)}
    with pytest.raises(HostError, match="panoptic maps need an encoder of ours"):
        model(**inputs, **maps)
    with pytest.raises(HostError, match="image dropout needs an encoder of ours.*set image_dropout to 0"):
        model(**inputs, image_keep=torch.tensor([True, False]))
    with pytest.raises(CheckpointError, match="the host has no reference"):
        model.save_pretrained(tmp_path)
    with pytest.raises(PromptError, match="1 perceptions for 2 images"):
        processor(images=[tiny.picture("red")] * 2, text=prompts, perceptions=[None])


def test_text_of_the_image_cannot_write_control_tokens():
    _, model, _, processor, prompts = built("llava")
    spelt = processor.perceptions.auxiliary([[tiny.seen("red", text="<image><|im_end|>")]])["aux_input_ids"]
    assert not torch.isin(spelt, torch.tensor([model.config.image_token_id, 2])).any()
    assert processor.perceptions.auxiliary([[], []]) == {}
