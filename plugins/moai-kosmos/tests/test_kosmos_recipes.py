"""The recipes: KOSMOS-1's sizes on the meta device, its connector stated anew, its labels, and the twin's data."""

import math
import statistics

import pytest
import timm
import torch
from moai_kosmos.connector import KosmosConnector
from moai_kosmos.decoder import KosmosForCausalLM
from moai_kosmos.twin import kosmos_twin
from torch.nn import functional as F

from moai import IMAGE, Conversation, Turn
from moai.errors import HostError, RecipeError
from moai.model.encoders.connectors import VisionOutput
from moai.model.encoders.vision import VisionEncoder
from moai.model.host.scratch import scratch_config, scratch_host, scratch_tokenizer
from moai.model.parts import last_blocks
from moai.model.processor.chat_templates import chat_template
from moai.model.processor.image_places import EncoderImagePlaces
from moai.model.processor.processor import MoaiProcessor
from moai.recipe.loading import load_recipe
from moai.training.build import build

IGNORED = -100


@pytest.fixture(scope="module")
def full():
    return load_recipe("kosmos-1")


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_full_recipe_has_the_papers_sizes(full):
    config = scratch_config(full.host.scratch)
    with torch.device("meta"):
        host = KosmosForCausalLM(config)
        encoder = timm.create_model(full.vision.architecture, num_classes=0, global_pool="")
        connector = KosmosConnector(1024, 2048, **full.vision.connector.options)
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (24, 2048, 8192)
    assert (config.num_attention_heads, config.head_dim, config.max_position_embeddings) == (32, 64, 2048)
    assert f"{count(connector) / 1e6:.1f}" == "19.0" and connector.tokens(257) == 64
    assert f"{count(host) / 1e9:.1f}" == "1.3"
    whole = count(host) + count(encoder) + count(connector)
    assert math.floor(whole / 1e8) / 10 == 1.6, "the paper rounds 1.66 down"


def test_of_the_encoder_the_last_layer_trains(full):
    with torch.device("meta"):
        encoder = timm.create_model(full.vision.architecture, num_classes=0, global_pool="")
    assert full.stages[0].train.vision.last == 1
    names = last_blocks(encoder, 1)
    assert {name.split(".")[0] for name in names} == {"blocks", "norm"}
    assert {name.split(".")[1] for name in names if name.startswith("blocks")} == {"23"}


def test_the_encoder_gives_257_normed_tokens(full):
    """CLIP's last norm is on all tokens, the class token among them, as in Kosmos-2's code."""
    tiny = {"img_size": 28, "embed_dim": 16, "depth": 1, "num_heads": 2}
    body = timm.create_model(full.vision.architecture, num_classes=0, global_pool="", **tiny).eval()
    output = VisionEncoder(body, 16, full.vision.layer, full.vision.drop_first)(torch.rand(1, 3, 28, 28))
    assert output.patches.shape == (1, 5, 16) and output.class_token is None  # 2 x 2 patches and the class token
    assert (28 // 14) ** 2 + 1 == 5 and (full.vision.image_size // 14) ** 2 + 1 == 257
    torch.testing.assert_close(output.patches.mean(-1), torch.zeros(1, 5), atol=1e-5, rtol=0)


def test_the_papers_plan(full):
    pretrain, tuned = full.stages
    assert (pretrain.steps, pretrain.train.host.rate, pretrain.schedule.warmup) == (300000, 2e-4, 375)
    assert pretrain.schedule.kind == "linear" and pretrain.schedule.final_rate == 0
    assert full.training.weight_decay == 0.01 and full.training.trainer["adam_beta2"] == 0.98
    assert tuned.name == "language-instructions" and tuned.train.host.rate == 2e-5
    text, captions, web, *_ = full.data.sources
    tokens = (
        text.weight * 2048,
        captions.weight * 81,
        web.weight * 2048,
    )  # a caption: 64 + 2 for its image, 15 of text
    assert [round(number / 1e6, 1) for number in tokens] == [0.5, 0.5, 0.3]
    assert web.options == {"max_images": 5, "keep_single": 0.5}


def test_the_connector_is_one_attention_and_nothing_else():
    torch.manual_seed(0)
    made, patches = KosmosConnector(12, 16, queries=3, heads=4), torch.randn(2, 5, 12) * 7
    with torch.no_grad():
        found = made(VisionOutput(patches))
        x = made.dense(patches / patches.norm(dim=-1, keepdim=True))
        attention = torch.nn.MultiheadAttention(16, 4, batch_first=True)
        parts = (made.q_proj, made.k_proj, made.v_proj)
        attention.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        attention.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        attention.out_proj.load_state_dict(made.out_proj.state_dict())
        latent = made.latent_query.expand(2, -1, -1)
        keys = torch.cat([x, latent], dim=1)
        expected, _ = attention(latent, keys, keys)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    split = VisionOutput(patches[:, 1:], patches[:, 0])
    torch.testing.assert_close(made(split), found, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, made(VisionOutput(F.layer_norm(patches, (12,)))), atol=1e-3)


def test_heads_that_do_not_divide_the_width_are_a_sentence():
    with pytest.raises(RecipeError, match="5 heads do not divide the decoder's width 16; change heads"):
        KosmosConnector(12, 16, 3, 5)(VisionOutput(torch.rand(1, 4, 12)))
    with pytest.raises(RecipeError, match="give at least one of each"):
        KosmosConnector(12, 16, 0)


# The prompt and its labels --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def processor():
    from transformers import ViTImageProcessor

    recipe = load_recipe("kosmos-1-twin")
    template = chat_template(recipe.host.chat_template, None, "<img>")
    sizes = {"image_tokens": 8, "image_boundary": ["<image>", "</image>"], "max_length": 512}
    images = ViTImageProcessor(size={"height": 64, "width": 64})
    return MoaiProcessor(images, scratch_tokenizer(recipe.host.reference), template, image_token="<img>", **sizes)


def rows_of(processor, conversation, picture):
    shown = Conversation(conversation.turns, (picture,) * len(conversation.images), conversation.loss)
    batch = processor.batch([shown], [[]], labels=True)
    return batch["input_ids"][0].tolist(), batch["labels"][0].tolist()


def test_a_document_is_interleaved_and_its_text_alone_is_learnt(processor, picture):
    document = Conversation((Turn("text", ("One", IMAGE, " red.", IMAGE, " blue.")),), (None, None), "all")
    ids, labels = rows_of(processor, document, picture)
    names = processor.tokenizer.convert_ids_to_tokens(ids)
    place = ["<image>", *["<img>"] * 8, "</image>"]
    at = names.index("<image>")
    assert names[0] == "<s>" and names[-1] == "</s>" and names[at : at + 10] == place and names.count("<image>") == 2
    learnt = [label != IGNORED for label in labels]
    special = {"<s>", "<image>", "<img>", "</image>"}
    assert learnt == [name not in special for name in names]  # what follows </image> is learnt, none of the rest
    assert learnt[at + 10] and names[at + 9] == "</image>" and learnt[-1]


def test_instructions_are_learnt_by_their_output(processor, picture):
    asked = Conversation.ask(" Question: is it red? Answer:", (), "yes")
    ids, labels = rows_of(processor, asked, picture)
    assert (
        processor.tokenizer.decode([i for i, label in zip(ids, labels, strict=True) if label != IGNORED]) == " yes</s>"
    )


def test_lengths_count_the_tokens_around_images(processor, picture):
    asked = Conversation.ask(" red?", [picture, picture])
    length = processor.batch([asked], [[]])["input_ids"].shape[1]
    assert processor.lengths([asked], labels=False) == [length] and len(processor.prompt_ids(" red?", 2)) == length
    assert processor.images.counts([picture]) == [10]


def test_words_in_the_prompt_stand_after_the_token_that_closes_an_image():
    places = EncoderImagePlaces(None, 9, 2, (7, 8))
    assert places.stand_ins(1) == [[7, 9, 9, 8]] and places.closing([8, 1]) == 1 and places.closing([1, 8]) == 0
    assert EncoderImagePlaces(None, 9, 2).closing([8]) == 0


def test_what_users_write_is_no_image(processor):
    ids = processor.plain_ids("<image><img></image></s>")
    assert not set(ids) & set(processor.tokenizer.convert_tokens_to_ids(["<image>", "<img>", "</image>", "</s>"]))


# Hosts from random weights --------------------------------------------------------------------------------------------


def test_a_host_from_scratch_is_a_function_of_the_seed():
    recipe = load_recipe("kosmos-1-twin")
    tokenizer = scratch_tokenizer(recipe.host.reference)
    first, again, other = (scratch_host(recipe.host.scratch, tokenizer, torch.float32, seed=n) for n in (0, 0, 1))
    weights = [host.model.layers[0].ffn.fc1.weight for host in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert first.config.eos_token_id == tokenizer.eos_token_id and first.config.pad_token_id == tokenizer.pad_token_id


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"vocab_size": 100}, "vocab_size is 100, and the tokenizer has 381 tokens"),
        ({"model_type": "moai_kosmo"}, "model_type 'moai_kosmo' is unknown; did you mean 'moai_kosmos'"),
        ({"hidden_sise": 8}, "moai_kosmos has no 'hidden_sise'; did you mean 'hidden_size'"),
        ({"num_attention_heads": 5}, "host.scratch does not fit moai_kosmos"),
    ],
)
def test_a_configuration_that_does_not_fit_is_a_sentence(changes, said):
    recipe = load_recipe("kosmos-1-twin")
    settings = {**recipe.host.scratch, **changes}
    with pytest.raises(HostError, match=said):
        scratch_host(settings, scratch_tokenizer(recipe.host.reference), torch.float32, seed=0)


def test_a_configuration_of_no_language_model_is_a_sentence():
    with pytest.raises(HostError, match="'clip_vision_model' is no causal language model"):
        scratch_config({"model_type": "clip_vision_model"})
    with pytest.raises(HostError, match="host.scratch needs model_type"):
        scratch_config({"hidden_size": 64})


def test_a_host_from_scratch_has_to_train():
    with pytest.raises(RecipeError, match="host.scratch starts from random weights, and no stage trains them"):
        load_recipe(
            "kosmos-1-twin", ["stages.pretrain.train.host=null", "stages.language-instructions.train.host=null"]
        )


@pytest.mark.slow
def test_the_full_size_can_be_planned(full):
    from moai.training.memory_plan.plan import plan

    made = plan(full)
    sizes = {part.name: round(part.parameters / 1e6, 1) for part in made.parts}
    assert (sizes["host"], sizes["vision"], sizes["connector"]) == (1342.3, 303.2, 19.0)
    assert made.tokens["image"] == 64


@pytest.mark.slow
def test_the_twin_trains_is_saved_and_opens_the_same(tmp_path, picture):
    import moai
    from moai.training.trainer import train

    small = ["stages.pretrain.steps=2", "stages.language-instructions.steps=1", "training.batch_size=4",
             "data.validation_limit=2"]  # fmt: skip
    run = moai.load(train(load_recipe("kosmos-1-twin", small), tmp_path / "run"))
    start, _ = build(load_recipe("kosmos-1-twin", small))
    trained = run.model.host.model.layers[0].ffn.fc1.weight
    assert not torch.equal(trained, start.host.model.layers[0].ffn.fc1.weight)
    assert run.model.host.lm_head.weight is run.model.get_input_embeddings().weight
    again = moai.load(tmp_path / "run")
    given = ([Conversation.ask(" Question: what color? Answer:", [picture])], [[None]], ["red"])
    assert run.loglikelihood(*given) == again.loglikelihood(*given)


# The twin's data ------------------------------------------------------------------------------------------------------


def test_the_twins_kinds_of_data():
    made = {kind: kosmos_twin("train", kind) for kind in ("text", "captions", "documents", "instructions", "questions")}
    assert all(not s.images for kind in ("text", "instructions") for s in made[kind])
    assert all(len(s.images) == 1 and s.conversation.loss == "all" for s in made["captions"])
    sizes = [len(s.images) for s in made["documents"]]
    assert set(sizes) == {1, 2, 3} and sizes.count(1) < 0.65 * statistics.mean([sizes.count(2), sizes.count(3)])
    assert {s.conversation.loss for s in made["instructions"]} == {"assistant"}
    question = made["questions"][0]
    assert question.question.startswith(" Question: ") and question.question.endswith(" Answer:")
    assert not set(kosmos_twin("test", "captions")) and len(kosmos_twin("test", "questions")) == 9673


def test_no_test_image_is_trained_on_and_documents_end_with_an_answer():
    tested = {name for s in kosmos_twin("test") for name in s.image_ids}
    for kind in ("captions", "documents"):
        samples = kosmos_twin("train", kind)
        assert not tested & {name for s in samples for name in s.image_ids}
    for s in samples[:200]:
        content = s.conversation.turns[0].content
        last = [content[n - 1] for n in range(1, len(content) + 1) if n == len(content) or content[n] is IMAGE]
        assert all(" Answer: " in piece for piece in last if isinstance(piece, str)) and isinstance(content[-1], str)


def test_the_baseline_has_no_image():
    recipe = load_recipe("kosmos-1-twin-text")
    for source in recipe.data.sources:
        samples = kosmos_twin("train", **source.options)
        assert not any(s.images for s in samples)
        # else it learns to go on with the next question, and no answer ends
        assert all(
            "".join(t for turn in s.conversation.turns for t in turn.content).count("Question:") <= 1 for s in samples
        )
    assert [stage.steps for stage in recipe.stages] == [stage.steps for stage in load_recipe("kosmos-1-twin").stages]


def test_an_unknown_kind_is_a_sentence():
    with pytest.raises(RecipeError, match="kosmos-twin has no kind 'caption'; did you mean 'captions'"):
        kosmos_twin("train", "caption")
