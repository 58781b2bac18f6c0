"""Memory before there is any: parameters per part, activations as autograd keeps them, and what fits on which card."""

import json

import native_vision_families
import pytest
import tiny
import torch
from transformers import LlamaForCausalLM

from moai.errors import AssetError, RecipeError
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.parts import train_only
from moai.training.build import build
from moai.training.memory_plan.plan import Part, Plan, plan

SEVEN = "layers=32,width=4096,heads=32,kv=8,ffn=14336,vocab=92544"
SMALL = "layers=4,width=64,heads=4,kv=2,ffn=96,vocab=400"


@pytest.fixture(scope="module", autouse=True)
def registered():
    tiny.register()


@pytest.fixture(scope="module")
def seven():
    recipe = tiny.recipe(
        arithmetic="published",
        host={"reference": "owner/name", "dtype": "bfloat16"},
        vision={"reference": None, "architecture": None, "image_size": 490},
        mixer={"layers": None, "every": 8, "rank": 64, "heads": 4},
        compressor={"latents": 64, "depth": 4, "heads": 4, "head_width": 64},
    )
    return plan(recipe, host_shape=SEVEN, vision_shape="width=1024,layers=24")


def by_name(made):
    return {part.name: part for part in made.parts}


def test_seven_billion_parameters_in_no_memory(seven):
    parts = by_name(seven)
    attention, ffn, vocab = 2 * 4096 * 4096 + 2 * 4096 * 1024, 3 * 4096 * 14336, 2 * 92544 * 4096
    assert parts["host"].parameters == 32 * (attention + ffn + 2 * 4096) + vocab + 4096
    assert parts["host"].weights == 2 * parts["host"].parameters and parts["host"].total == parts["host"].weights
    assert round(parts["mixers"].parameters / 1e6, 1) == 50.4
    assert round(parts["compressor"].parameters / 1e6, 1) == 151.4
    assert parts["connector"].parameters == 1025 * 4096 + 4097 * 4096
    assert parts["mixers"].total == 16 * parts["mixers"].parameters
    assert seven.mixer_layers == (7, 15, 23, 31) and seven.tokens["image"] == 1225


def test_seven_billion_parameters_need_a_large_card(seven):
    cards = seven.to_dict(4)["cards"]
    assert cards["24"]["batch"] == 0 < cards["24"]["batch_checkpointed"] < cards["80"]["batch_checkpointed"]
    assert cards["24"]["answers"] and cards["48"]["batch"] < cards["80"]["batch"]
    layer = (1225 + 64) * 2 * (4096 * 2 + 14336 * 3)  # what a layer keeps at least: two norms' and the FFN's tensors
    assert 32 * layer < seven.activations < 4 * 32 * layer
    assert seven.checkpointed < seven.activations / 4


def test_arithmetic_of_what_fits():
    parts = (Part("host", 10, 20 * 2**30), Part("mixers", 5, 2**30, 2**30, 2 * 2**30))
    made = Plan(parts, (0,), {}, activations=4 * 2**30, checkpointed=2**30, cache=0)
    assert made.training(3, False) == 36 * 2**30 and made.training(3, True) == 27 * 2**30
    assert (made.largest_batch(24, True), made.largest_batch(48, False), made.largest_batch(48, True)) == (0, 5, 22)
    assert made.answering() == 21 * 2**30 and made.to_dict(1)["cards"]["24"]["answers"]


def test_parameters_and_activations_are_those_of_the_real_model():
    """The same recipe built for real, with the same tokens: equal counts, and nearly equal bytes kept by autograd."""
    recipe = tiny.recipe()
    made = plan(recipe, prompt=6, aux=10)
    model, _ = tiny.made()
    for name, module in model.adapters().items():
        assert by_name(made)[name].parameters == sum(p.numel() for p in module.parameters())
    real = kept_by_autograd(model.train(), made.tokens)
    assert 0.8 * real < made.activations < 1.25 * real


def test_activations_with_the_hosts_own_vision_are_those_of_the_real_model():
    recipe = native_vision_families.recipe("llava")
    model, _ = tiny.made_of(recipe)
    made = plan(recipe, picture=(16, 16), prompt=6, aux=10)
    real = kept_by_autograd(model.train(), made.tokens, 16)
    assert 0.8 * real < made.activations < 1.25 * real


def kept_by_autograd(model: MoaiForConditionalGeneration, tokens, side: int = 64) -> int:
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage, storage.nbytes())
        return tensor

    image = model.config.image_token_id
    ids = torch.tensor([[image] * tokens["image"] + [5] * tokens["prompt"]])
    labels = torch.full_like(ids, -100)
    labels[0, -7:] = 5
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(
            input_ids=ids,
            labels=labels,
            prompt_mask=torch.ones_like(ids, dtype=torch.bool),
            pixel_values=torch.rand(1, 3, side, side),
            aux_input_ids=torch.full((1, tokens["aux"]), 7),
            aux_attention_mask=torch.ones(1, tokens["aux"], dtype=torch.long),
        ).loss
    assert loss.isfinite()
    return sum(size for _, size in kept.values())


def test_a_folder_with_only_a_configuration_is_enough(tmp_path):
    config = tiny.host_config()
    config.save_pretrained(tmp_path)
    made = plan(tiny.recipe(host={"reference": str(tmp_path)}, vision={"image_size": 32}))
    assert by_name(made)["host"].parameters == LlamaForCausalLM(config).num_parameters()


def test_connector_only_has_no_mixers():
    made = plan(tiny.recipe(mixer={"layers": []}), host_shape=SMALL)
    assert made.mixer_layers == () and not {"mixers", "compressor"} & set(by_name(made))


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ("layer=3", "no 'layer' in a shape; did you mean 'layers'"),
        ("layers=many", "'layers=many' is no number"),
        ("width=100,heads=3", "width must be a multiple of heads"),
    ],
)
def test_wrong_shapes(shape, sentence):
    with pytest.raises(RecipeError, match=sentence):
        plan(tiny.recipe(), host_shape=shape)


def test_a_host_that_is_not_there_names_the_shape_option():
    with pytest.raises(AssetError, match="or describe the host with --host-shape"):
        plan(tiny.recipe(host={"reference": "./nowhere"}))


def test_the_command(run_cli, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny.recipe().to_yaml())
    result = run_cli("plan", path, "mixer.rank=4", "--host-shape", SMALL, "--batch", 3)
    assert result.exit_code == 0, result.output
    assert "mixers in layers 0, 2" in result.output and "80 GiB card: answers; trains" in result.output
    data = json.loads(run_cli("plan", path, "--host-shape", SMALL, "--json").stdout)
    assert data["batch"] == 4 and data["cards"]["24"]["answers"]
    assert data["training"] == sum(p["weights"] + p["gradients"] + p["optimizer"] for p in data["parts"]) + (
        4 * data["activations"]
    )


@pytest.mark.parametrize("host", [1e-3, {"rate": 1e-3, "lora": 4}], ids=["whole", "lora"])
def test_gradients_and_moments_of_a_trained_host_are_those_of_real_tensors(host):
    """One real step by AdamW: the bytes that gradients and its two moments take, part by part."""
    parts = {"connector": 1e-3, "compressor": 1e-3, "mixers": 1e-3, "gates": 1e-3, "host": host, "vision": 1e-3}
    recipe = tiny.recipe(stages=[tiny.stage(train=parts)])
    made = by_name(plan(recipe))
    model, _ = build(recipe)
    trained = train_only(model, parts)
    optimizer = torch.optim.AdamW(trained.values())
    for parameter in trained.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    planned = {
        "mixers": ("mixers.", "gates."),
        "host": ("host.",),
        "vision": ("vision.",),
        "connector": ("connector.",),
    }
    for part, prefixes in planned.items():
        own = [p for name, p in trained.items() if name.startswith(prefixes)]
        moments = [t for p in own for key, t in optimizer.state[p].items() if key != "step"]
        assert own and made[part].gradients == sum(p.grad.nbytes for p in own)
        assert made[part].optimizer == sum(t.nbytes for t in moments)
    assert made["host"].weights == sum(p.nbytes for p in model.host.parameters())


def test_every_picture_of_an_image_counts():
    average = {"connector": {"kind": "average", "options": {"side": 3}}, "image_size": 64}
    one = plan(tiny.recipe(vision=average), host_shape=SMALL)
    five = plan(tiny.recipe(vision={**average, "tiles": {}}), host_shape=SMALL)
    assert (one.tokens["image"], five.tokens["image"]) == (9, 45)
    assert five.activations > one.activations and five.cache > one.cache
