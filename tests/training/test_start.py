"""A model starts as a run ended: with all that the run folder holds, or not at all."""

import pytest
import tiny
import torch
from transformers import LlamaForCausalLM

from moai.errors import AssetError, CheckpointError, MoaiError, RecipeError
from moai.model.mixer.image_stream import with_image_stream
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.parts import saved_parameters
from moai.training.build import build
from moai.training.check import check_recipe
from moai.training.start import check_frozen_parts, open_start

CONNECTOR = {"mixer": {"layers": []}, "perception": {"experts": []}, "stages": [tiny.stage(train={"connector": 1e-3})]}
WORDS = {"vision": {"kind": "none"}}
LORA = {"rate": 1e-3, "lora": 2, "targets": ["q_proj"]}


@pytest.fixture
def saved(tmp_path):
    """``saved(**changes)``: a model that has trained, as far as one can tell, and its run folder."""
    tiny.register()

    def save(**changes):
        model, processor = tiny.made(**changes)
        with torch.no_grad():
            for name, parameter in saved_parameters(model).items():
                if name.startswith(("host.", "vision.")):
                    parameter.add_(0.01)
        processor.save_pretrained(tmp_path / "run")
        model.save_pretrained(tmp_path / "run")
        return model, str(tmp_path / "run")

    return save


def equal(one, other):
    one, other = saved_parameters(one), saved_parameters(other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "train",
    [
        pytest.param({"mixers": 1e-3}, id="frozen"),
        pytest.param({"host": LORA}, id="lora"),
        pytest.param({"host": 1e-3}, id="host", marks=pytest.mark.slow),
        pytest.param({"vision": {"rate": 1e-3, "last": 1}}, id="vision", marks=pytest.mark.slow),
    ],
)
def test_all_that_a_run_holds_is_taken_and_saved_again(saved, tmp_path, train):
    first, run = saved(stages=[tiny.stage(train={"connector": 1e-3, **train})])
    second, processor = build(tiny.recipe(start=run, stages=[tiny.stage(train={"connector": 1e-3})]))
    assert equal(first, second) and second.config.trained == first.config.trained
    second.save_pretrained(tmp_path / "next")
    processor.save_pretrained(tmp_path / "next")
    assert equal(MoaiForConditionalGeneration.from_pretrained(tmp_path / "next"), first)
    assert not equal(build(tiny.recipe(stages=[tiny.stage(train={"connector": 1e-3, **train})]))[0], first)


def test_an_encoder_from_random_weights_is_taken(saved):
    first, run = saved(seed=1, vision={"kind": "encoder", "reference": None})
    body = first.images.vision.body.state_dict()
    fresh, second = (
        build(tiny.recipe(vision={"kind": "encoder", "reference": None}, **at))[0] for at in ({}, {"start": run})
    )
    assert not all(torch.equal(tensor, body[name]) for name, tensor in fresh.images.vision.body.state_dict().items())
    assert all(torch.equal(tensor, body[name]) for name, tensor in second.images.vision.body.state_dict().items())


def test_what_a_run_has_not_starts_as_without_it(saved):
    first, run = saved(**CONNECTOR)
    second, fresh = build(tiny.recipe(start=run))[0], build(tiny.recipe())[0]
    for part, expected in (("connector", first), ("compressor", fresh), ("mixers", fresh)):
        tensors = expected.adapters()[part].state_dict()
        assert tensors and all(torch.equal(second.adapters()[part].state_dict()[n], t) for n, t in tensors.items())


def test_a_run_of_words_alone_gives_a_model_with_images_what_means_the_same(saved):
    words, run = saved(**WORDS)
    second, fresh = build(tiny.recipe(start=run))[0], build(tiny.recipe())[0]
    theirs, ours, new = (dict(model.adapter_parameters()) for model in (words, second, fresh))
    for name, parameter in ours.items():
        if name.endswith(("gate_language.weight", "gate_language.bias")):
            assert torch.equal(parameter[[0, 2]], theirs[name]) and not parameter[1].any()  # auxiliary, image, language
        else:
            assert torch.equal(parameter, theirs.get(name, new[name])), name
    assert {name.split(".")[0] for name in theirs} == {"compressor", "mixers"}
    # Of one layer's gate the two ratios stay, and the fresh module has no effect yet.
    mixer, old, x = second.mixers["0"], words.mixers["0"], torch.randn(1, 5, tiny.WIDTH)
    wide, narrow = mixer.gate_language(x).softmax(-1)[..., [0, 2]], old.gate_language(x).softmax(-1)
    assert torch.allclose(wide / wide.sum(-1, keepdim=True), narrow, atol=1e-6)
    assert not mixer.attention["language_image"](x, x, torch.ones(1, 5, dtype=torch.bool)).any()
    assert with_image_stream(fresh.mixers, {"9.gate_language.bias": torch.ones(2)}).keys() >= {"9.gate_language.bias"}
    with pytest.raises(CheckpointError, match=r"start: the mixers of .*does not fit.*first misfit: 1\.attention"):
        build(tiny.recipe(start=run, mixer={"layers": [0, 1, 2]}))
    with pytest.raises(RecipeError, match="no stage gives the connector an image"):
        build(tiny.recipe(start=run, stages=[tiny.stage(image_dropout=1.0)]))


def test_what_does_not_fit_is_refused(saved, tmp_path):
    run = saved(stages=[tiny.stage(train={"mixers": 1e-3, "host": LORA})])[1]
    misfit = "start: the {} of .* does not fit this recipe's, or this recipe has none .first misfit: "
    for said, changes in {
        misfit.format("mixers"): {"mixer": {"layers": [1]}},
        misfit.format("compressor"): CONNECTOR,
        "has vision.connector.kind: mlp, and this recipe linear; set vision.connector.kind to mlp": {
            "vision": {"kind": "encoder", "connector": {"kind": "linear"}}
        },
        "has vision.drop_first: 0, and this recipe 1; set": {"vision": {"kind": "encoder", "drop_first": 1}},
        "has vision.kind: encoder, and this recipe none; set vision.kind to encoder": WORDS,
        "has vision.reference: .*, and this recipe null; set": {"vision": {"kind": "encoder", "reference": None}},
        "has mixer.heads: 2, and this recipe 4; set mixer.heads to 2": {"mixer": {"heads": 4}},
        "has perception.word_order: false, and this recipe true": {"perception": {"word_order": True}},
        'trained its host as .*"lora": 2.*, and a stage trains it as .*"lora": null': {
            "stages": [tiny.stage(train={"host": 1e-3})]
        },
        "has mixers, and stages.look with objective: attention needs mixers that change nothing yet": {
            "stages": [tiny.stage("look", objective="attention"), tiny.stage()]
        },
    }.items():
        with pytest.raises(CheckpointError, match=said):
            build(tiny.recipe(start=run, **changes))
    with pytest.raises(AssetError, match="^start: .* does not exist.*; or train the run first"):
        build(tiny.recipe(start=str(tmp_path / "none")))
    folder = tmp_path / "other"
    tiny.write_assets(folder)
    LlamaForCausalLM(tiny.host_config()).save_pretrained(folder / "host")
    with pytest.raises(CheckpointError, match="has host.reference: .*; set host.reference to "):
        build(tiny.recipe(folder, start=run))
    weights = tmp_path / "run" / "moai.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(MoaiError, match="moai.safetensors"):
        build(tiny.recipe(start=run))


def test_a_host_from_random_weights_starts_as_its_like_alone(saved):
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "max_position_embeddings": 192}
    scratch = {"model_type": "llama", "vocab_size": 400, "num_attention_heads": 4, **sizes}
    given = {**CONNECTOR, "stages": [tiny.stage(train={"host": 1e-3, "connector": 1e-3})]}
    first, run = saved(**given, seed=1, host={"scratch": scratch})
    assert equal(build(tiny.recipe(**given, start=run, host={"scratch": scratch}))[0], first)
    with pytest.raises(CheckpointError, match="has host.scratch.num_attention_heads: 4, and this recipe 2; set host"):
        build(tiny.recipe(**given, start=run, host={"scratch": {**scratch, "num_attention_heads": 2}}))
    with pytest.raises(CheckpointError, match="began with random weights .host.scratch., and this recipe's with those"):
        build(tiny.recipe(**given, start=run))
    with pytest.raises(CheckpointError, match="holds all weights of its host, which a quantized one cannot take"):
        check_frozen_parts(
            open_start(tiny.recipe(**given, start=saved(**given)[1])), tiny.recipe(host={"quantization": "nf4"})
        )


def test_a_dry_run_compares_with_a_run_that_is_there(saved, tmp_path):
    run = saved()[1]
    assert check_recipe(tiny.recipe(start=run)) == []
    with pytest.raises(CheckpointError, match="has mixer.heads: 2"):
        check_recipe(tiny.recipe(start=run, mixer={"heads": 4}))
    missing = f"the run that the model starts as: {tmp_path / 'none'} is not here yet"
    assert check_recipe(tiny.recipe(start=str(tmp_path / "none"))) == [missing]
