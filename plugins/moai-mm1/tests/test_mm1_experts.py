"""A mixture of experts in the host: it starts as the dense one, learns by two further losses, and opens anywhere."""

from __future__ import annotations

import pytest
import tiny
import torch
from click.testing import CliRunner
from moai_mm1.config import MoELlamaConfig
from moai_mm1.host import MixtureOfExperts, load_balance, router_z
from moai_mm1.upcycling import mixture_of, upcycle
from transformers import LlamaForCausalLM

import moai
from moai.errors import HostError
from moai.training.memory_plan.plan import plan
from moai.training.trainer import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("mm1") / "moe"
    upcycle(str(tiny.assets() / "host"), out, experts=4, every=2, chosen=2)
    return out


@pytest.fixture(scope="module")
def dense():
    return LlamaForCausalLM.from_pretrained(tiny.assets() / "host").eval()


IDS = torch.tensor([[5, 9, 30, 44, 7], [8, 8, 8, 61, 2]])


def recipe(folder, **changes):
    tiny.register()
    return tiny.recipe(host={"reference": str(folder)}, **changes)


def test_it_starts_as_the_dense_host(folder, dense):
    moe = mixture_of(dense, experts=4)
    assert [type(layer.mlp) is MixtureOfExperts for layer in moe.model.layers] == [False, True, False, True]
    with torch.no_grad():
        torch.testing.assert_close(moe(IDS).logits, dense(IDS).logits, atol=1e-4, rtol=1e-4)
        loaded = moai.model.host.loading.load_host(str(folder), None, torch.float32)
        assert type(loaded) is type(moe) and torch.equal(loaded(IDS).logits, moe(IDS).logits)
    ffn = sum(p.numel() for p in dense.model.layers[1].mlp.parameters())
    more = 2 * (3 * ffn + 4 * tiny.WIDTH)
    assert sum(p.numel() for p in moe.parameters()) == sum(p.numel() for p in dense.parameters()) + more


def test_a_token_is_computed_by_the_experts_that_score_highest_and_by_no_others():
    torch.manual_seed(0)
    config = MoELlamaConfig(hidden_size=16, intermediate_size=24, num_local_experts=5, num_experts_per_tok=2)
    layer, x = MixtureOfExperts(config), torch.randn(3, 7, 16)
    scores, chosen = layer.router(x).softmax(-1).topk(2, dim=-1)
    for row in range(3):
        for place in range(7):
            weights = scores[row, place] / scores[row, place].sum()
            parts = [w * layer.experts[int(e)](x[row, place]) for w, e in zip(weights, chosen[row, place], strict=True)]
            torch.testing.assert_close(layer(x)[row, place], sum(parts), atol=1e-5, rtol=1e-4)


def test_the_two_losses_of_a_router():
    equal = torch.zeros(12, 4)
    even = torch.eye(4).repeat(3, 1) * 50  # each token sure of one expert, and all experts equally often
    one = torch.zeros(12, 4)
    one[:, 0] = 50.0
    assert load_balance(even, 1) == pytest.approx(1.0) and load_balance(one, 1) == pytest.approx(4.0)
    assert load_balance(equal, 4) == pytest.approx(1.0)
    assert router_z(equal) == pytest.approx(torch.tensor(4.0).log().item() ** 2)
    mask = torch.tensor([1] * 4 + [0] * 8)
    assert load_balance(torch.cat([even[:4], one[:8]]), 1, mask) == pytest.approx(1.0)


def test_padding_does_not_change_the_losses(folder):
    moe = moai.model.host.loading.load_host(str(folder), None, torch.float32)
    wide, mask = torch.nn.functional.pad(IDS, (0, 3)), torch.tensor([[1] * 5 + [0] * 3] * 2)
    with torch.no_grad():
        plain, padded = (moe(i, m, output_router_logits=True) for i, m in ((IDS, None), (wide, mask)))
    assert plain.aux_loss == pytest.approx(float(padded.aux_loss), rel=1e-5) and len(plain.router_logits) == 2
    assert "aux_loss" not in moe(IDS)


def test_the_losses_reach_the_training_loss_only_where_the_host_trains(folder):
    model, processor = tiny.made_of(recipe(folder, stages=[tiny.stage(train={"host": 1e-3})]))
    batch = tiny.training_batch(processor, tiny.dataset("train")[:2], [None, None])
    with torch.no_grad():
        answers = model(**batch).loss
        model.train()
        assert torch.equal(model(**batch).loss, answers)  # the host is frozen
        model.host.requires_grad_(True)
        whole = model(**batch).loss
        parts = [model(**batch, num_items_in_batch=n * int((batch["labels"] != -100).sum())).loss for n in (1, 2)]
        given = dict(batch)
        labels = given.pop("labels")
        model.host.config.output_router_logits = True
        host = model.host(
            inputs_embeds=model.images.host_inputs(prompt(model, batch), batch["pixel_values"], None, None, {})[
                "inputs_embeds"
            ],
            attention_mask=batch["attention_mask"],
        )
        model.host.config.output_router_logits = False
    assert labels.shape == batch["input_ids"].shape
    assert 0.0 < float(whole - answers) < 0.2
    torch.testing.assert_close(parts[0], whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(parts[1], whole / 2, atol=1e-5, rtol=1e-5)
    assert host.aux_loss > 1.0


def prompt(model, batch):
    from moai.model.mixer.inputs import prompt_of

    return prompt_of(batch["input_ids"], None, batch["prompt_mask"], model.config.image_token_id)


@pytest.mark.slow
def test_a_run_trains_and_opens_again(folder, tmp_path, monkeypatch):
    tiny.draw_nothing(monkeypatch)
    stages = [tiny.stage(steps=2, train={"host": 1e-3, "connector": 1e-3, "vision": 1e-4})]
    run = train(recipe(folder, stages=stages), tmp_path / "run")
    augmented = moai.load(run, device="cpu")
    before = moai.model.host.loading.load_host(str(folder), None, torch.float32)
    for name in ("router.weight", "experts.0.up_proj.weight", "experts.3.up_proj.weight"):
        key = f"model.layers.1.mlp.{name}"
        assert not torch.equal(augmented.model.host.state_dict()[key], before.state_dict()[key])
    assert isinstance(augmented.ask(tiny.picture("red"), "What color?").text, str)


def test_a_plan_knows_its_shape(folder):
    made = {part.name: part for part in plan(recipe(folder)).parts}
    host = moai.model.host.loading.load_host(str(folder), None, torch.float32)
    assert made["host"].parameters == sum(p.numel() for p in host.parameters())


def test_the_command_and_what_it_refuses(tmp_path, dense):
    from moai.cli.main import cli

    host = str(tiny.assets() / "host")
    done = CliRunner().invoke(cli, ["mm1-upcycle", host, str(tmp_path / "made"), "--experts", "2", "--every", "4"])
    assert done.exit_code == 0 and "2 experts, 2 a token, in layers 3" in done.stdout
    again = CliRunner().invoke(cli, ["mm1-upcycle", host, str(tmp_path / "made")])
    assert again.exit_code == 1 and "is there already; name a new folder" in again.stderr
    with pytest.raises(HostError, match="every 9 layers is none of the host's 4"):
        mixture_of(dense, every=9)
    with pytest.raises(HostError, match="3 of 2 experts cannot be chosen"):
        mixture_of(dense, experts=2, chosen=3)
    with pytest.raises(HostError, match="of type mm1_moe_llama, and mm1-upcycle takes a Llama"):
        upcycle(str(tmp_path / "made"), tmp_path / "twice")
