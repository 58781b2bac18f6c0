"""From a recipe to a model: the arithmetic, counts at the published width, and parts that are found by themselves."""

import copy

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

import moai
from moai.errors import AssetError, ExpertError, RecipeError
from moai.model.encoders.compressor import Compressor
from moai.model.host.layers import mixer_layers
from moai.model.mixer.mixer import Mixer
from moai.model.modeling import MoaiForConditionalGeneration
from moai.recipe.schema import Recipe
from moai.training.build import build, build_processor
from moai.training.trainer import train


def published(**changes):
    """The tiny recipe with the published arithmetic, at the published sizes, in layers that the tiny host has."""
    sections = tiny.recipe().model_dump(mode="json")
    sections.update(arithmetic="published", mixer={"layers": [1, 3]}, compressor={})
    return Recipe(**{**sections, **changes})


def test_the_published_arithmetic_builds_trains_and_answers(tmp_path):
    run = train(published(), tmp_path / "run")
    augmented = moai.load(run, device="cpu")
    assert augmented.model.config.arithmetic == "published" and augmented.model.auxiliary.compressor.published
    mixer = augmented.model.mixers["1"]
    assert not mixer.normalize and mixer.attention["image_aux"].qk_norm_scale is None
    assert mixer.attention["image_aux"].query.gelu and not mixer.fuses
    assert augmented.ask(tiny.picture("red"), "What color?").verbalized


ALIGN = tiny.stage("align", objective="attention", train={"mixers": 2e-3})


@pytest.mark.parametrize(
    "key, changes",
    [
        ("mixer.qk_norm_scale", {"mixer": {"layers": [1], "qk_norm_scale": 4.0}}),
        ("mixer.tie_qk_at_init", {"mixer": {"layers": [1], "tie_qk_at_init": True}}),
        ("mixer.null_token", {"mixer": {"layers": [1], "null_token": True}}),
        ("mixer.question_context", {"mixer": {"layers": [1], "question_context": 1.0}}),
        ("mixer.copy_words", {"mixer": {"layers": [1], "copy_words": True}}),
        ("training.attention_supervision", {"training": {"attention_supervision": 0.3}}),
        ("stages.align.objective: attention", {"stages": [ALIGN]}),
    ],
)
def test_the_published_arithmetic_refuses_what_it_cannot_have(key, changes):
    with pytest.raises(ValueError, match=f"arithmetic: published has no {key}; use arithmetic: moai, or set it to"):
        published(**changes)


def test_an_unknown_arithmetic_is_refused():
    with pytest.raises(ValueError, match="arithmetic"):
        published(arithmetic="publish")
    for part in (Mixer, Compressor):
        with pytest.raises(RecipeError, match="there is no arithmetic 'publish'; did you mean 'published'"):
            part(32, arithmetic="publish")


def test_the_published_arithmetic_counts_as_published_at_width_4096():
    """Four mixers in a 32-layer host of width 4096: 50.4 M, 2.10 M per module; compressor 151.4 M."""
    template, _ = build(tiny.recipe())
    recipe = published(mixer={})
    config = copy.deepcopy(template.config)
    config.arithmetic = "published"
    config.mixer, config.compressor = recipe.mixer.model_dump(), recipe.compressor.model_dump()
    sizes = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
    shape = LlamaConfig(**sizes, intermediate_size=8, vocab_size=8)
    with torch.device("meta"):
        host = AutoModelForCausalLM.from_config(shape)
        model = MoaiForConditionalGeneration(config, host=host, vision=template.images.vision)
    assert list(model.mixers) == ["7", "15", "23", "31"]

    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert round(count(model.mixers) / 1e6, 1) == 50.4
    assert round(count(model.auxiliary.compressor) / 1e6, 1) == 151.4
    modules = [module for mixer in model.mixers.values() for module in mixer.attention.values()]
    assert len(modules) == 24 and {round(count(module) / 1e6, 2) for module in modules} == {2.10}


@pytest.mark.parametrize(
    "count, layers, every, expected",
    [
        (32, None, 8, [7, 15, 23, 31]),
        (32, None, None, [7, 15, 23, 31]),
        (30, None, 8, [7, 15, 23]),
        (4, [3, 0, 3], None, [0, 3]),
        (4, [], 2, []),
        (4, None, 2, [1, 3]),
    ],
)
def test_which_layers_get_a_mixer(count, layers, every, expected):
    assert mixer_layers(count, layers, every) == expected


def test_the_seed_decides_the_start_and_nothing_else_does():
    torch.manual_seed(0)
    first = build(tiny.recipe())[0].adapter_parameters()
    torch.manual_seed(99)
    second = build(tiny.recipe())[0].adapter_parameters()
    third = build(tiny.recipe(seed=1))[0].adapter_parameters()
    assert all(torch.equal(first[name], p) for name, p in second.items())
    assert not torch.equal(first["compressor.latents"], third["compressor.latents"])


def test_image_tokens_are_counted_by_running_one_image():
    for size, tokens in ((64, 4), (128, 16)):
        model, processor = build(tiny.recipe(vision={"image_size": size}))
        assert model.config.image_tokens == processor.image_tokens == tokens
    average = {"kind": "average", "options": {"side": 3}}
    model, processor = build(tiny.recipe(vision={"image_size": 128, "connector": average}))
    assert processor.image_tokens == 9
    inputs = tiny.prompt_inputs(processor, ["What?"], [tiny.seen("red")])
    assert model(**inputs).logits.isfinite().all()


def test_weights_that_do_not_fit_the_encoder():
    with pytest.raises(AssetError, match="do not fit the architecture .*change vision.architecture or vision.ref"):
        build(tiny.recipe(vision={"architecture": "test_resnet"}))


def test_a_folder_that_is_no_host(tmp_path):
    with pytest.raises(AssetError, match="config.json"):
        build(tiny.recipe(host={"reference": str(tmp_path)}))


def test_an_unknown_quantisation_is_refused_by_the_recipe():
    with pytest.raises(ValueError, match="nf4"):
        tiny.recipe(host={"quantization": "int3"})


def test_options_of_an_expert_that_is_left_out_are_no_mistake_but_those_of_an_unknown_one_are():
    tiny.register()
    _, processor = build(tiny.recipe(perception={"experts": [], "options": {"tiny-panoptic": {}}}))
    assert processor.expert_options == {} and processor.perceiver.experts == ()
    with pytest.raises(ExpertError, match="tiny-panoptik"):
        build(tiny.recipe(perception={"options": {"tiny-panoptik": {}}}))


def test_the_processor_alone_is_that_of_the_model_and_reads_no_weights(monkeypatch):
    recipe = tiny.recipe(vision={"image_size": 128})
    whole = build(recipe)[1]
    for place in ("moai.training.build.load_host", "moai.model.encoders.vision._read"):
        monkeypatch.setattr(place, lambda *args, **kwargs: pytest.fail("weights were read"))
    alone = build_processor(recipe)
    assert alone.to_dict() == whole.to_dict() and alone.image_tokens == whole.image_tokens == 16
    conversation = moai.Conversation.ask("What color?", [tiny.picture("red")], "red")
    assert alone.encode(conversation, labels=True) == whole.encode(conversation, labels=True)
    with pytest.raises(RecipeError, match="vision.connector.options does not fit"):
        build_processor(tiny.recipe(vision={"connector": {"kind": "mlp", "options": {"depths": 3}}}))
