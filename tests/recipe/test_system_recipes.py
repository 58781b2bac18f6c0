"""The full-size recipes of LLaVA-1.5 and MoAI, built without memory from configurations: the papers' figures."""

import pytest
from transformers import CLIPVisionConfig, LlamaConfig

from moai.recipe.loading import load_recipe
from moai.training.memory_plan.plan import plan

VICUNA = {"7b": (4096, 32, 11008), "13b": (5120, 40, 13824)}  # width, layers and heads (heads are 128 wide), ffn


def vicuna(size, folder):
    width, layers, inner = VICUNA[size]
    LlamaConfig(
        vocab_size=32000, hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 128,
        intermediate_size=inner, max_position_embeddings=4096,
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


def clip(folder, image_size=336):
    CLIPVisionConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, patch_size=14,
        image_size=image_size,
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


def planned(name, host, vision):
    made = plan(load_recipe(name, [f"host.reference={host}", f"vision.reference={vision}"]))
    return made, {part.name: part for part in made.parts}


@pytest.mark.parametrize(
    ("size", "connector", "host"), [("7b", 20.98, 6738.4), pytest.param("13b", 31.47, 13015.9, marks=pytest.mark.slow)]
)
def test_llava(tmp_path, size, connector, host):
    """Facts: 576 tokens at 336; a projector of 20.98 M parameters at width 4096, and 31.47 M at 5120."""
    made, parts = planned(f"llava-1.5/llava-1.5-{size}", vicuna(size, tmp_path / "host"), clip(tmp_path / "vision"))
    assert made.tokens["image"] == 576 and made.mixer_layers == ()
    assert round(parts["connector"].parameters / 1e6, 2) == connector
    assert round(parts["host"].parameters / 1e6, 1) == host
    assert set(parts) == {"host", "vision", "connector"}
    # The host trains: gradients and two moments of each of its fp32 weights.
    assert parts["host"].gradients == parts["host"].weights == 4 * parts["host"].parameters
    assert parts["host"].optimizer == 2 * parts["host"].weights and parts["vision"].gradients == 0


def test_llavas_plan():
    """Facts: FACTS 3's two stages."""
    recipe = load_recipe("llava-1.5/llava-1.5-7b")
    pretrain, finetune = recipe.stages
    rates = [{name: part.rate for name, part in stage.train.parts().items()} for stage in recipe.stages]
    assert rates == [{"connector": 1e-3}, {"connector": 2e-5, "host": 2e-5}]
    assert [(stage.batch_size, stage.epochs) for stage in recipe.stages] == [(256, 1), (128, 1)]
    assert {(s.schedule.kind, s.schedule.final_rate, recipe.training.weight_decay) for s in recipe.stages} == {
        ("cosine", 0.0, 0.0)
    }
    assert [s.schedule.warmup for s in recipe.stages] == [-(-3 * -(-rows // batch) // 100) for rows, batch in
                                                          ((558_128, 256), (665_298, 128))]  # fmt: skip
    assert pretrain.sampling_rate_by_type == {"instruction": 0} and finetune.sampling_rate_by_type == {"caption": 0}
    captions, instructions, _ = recipe.data.sources
    assert (captions.kind, instructions.kind) == ("caption", "instruction") and captions.options == {"plain": True}
    assert recipe.host.chat_template == "vicuna" and (recipe.vision.fit, recipe.vision.layer) == ("pad", -2)
    lora = load_recipe("llava-1.5/llava-1.5-7b-lora").stages[1].train
    assert (lora.host.lora, lora.host.rate, lora.connector.rate) == (128, 2e-4, 2e-5)


def moai_host(folder):
    """InternLM2-7B's shape, as ``moai import-official`` writes it."""
    config = pytest.importorskip("moai_official.host").PLoRALlamaConfig(
        vocab_size=92544, hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        intermediate_size=14336, max_position_embeddings=32768,
    )  # fmt: skip
    config.save_pretrained(folder)
    return str(folder)


@pytest.mark.slow
def test_moai(tmp_path):
    """Facts: mixers in layers 7, 15, 23 and 31; 1,225 image tokens; 50.4 M in mixers, 151.4 M in the compressor."""
    made, parts = planned("moai/moai-7b", moai_host(tmp_path / "host"), clip(tmp_path / "vision", 490))
    assert made.mixer_layers == (7, 15, 23, 31) and made.tokens["image"] == 1225
    assert round(parts["mixers"].parameters / 1e6, 1) == 50.4
    assert round(parts["compressor"].parameters / 1e6, 1) == 151.4
    assert parts["host"].gradients == parts["vision"].gradients == 0
    recipe = load_recipe("moai/moai-7b")
    assert [stage.routing for stage in recipe.stages] == ["random_module", "gates"]
    first, second = (set(stage.train.parts()) for stage in recipe.stages)
    assert (first, second) == ({"compressor", "mixers"}, {"compressor", "mixers", "gates"})  # the projector is frozen
    assert {name: o["min_score"] for name, o in recipe.perception.options.items()} == {
        "mask2former": 0.5, "owlv2": 0.5, "psgtr": 0.8, "rapidocr": 0.85,
    }  # fmt: skip


@pytest.mark.slow
def test_moais_projector(tmp_path):
    made, parts = planned("moai/moai-7b-projector", moai_host(tmp_path / "host"), clip(tmp_path / "vision", 490))
    assert set(parts) == {"host", "vision", "connector"} and made.tokens["image"] == 1225
    assert round(parts["connector"].parameters / 1e6, 2) == 20.98
    recipe = load_recipe("moai/moai-7b-projector")
    assert load_recipe("moai/moai-7b").start == f"runs/{recipe.name}"


@pytest.mark.slow
def test_moai_around_llava(tmp_path):
    made, parts = planned("moai/moai-llava-7b", vicuna("7b", tmp_path / "host"), clip(tmp_path / "vision"))
    assert made.mixer_layers == (7, 15, 23, 31) and made.tokens["image"] == 576
    assert round(parts["compressor"].parameters / 1e6, 1) == 151.4
    assert 50 < parts["mixers"].parameters / 1e6 < 51
