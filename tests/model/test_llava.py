"""LLaVA checkpoints as runs and runs as LLaVA checkpoints: the same tokens, pixels, logits and answers both ways."""

import native_vision_families
import pytest
import tiny
import torch
from agreement import assert_greedy_agree, assert_near, greedy
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
)

import moai
from moai.errors import AssetError, CheckpointError
from moai.model.llava.exporting import export_llava
from moai.model.llava.importing import import_llava
from moai.training.build import build
from moai.training.trainer import train
from moai.types import IMAGE, Conversation, Turn

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def odd(color, size):
    """A picture of an odd aspect with an edge in it."""
    image = Image.new("RGB", size, color)
    image.paste((250, 250, 20), (0, 0, size[0] // 3, size[1] // 2))
    return image


# Two images in a turn, three turns, one image, none; of other aspects, so that rows are padded.
CONVERSATIONS = [
    Conversation((Turn("user", (IMAGE, "What color?")),), (odd("red", (50, 20)),)),
    Conversation((Turn("user", (IMAGE, IMAGE, "Is it red?")),), (odd("blue", (17, 31)), odd("green", (40, 40)))),
    Conversation(
        (Turn("user", (IMAGE, "What is it?")), Turn("assistant", "red"), Turn("user", (IMAGE, "And this?"))),
        (odd("red", (9, 33)), odd("black", (64, 8))),
    ),
    Conversation((Turn("user", "Is there a circle?"),)),
]


def messages(conversation):
    images = iter(conversation.images)
    return [
        {"role": turn.role, "content": [
            {"type": "image", "image": next(images)} if part is IMAGE else {"type": "text", "text": part}
            for part in turn.content]}
        for turn in conversation.turns
    ]  # fmt: skip


def theirs(folder):
    """Transformers' own inputs and logits of the conversations, and its greedy answers."""
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert type(model) is LlavaForConditionalGeneration
    processor.tokenizer.padding_side = "left"
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    chats = [messages(one) for one in CONVERSATIONS]
    inputs = processor.apply_chat_template(chats, **options, processor_kwargs={"padding": True})
    return model.eval(), inputs


def compare(model, inputs, run):
    """Same ids and pixels, logits within 1e-4, and the same greedy tokens, in one padded batch and row by row."""
    mine = run.processor.batch(CONVERSATIONS, [[None] * len(one.images) for one in CONVERSATIONS])
    assert torch.equal(mine["input_ids"], inputs["input_ids"])
    assert torch.equal(mine["attention_mask"], inputs["attention_mask"])
    assert torch.equal(mine["pixel_values"], inputs["pixel_values"]) and len(mine["pixel_values"]) == 5
    assert not mine["attention_mask"].all(), "no row is padded; the test shows too little"
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        logits, expected = run.model(**mine).logits, model(**inputs).logits
        rows = logits.shape[-1]
        assert_near(logits[real], expected[..., :rows][real])
        for row, one in enumerate(CONVERSATIONS):
            alone = run.model(**run.processor.batch([one], [[None] * len(one.images)])).logits
            assert_near(alone[0, -1], logits[row, -1])
    suppressed = {"suppress_tokens": [run.model.config.image_token_id, *range(rows, expected.shape[-1])]}
    answers = greedy(model, inputs, max_new_tokens=5, **suppressed)
    answers.scores = answers.scores[..., :rows]
    assert_greedy_agree(greedy(run.model, mine, max_new_tokens=5), answers)


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_llava_checkpoint_opens_as_a_run(tmp_path, fit):
    folder = tmp_path / "checkpoint"
    model = LlavaForConditionalGeneration.from_pretrained(native_vision_families.folder("llava"))
    processor = AutoProcessor.from_pretrained(native_vision_families.folder("llava"))
    if fit == "pad":
        processor.image_processor = image_processor(fit)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    made = import_llava(folder, tmp_path / "run")
    run = moai.load(tmp_path / "run", device="cpu")
    assert set(run.model.adapters()) == {"connector"} and made.image_tokens == 4
    assert made.connector == sum(p.numel() for p in model.model.multi_modal_projector.parameters())
    assert (run.model.images.vision.layer, run.model.images.vision.drop_first) == (-2, 1)
    compare(*theirs(folder), run)
    assert isinstance(run.ask(odd("red", (50, 20)), "What color?").text, str)


def image_processor(fit):
    from moai.model.processor.image_places import encoder_image_processor

    return encoder_image_processor(16, fit, MEAN, STD)


def tower(folder):
    """A CLIP vision tower, saved as a reference."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        CLIPVisionModel(CLIPVisionConfig(**native_vision_families.TOWER)).eval().save_pretrained(folder)
    return str(folder)


def llava_run(tmp_path, image_token=None, **changes):
    vision = {
        "kind": "encoder", "reference": tower(tmp_path / "tower"), "architecture": None, "image_size": 16, "fit": "pad",
        "layer": -2, "drop_first": 1, "mean": MEAN, "std": STD, "image_token": image_token,
    }  # fmt: skip
    stages = [tiny.stage("pretrain", train={"connector": 1e-3}, image_dropout=0)]
    given = {"vision": vision, "mixer": {"layers": []}, "perception": {"experts": []}, "stages": stages,
             "host": {"chat_template": "vicuna"}, **changes}  # fmt: skip
    model, processor = tiny.made_of(tiny.recipe(**given))
    processor.save_pretrained(tmp_path / "run")
    model.save_pretrained(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("lora", [None, pytest.param(2, marks=pytest.mark.slow)])  # peft is imported in 9 s
def test_a_run_is_exported_as_a_llava_checkpoint(tmp_path, lora):
    """With the placeholder inside the host's vocabulary; low-rank adapters become a part of the weights."""
    train = {"connector": 1e-3} | ({"host": {"rate": 1e-3, "lora": lora}} if lora else {})
    folder = llava_run(tmp_path, stages=[tiny.stage("finetune", train=train, image_dropout=0)])
    run = moai.load(folder, device="cpu")
    if lora:  # they start as nothing
        for name, parameter in run.model.host.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        run.model.save_pretrained(folder)
    export_llava(folder, tmp_path / "llava")
    compare(*theirs(tmp_path / "llava"), moai.load(folder, device="cpu"))
    import_llava(tmp_path / "llava", tmp_path / "again")
    again = moai.load(tmp_path / "again", device="cpu")
    compare(*theirs(tmp_path / "llava"), again)


def test_a_placeholder_outside_the_vocabulary_gets_a_row(tmp_path):
    """As Vicuna's: 32,000 rows, and <image> is number 32,000."""
    known, host = tiny.tokenizer(), tmp_path / "host"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(tiny.host_config(vocab_size=len(known), tie_word_embeddings=False)).save_pretrained(host)
    known.add_tokens(["<picture>"], special_tokens=True)
    known.save_pretrained(host)
    placeholder = len(known) - 1
    folder = llava_run(tmp_path, "<picture>", host={"reference": str(host), "chat_template": "vicuna"})
    run = moai.load(folder, device="cpu")
    assert run.model.config.image_token_id == placeholder == run.model.get_input_embeddings().num_embeddings
    export_llava(folder, tmp_path / "llava")
    model, inputs = theirs(tmp_path / "llava")
    assert len(model.get_input_embeddings().weight) % 64 == 0
    assert placeholder in model.generation_config.suppress_tokens
    compare(model, inputs, run)


def test_another_systems_checkpoint_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="is a checkpoint of qwen2_5_vl, not of llava; give a folder of Llava"):
        import_llava(native_vision_families.folder("qwen"), tmp_path / "run")
    with pytest.raises(CheckpointError, match="is a checkpoint of llama, not of llava"):
        import_llava(tiny.assets() / "host", tmp_path / "run")
    with pytest.raises(AssetError):
        import_llava(tmp_path, tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("")
    with pytest.raises(CheckpointError, match="is not empty; name a new folder"):
        import_llava(native_vision_families.folder("llava"), tmp_path / "run")


def test_a_run_that_is_no_llava_is_one_sentence(tmp_path):
    model, processor = tiny.made()
    processor.save_pretrained(tmp_path / "run")
    model.save_pretrained(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"is no LLaVA: it would need mixer.layers: \[\], vision.reference"):
        export_llava(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(CheckpointError, match="takes features of layers|joins the features of layers"):
        from moai.model.llava.importing import check_checkpoint

        check_checkpoint(
            {"model_type": "llava", "text_config": {}, "vision_config": {}, "vision_feature_layer": [-2, -5]}, "x"
        )


@pytest.mark.slow
def test_a_moai_around_a_llava_begins_as_it_and_leaves_it_as_it_was(tmp_path):
    """Host, encoder and connector come from the checkpoint and stay frozen; mixers begin as nothing, and learn."""
    import_llava(native_vision_families.folder("llava"), tmp_path / "llava")
    plain = moai.load(tmp_path / "llava", device="cpu")
    host, vision = (str(tmp_path / "llava" / name) for name in ("host", "vision"))
    tiny.register()
    recipe = tiny.recipe(
        host={"reference": host, "chat_template": "vicuna"},
        vision={
            "kind": "encoder", "reference": vision, "architecture": None, "image_size": 16, "layer": -2,
            "drop_first": 1, "fit": "pad", "mean": MEAN, "std": STD, "panoptic_map": False,
        },
        start=str(tmp_path / "llava"),
        stages=[
            tiny.stage("modules", 3, routing="random_module", train={"mixers": 0.05, "compressor": 0.005}),
            tiny.stage("gates", 3, train={"mixers": 0.05, "gates": 0.05, "compressor": 0.005}),
        ],
    )  # fmt: skip
    fresh, processor = build(recipe)
    batch = processor.batch(CONVERSATIONS, [[tiny.seen("red circle")] * len(c.images) for c in CONVERSATIONS])
    given = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        expected = plain.model(**given).logits[real]
        assert_near(fresh.eval()(**batch).logits[real], expected)
    run = moai.load(train(recipe, tmp_path / "run"), device="cpu")
    for name, tensor in plain.model.images.connector.state_dict().items():
        assert torch.equal(run.model.images.connector.state_dict()[name], tensor)
    with torch.no_grad():
        assert not torch.allclose(run.model(**batch).logits[real], expected, atol=1e-3)
        run.model.remove_mixers()
        assert_near(run.model(**given).logits[real], expected)
    with pytest.raises(CheckpointError, match=r"is no LLaVA: it would need mixer.layers: \[\]; export"):
        export_llava(tmp_path / "run", tmp_path / "out")
