"""Parts of the reference systems in one model: a MoAI on another system's connector, or around its decoder.

What else holds around a LLaVA checkpoint stands in tests/model/test_llava.py.
"""

import native_vision_families
import pytest
import tiny
import torch
from agreement import assert_near
from tiny import IMAGE_TOKENS
from transformers import AutoConfig, AutoModelForCausalLM

import moai
from moai.model.config import import_host
from moai.model.llava.importing import import_llava
from moai.training.build import build
from moai.training.log import read_log
from moai.training.trainer import train
from moai.types import IMAGE, Conversation, Turn

KOSMOS = {
    "model_type": "moai_kosmos", "vocab_size": 400, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
    "num_attention_heads": 4, "max_position_embeddings": tiny.CONTEXT,
}  # fmt: skip


def on(kind, **options):
    return {"vision": {**tiny.recipe().vision.model_dump(), "connector": {"kind": kind, "options": options}}}


SYSTEMS = {
    "on Parrot's connector": (on("parrot", query="mean", expert_width=32), IMAGE_TOKENS),
    "on MM1's C-Abstractor": (on("c_abstractor", tokens=1, patches=4, depth=1, width=32), 1),
    "on KOSMOS-1's pooling": (on("kosmos", queries=5, heads=4), 5),
    "around KOSMOS-1's decoder": ({}, IMAGE_TOKENS),
    "around a LLaVA checkpoint": ({}, 4),
}


def kosmos_host(folder):
    """A folder of a small decoder of KOSMOS-1's kind, as a user may have trained it."""
    words = tiny.tokenizer()
    import_host("moai_kosmos")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**KOSMOS, "vocab_size": len(words)})).save_pretrained(
        folder
    )
    words.save_pretrained(folder)
    return folder


def around_llava(folder):
    """A LLaVA checkpoint's parts, and the connector of the run that it opens as."""
    import_llava(native_vision_families.folder("llava"), folder)
    vision = {
        **tiny.recipe().vision.model_dump(), "reference": str(folder / "vision"), "architecture": None,
        "image_size": 16, "layer": -2, "drop_first": 1, "fit": "pad", "panoptic_map": False,
    }  # fmt: skip
    host = {"reference": str(folder / "host"), "chat_template": "vicuna"}
    return {"start": str(folder), "host": host, "vision": vision}


def without(batch, *prefixes):
    return {name: tensor for name, tensor in batch.items() if not name.startswith(prefixes)}


def check_start(model, processor, asked, seen):
    """Before training mixers change nothing, whatever is perceived."""
    batch = processor.batch(asked, seen)
    with torch.no_grad():
        mixed = model.eval()(**batch).logits[:, -1]
        model.remove_mixers()
        assert_near(model(**without(batch, "aux")).logits[:, -1], mixed)


def check_answers(run, seen):
    """A later token of an answer changes no logits before it."""
    turns = (Turn("user", (IMAGE, "What color is the shape?")), Turn("assistant", "red green blue"))
    batch = run.processor.batch([Conversation(turns, (tiny.picture("red"),))], seen, labels=True)
    last = int((batch.pop("labels")[0] != -100).nonzero()[-2])
    changed = batch["input_ids"].clone()
    changed[0, last] = (changed[0, last] + 1) % 100 + 100
    with torch.no_grad():
        first, second = (run.model(**{**batch, "input_ids": ids}).logits[0] for ids in (batch["input_ids"], changed))
    assert_near(first[:last], second[:last])
    assert (first[last] - second[last]).abs().amax() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_moai_of_these_parts_trains_and_keeps_its_promises(name, tmp_path):
    """Three steps of modules and three of gates: it begins as the host, which stays, and rows and answers are apart."""
    changes, tokens = SYSTEMS[name]
    if "decoder" in name:
        changes = {"host": {"reference": str(kosmos_host(tmp_path / "host"))}}
    if "LLaVA" in name:
        changes = around_llava(tmp_path / "llava")
    tiny.register()
    recipe = tiny.recipe(
        **changes,
        stages=[
            tiny.stage("modules", 3, routing="random_module", train={"connector": 0.01, "mixers": 0.05}),
            tiny.stage("gates", 3, train={"connector": 0.01, "mixers": 0.05, "gates": 0.05, "compressor": 0.005}),
        ],
    )
    before, processor = build(recipe)
    assert processor.image_tokens == tokens
    asked = [Conversation.ask("What color is the shape?", (tiny.picture(color),)) for color in ("red", "blue")]
    asked.append(Conversation.ask("Is there a red circle?", (tiny.picture("green"),)))
    seen = [[tiny.seen(f"{color} circle")] for color in ("red", "blue", "green")]
    frozen = {name: p.detach().clone() for name, p in before.host.named_parameters()}
    check_start(before, processor, asked, seen)
    folder = train(recipe, tmp_path / "run")
    losses = [row["loss"] for row in read_log(folder)]
    assert len(losses) == 6 and all(0 < loss < 20 for loss in losses)
    run = moai.load(folder, device="cpu")
    for part, tensor in run.model.host.named_parameters():
        assert torch.equal(tensor, frozen[part]), part

    tiny.disturb(run.model, 0.1)
    check_answers(run, [seen[0]])
    batch = dict(run.processor.batch(asked, seen))
    with torch.no_grad():
        together = run.model(**batch).logits[:, -1]
        for row, (one, perception) in enumerate(zip(asked, seen, strict=True)):
            assert_near(run.model(**run.processor.batch([one], [perception])).logits[0, -1], together[row])
        other = dict(run.processor.batch(asked, [*seen[1:], seen[0]]))
        assert (run.model(**other).logits[:, -1] - together).abs().amax() > 1e-4, "perceptions are not read"
        plain = without(run.processor.batch(asked, [[None]] * 3), "aux")
        run.model.remove_mixers()
        bare = run.model(**plain).logits
        embeds = run.model.get_input_embeddings()(plain["input_ids"])
        at = plain["input_ids"] == run.processor.image_token_id
        words = plain["prompt_mask"] & ~at
        features = run.model.images.encode(plain["pixel_values"], plain["input_ids"], words=words)  # (B, M, D)
        embeds[at] = features.flatten(0, 1).to(embeds.dtype)
        assert_near(bare, run.model.host(inputs_embeds=embeds, attention_mask=plain["attention_mask"]).logits)
