"""The published checkpoint: converted, it computes what a written-out re-statement of the published code computes."""

import copy
import json
from concurrent.futures import ThreadPoolExecutor

import published
import pytest
import tiny
import torch
from agreement import assert_greedy_agree, assert_near, greedy
from moai_official import host
from moai_official.config import PLoRALlamaConfig
from moai_official.importing import import_official, split_fused
from safetensors.torch import load_file, save_file

from moai.errors import CheckpointError
from moai.model.encoders.compressor import Compressor
from moai.model.mixer.mixer import Mixer
from moai.model.modeling import MoaiForConditionalGeneration

IMAGE, TOKENS = published.WORDS, published.SIDE**2
PIXELS = published.SIDE * published.PATCH


@pytest.fixture(scope="module")
def weights():
    return published.state()


@pytest.fixture(scope="module")
def imported(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    published.write(folder / "checkpoint", weights)
    return import_official(folder / "checkpoint", folder / "run")


@pytest.fixture(scope="module")
def model(imported):
    return MoaiForConditionalGeneration.from_pretrained(imported.folder)


def prompt(seed: int, length: int) -> dict:
    """One sample: words, an image between them, auxiliary words and a panoptic map."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(3, published.WORDS, (length,), generator=generator).tolist()
    return {
        "ids": [*words[:3], *[IMAGE] * TOKENS, *words[3:]],
        "pixels": torch.randn(3, PIXELS, PIXELS, generator=generator),
        "aux_ids": torch.randint(3, published.WORDS, (5,), generator=generator).tolist(),
        "map_pixels": torch.randn(3, PIXELS, PIXELS, generator=generator),
    }


def inputs(samples) -> dict:
    """A batch, padded on the left."""
    longest = max(len(s["ids"]) for s in samples)
    ids = torch.tensor([[0] * (longest - len(s["ids"])) + s["ids"] for s in samples])
    mask = torch.tensor([[0] * (longest - len(s["ids"])) + [1] * len(s["ids"]) for s in samples])
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": torch.stack([s["pixels"] for s in samples]),
        "aux_input_ids": torch.tensor([s["aux_ids"] for s in samples]),
        "aux_attention_mask": torch.ones(len(samples), 5, dtype=torch.long),
        "aux_pixel_values": torch.stack([s["map_pixels"] for s in samples])[:, None],
        "aux_pixel_mask": torch.ones(len(samples), 1, dtype=torch.bool),
    }


def run(model, samples):
    """Logits of a batch."""
    with torch.no_grad():
        return model(**inputs(samples)).logits


def reference(weights, s):
    return published.Published(weights).logits(s["ids"], IMAGE, s["pixels"], s["aux_ids"], s["map_pixels"])


def test_the_whole_decoder_agrees_with_the_published_code_written_out(model, weights):
    samples = [prompt(1, 8), prompt(2, 5)]
    logits = run(model, samples)
    for row, sample in enumerate(samples):
        expected = reference(weights, sample)
        assert expected.std() > 0.5
        assert torch.allclose(logits[row, -len(expected) :], expected, atol=1e-4)


@pytest.mark.parametrize(
    "part", ["moai_CA_img_aux.linear_v.1", "moai_SA_lang.linear_q.0", "moai_GA_img", "w2.Plora_B", "wqkv.Plora_A",
             "moai_compressor.latents", "layers.3.1.3", "vision_proj.2", "encoder.layers.1.mlp.fc2"],
)  # fmt: skip
def test_the_agreement_can_fail(model, weights, part):
    """Every part of the checkpoint reaches the logits: without it the re-statement says something else."""
    without = {name: torch.zeros_like(t) if part in name and "norm" not in name else t for name, t in weights.items()}
    assert any(not torch.equal(without[name], weights[name]) for name in weights)
    sample = prompt(1, 8)
    assert not torch.allclose(run(model, [sample])[0], reference(without, sample), atol=1e-3)


def test_plora_acts_at_image_positions_only(model):
    ids = torch.randint(3, published.WORDS, (1, 6))
    where = torch.tensor([[False, False, False, True, True, False]])
    with torch.no_grad():
        plain, added = model.host(ids).logits, model.host(ids, image_positions=where).logits
        assert torch.equal(model.host(ids).logits, plain)
    assert torch.equal(plain[:, :3], added[:, :3])
    assert not torch.allclose(plain[:, 3:], added[:, 3:], atol=1e-2)


def test_threads_do_not_share_image_positions(model):
    samples = [prompt(seed, length) for seed, length in ((1, 8), (2, 5), (6, 7), (7, 4))]
    alone = [run(model, [sample]) for sample in samples]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda n: run(model, [samples[n % 4]]), range(32)))
    for number, logits in enumerate(together):
        assert torch.equal(logits, alone[number % 4])


def test_activation_checkpointing_recomputes_with_the_calls_own_image_positions(model):
    """Another forward pass, with images elsewhere, runs between a forward pass and its backward pass."""
    gradients = []
    for checkpointed in (False, True):
        trained = copy.deepcopy(model)
        if checkpointed:
            trained.activation_checkpointing_enable()
        trained.train()
        loss = trained(**inputs([prompt(1, 8)]), use_cache=False).logits.float().square().mean()
        run(trained, [prompt(2, 5)])
        loss.backward()
        gradients.append({name: p.grad for name, p in trained.adapter_parameters().items()})
    assert all(gradient.any() for name, gradient in gradients[0].items() if name.startswith("connector"))
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6, rtol=1e-4), name


def test_no_image_position_outlives_a_forward_pass(model):
    run(model, [prompt(1, 8)])
    assert host._IMAGES.get() is None


def test_a_generated_token_is_neither_mixed_nor_added_to(model):
    """A cached step equals the same step without a cache: both see PLoRA at the prompt's image tokens alone."""
    sample = prompt(3, 6)
    ids = torch.tensor([sample["ids"]])
    options = {"max_new_tokens": 4, "pad_token_id": 0, "eos_token_id": -1}
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": sample["pixels"][None]}
    cached, uncached = (greedy(model, given, **options, use_cache=use) for use in (True, False))
    assert cached.tokens.shape == (1, 4)
    assert_greedy_agree(cached, uncached)


def test_the_fused_projection_splits_by_key_value_group():
    config = PLoRALlamaConfig(hidden_size=8, num_attention_heads=4, num_key_value_heads=2)
    rows = torch.tensor([f for group in range(2) for f in (10 * group, 10 * group + 1, 50 + group, 90 + group)])
    q, k, v = split_fused(rows.repeat_interleave(2), config, "wqkv")
    assert q[::2].tolist() == [0, 1, 10, 11] and k[::2].tolist() == [50, 51] and v[::2].tolist() == [90, 91]
    with pytest.raises(CheckpointError, match="'wqkv' has 14 rows, and 4 heads in 2 groups need 16"):
        split_fused(rows.repeat_interleave(2)[:14], config, "wqkv")


def test_what_was_written(imported, weights):
    sizes = {name: tensor.numel() for name, tensor in weights.items()}
    assert imported.layers == (7, 15) and imported.dropped_rows == 1 and not imported.processor
    assert imported.mixers == sum(n for name, n in sizes.items() if "attention.moai_" in name)
    assert imported.compressor == sum(n for name, n in sizes.items() if name.startswith("moai_compressor"))
    assert imported.plora == sum(n for name, n in sizes.items() if "Plora_A" in name or "Plora_B" in name)
    everything = imported.host + imported.plora + imported.vision + imported.connector
    assert everything + imported.compressor + imported.mixers + published.WIDTH == sum(sizes.values())
    config = json.loads((imported.folder / "config.json").read_text())
    assert config["mixer"] == {"layers": [7, 15], "rank": published.RANK, "heads": 4}
    assert config["compressor"] == {"latents": 64, "depth": 4, "heads": 4, "head_width": 64, "feedforward": 1}
    assert (config["arithmetic"], config["format"]) == ("published", 3)


@pytest.mark.parametrize("kind", ["one file", "torch shards", "torch file"])
def test_other_kinds_of_files_give_the_same_run(weights, imported, tmp_path, kind):
    folder = tmp_path / "checkpoint"
    published.write(folder, weights)
    for file in folder.glob("model*"):
        file.unlink()
    names = sorted(weights)
    if kind == "one file":
        save_file(weights, folder / "model.safetensors")
    elif kind == "torch shards":
        for number in range(3):
            torch.save({name: weights[name] for name in names[number::3]}, folder / f"pytorch_model-{number}.bin")
        where = {name: f"pytorch_model-{index % 3}.bin" for index, name in enumerate(names)}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))
    else:
        torch.save({"state_dict": weights}, folder / "moai.pt", _use_new_zipfile_serialization=False)
    path = folder / "moai.pt" if kind == "torch file" else folder
    made = import_official(path, tmp_path / "run")
    for name in ("moai.safetensors", "host/model.safetensors", "vision/model.safetensors"):
        ours, theirs = load_file(made.folder / name), load_file(imported.folder / name)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_large_host_is_written_in_shards(weights, tmp_path, monkeypatch, model):
    monkeypatch.setattr("moai_official.importing.SHARD", 200_000)
    published.write(tmp_path / "checkpoint", weights)
    made = import_official(tmp_path / "checkpoint", tmp_path / "run")
    assert len(list((made.folder / "host").glob("model-*-of-*.safetensors"))) > 2
    again, sample = MoaiForConditionalGeneration.from_pretrained(made.folder), prompt(4, 5)
    assert_near(run(again, [sample]), run(model, [sample]))  # in other files, so aligned otherwise


def test_attention_biases_come_along(tmp_path):
    weights = published.state(bias=True)
    published.write(tmp_path / "checkpoint", weights, bias=True)
    made = import_official(tmp_path / "checkpoint", tmp_path / "run")
    sample = prompt(5, 6)
    logits = run(MoaiForConditionalGeneration.from_pretrained(made.folder), [sample])
    assert torch.allclose(logits[0], reference(weights, sample), atol=1e-4)


def test_missing_and_unknown_names_are_listed(weights, tmp_path):
    changed = {name.replace("moai_GA_img", "moai_gate"): tensor for name, tensor in weights.items()}
    changed["model.layers.3.attention.rotary_emb.inv_freq"] = torch.ones(2)  # a buffer: nothing to complain about
    published.write(tmp_path / "checkpoint", changed)
    with pytest.raises(CheckpointError) as error:
        import_official(tmp_path / "checkpoint", tmp_path / "run")
    text = str(error.value)
    assert "missing: model.layers.15.attention.moai_GA_img.bias, " in text and "rotary" not in text
    assert "unknown: model.layers.15.attention.moai_gate.bias, " in text and "\n" not in text
    assert not (tmp_path / "run").exists()


def test_an_encoder_with_other_names_is_refused(weights, tmp_path):
    lost = {name: t for name, t in weights.items() if not name.endswith("layers.1.mlp.fc2.bias")}
    published.write(tmp_path / "checkpoint", lost)
    with pytest.raises(CheckpointError, match="vision encoder.*missing: encoder.layers.1.mlp.fc2.bias$"):
        import_official(tmp_path / "checkpoint", tmp_path / "run")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "model-1.safetensors").unlink(), "lacks model-1.safetensors; download"),
        (lambda folder: (folder / "model-1.safetensors").write_bytes(b"x" * 40), "model-1.safetensors is damaged"),
        (lambda folder: (folder / "config.json").unlink(), "name the checkpoint's config.json with --config"),
        (lambda folder: (folder / "config.json").write_text("{}"), "config.json lacks 'num_attention_heads'"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is damaged"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{}"), "has no weight_map"),
    ],
)
def test_damaged_checkpoints_are_named(weights, tmp_path, damage, sentence):
    published.write(tmp_path / "checkpoint", weights)
    damage(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match=sentence):
        import_official(tmp_path / "checkpoint", tmp_path / "run")


def test_code_in_a_torch_file_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    (tmp_path / "config.json").write_text("{}")
    torch.save({"output.weight": Evil()}, tmp_path / "moai.bin")
    with pytest.raises(CheckpointError, match="cannot be read as plain tensors"):
        import_official(tmp_path / "moai.bin", tmp_path / "run")
    assert not (tmp_path / "ran").exists()


def test_nothing_is_overwritten(weights, tmp_path):
    published.write(tmp_path / "checkpoint", weights)
    with pytest.raises(CheckpointError, match="is not empty"):
        import_official(tmp_path / "checkpoint", tmp_path / "checkpoint")


def test_with_a_tokenizer_the_run_has_a_processor_with_the_published_prompt(weights, tmp_path, run_cli):
    published.write(tmp_path / "checkpoint", weights)
    tiny.tokenizer().save_pretrained(tmp_path / "words")
    result = run_cli("import-official", tmp_path / "checkpoint", tmp_path / "run", "--tokenizer", tmp_path / "words")
    assert result.exit_code == 0, result.output
    assert "mixers in layers 7, 15" in result.output and "moai ask" in result.output
    from moai.model.processor.processor import MoaiProcessor

    processor = MoaiProcessor.from_pretrained(tmp_path / "run")
    text = processor.tokenizer.decode(processor.prompt_ids("What is it?"))
    assert text.count("<image>") == TOKENS and "understanding an image. <image>" in text
    assert text.endswith("<image> [UNUSED_TOKEN_146]user\nWhat is it?[UNUSED_TOKEN_145]\n[UNUSED_TOKEN_146]assistant\n")


def test_the_imported_run_answers(weights, tmp_path, picture):
    import moai

    published.write(tmp_path / "checkpoint", weights)
    tiny.tokenizer().save_pretrained(tmp_path / "checkpoint")
    made = import_official(tmp_path / "checkpoint", tmp_path / "run")
    answer = moai.load(made.folder).ask(picture, "What is it?", max_new_tokens=3)
    assert made.processor and isinstance(answer.text, str) and not answer.perception.segments


def test_a_tokenizer_of_another_model_is_refused(weights, tmp_path):
    small = {name: t[:50] if name in ("output.weight",) else t for name, t in weights.items()}
    published.write(tmp_path / "checkpoint", small)
    tiny.tokenizer().save_pretrained(tmp_path / "words")
    with pytest.raises(CheckpointError, match="tokens beyond the checkpoint's 50 .*; give the checkpoint's own"):
        import_official(tmp_path / "checkpoint", tmp_path / "run", tokenizer=tmp_path / "words")


def test_a_wrong_path_is_one_sentence(run_cli, tmp_path):
    result = run_cli("import-official", tmp_path / "nowhere", tmp_path / "run")
    assert result.exit_code == 1 and "does not exist; give a checkpoint's folder" in result.output


def test_the_published_sizes():
    """At width 4096: 50.4 M in four mixers, 151.4 M in the compressor."""
    with torch.device("meta"):
        mixer, compressor = (part(4096, arithmetic="published") for part in (Mixer, Compressor))
    assert round(4 * sum(p.numel() for p in mixer.parameters()) / 1e6, 1) == 50.4
    assert round(sum(p.numel() for p in compressor.parameters()) / 1e6, 1) == 151.4
