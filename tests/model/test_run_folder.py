"""Run folders: what is in them, that they come back as they were, and that damage is named."""

import json
import shutil

import pytest
import tiny
import torch
from agreement import assert_greedy_agree, assert_near, greedy
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

import moai
from moai.assets.hashes import sha256_file
from moai.errors import CheckpointError
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.run_folder import write_manifest

QUESTIONS = ("What color?", "Is there a red shape in it, or none?")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a model and its processor, and both of them."""
    folder = tmp_path_factory.mktemp("run")
    model, processor = tiny.made()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder, model, processor


@pytest.fixture
def run_dir(saved, tmp_path):
    """A copy that a test may damage, with frozen parts of its own."""
    parts = shutil.copytree(tiny.assets(), tmp_path / "parts")
    folder = shutil.copytree(saved[0], tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config["host"]["reference"] = str(parts / "host")
    config["vision"]["reference"] = str(parts / "vision.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    write_manifest(folder)
    return folder


def logits(model, processor):
    inputs = tiny.prompt_inputs(processor, QUESTIONS, (tiny.seen("red"), tiny.seen("blue", "green")))
    with torch.no_grad():
        return model(**inputs).logits


def test_only_what_was_trained_is_saved(saved):
    folder, model, _ = saved
    state = load_file(folder / "moai.safetensors")
    assert set(state) == set(model.adapter_parameters())
    assert sum(t.numel() * 4 for t in state.values()) + 40_000 > (folder / "moai.safetensors").stat().st_size
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".part")]
    config = json.loads((folder / "config.json").read_text())
    parts = tiny.assets()
    assert config["host"]["reference"] == str(parts / "host")
    assert config["host"]["sha256"] == {"model.safetensors": sha256_file(parts / "host" / "model.safetensors")}
    assert config["vision"]["sha256"] == sha256_file(parts / "vision.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert set(manifest) == files
    assert all(sha256_file(folder / name) == digest for name, digest in manifest.items())


def test_auto_classes_give_the_same_logits(saved):
    folder, model, processor = saved
    again = AutoModelForImageTextToText.from_pretrained(folder)
    assert isinstance(again, MoaiForConditionalGeneration) and not again.training
    # Bits: the frozen parts are views of the same files in both, and adapters are always copied.
    assert torch.equal(logits(again, AutoProcessor.from_pretrained(folder)), logits(model, processor))
    assert set(again.adapter_parameters()) == set(model.adapter_parameters())
    trained = {id(p) for p in again.parameters() if p.requires_grad}
    assert trained == {id(p) for p in again.adapter_parameters().values()}


def test_a_saved_copy_of_a_loaded_model_is_the_same(saved, tmp_path):
    folder, _, _ = saved
    AutoModelForImageTextToText.from_pretrained(folder).save_pretrained(tmp_path)
    for name in ("config.json", "moai.safetensors", "generation_config.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16"])
def test_a_host_in_another_precision(saved, dtype):
    folder, model, processor = saved
    half = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)
    assert half.host.dtype == torch.bfloat16
    assert {p.dtype for p in half.adapter_parameters().values()} == {torch.float32}
    found, expected = logits(half, processor).float(), logits(model, processor)
    assert (found[:, -1] - expected[:, -1]).abs().max() < 0.2


def test_device_maps_of_one_device(saved):
    folder = saved[0]
    for device_map in ("cpu", {"": "cpu"}, "auto" if not torch.cuda.is_available() else "cpu"):
        assert AutoModelForImageTextToText.from_pretrained(folder, device_map=device_map).device.type == "cpu"
    with pytest.raises(CheckpointError, match="moai loads onto one device"):
        AutoModelForImageTextToText.from_pretrained(folder, device_map={"host": 0, "mixers": 1})


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_hosts_attention_is_kept(attention, tmp_path):
    model, _ = tiny.made(host={"attention": attention})
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert again.host.config._attn_implementation == attention
    for auto in (AutoModelForImageTextToText, MoaiForConditionalGeneration):
        other = auto.from_pretrained(tmp_path, attn_implementation="eager")
        assert other.host.config._attn_implementation == "eager"


def test_an_encoder_with_random_weights_comes_back(tmp_path):
    model, processor = tiny.made(vision={"reference": None})
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert_near(logits(again, processor), logits(model, processor))  # the encoder is in a file now, aligned otherwise
    again.save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy" / "vision.safetensors").read_bytes() == (tmp_path / "vision.safetensors").read_bytes()
    (tmp_path / "vision.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lacks the file 'vision.safetensors'"):
        AutoModelForImageTextToText.from_pretrained(tmp_path)


def test_every_weight_is_there_after_loading(saved):
    """Parts are made without memory first; what was left so would fail only at the first question."""
    again = AutoModelForImageTextToText.from_pretrained(saved[0])
    assert not [name for name, t in (*again.named_parameters(), *again.named_buffers()) if t.is_meta]
    with torch.no_grad():
        for parameter in again.adapter_parameters().values():
            parameter.zero_()  # the file is mapped: writing must not reach it
    assert set(load_file(saved[0] / "moai.safetensors")["compressor.latents"].unique().tolist()) != {0.0}


def test_loaded_adapters_lie_as_those_of_a_new_model_do(saved):
    """In memory that torch allocated, and not as they lie in the file: alignment may change the last bits."""
    folder, model, _ = saved
    again = AutoModelForImageTextToText.from_pretrained(folder)
    packed = [t.data_ptr() % 64 for t in load_file(folder / "moai.safetensors").values()]
    assert any(packed), "the file is aligned by chance; the test shows nothing"
    for each in (model, again):
        assert not any(p.data_ptr() % 64 for p in each.adapter_parameters().values())


def test_generate_on_a_left_padded_batch(saved):
    folder, model, processor = saved
    again, loaded = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    turns = [tiny.user_turn(tiny.picture(color), question) for color, question in zip(("red", "blue"), QUESTIONS)]
    inputs = loaded.apply_chat_template(
        turns, add_generation_prompt=True, tokenize=True, return_dict=True, processor_kwargs={"padding": True}
    )
    assert not inputs["attention_mask"].all() and "aux_input_ids" in inputs
    answers = greedy(again, inputs, max_new_tokens=5, min_new_tokens=5)
    for row in range(2):
        alone = loaded.apply_chat_template(turns[row], add_generation_prompt=True, tokenize=True, return_dict=True)
        assert alone["attention_mask"].all()
        assert_greedy_agree(greedy(model, alone, max_new_tokens=5, min_new_tokens=5), answers.row(row))


def test_the_pipeline_answers(saved):
    folder, model, processor = saved
    pipe = pipeline("image-text-to-text", model=str(folder))
    length = {"max_new_tokens": 5, "min_new_tokens": 5}
    [answer] = pipe(text=tiny.user_turn(tiny.picture("red"), "What?"), generate_kwargs=length, return_full_text=False)
    inputs = tiny.prompt_inputs(processor, ["What?"], processor.perceiver.perceive([tiny.picture("red")]))
    expected = model.generate(**inputs, **length)[0, inputs["input_ids"].shape[1] :]
    assert answer["generated_text"].strip() == processor.tokenizer.decode(expected, skip_special_tokens=True).strip()
    assert answer["generated_text"].strip()


# Damage -----------------------------------------------------------------------------------------------------------


def test_the_copy_is_whole(run_dir):
    """What the tests below damage loads as it is."""
    assert moai.load(run_dir, device="cpu").model.config.image_tokens == tiny.IMAGE_TOKENS


@pytest.mark.parametrize(
    "name", ["config.json", "moai.safetensors", "tokenizer.json", "processor_config.json", "chat_template.jinja"]
)
@pytest.mark.parametrize("harm", ["missing", "altered", "truncated"])
def test_a_missing_or_altered_file_is_named(run_dir, name, harm):
    path = run_dir / name
    assert path.is_file()
    data = path.read_bytes()
    if harm == "missing":
        path.unlink()
    elif harm == "altered":
        path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    else:
        path.write_bytes(data[: len(data) // 2])
    expected = "lacks the file" if harm == "missing" else "was altered"
    with pytest.raises(CheckpointError, match=name) as caught:
        moai.load(run_dir, device="cpu")
    assert expected in str(caught.value) and "; " in str(caught.value)


@pytest.mark.parametrize("text", [None, "{", "[]", '"text"', "{}", '{"config.json": 3}'])
def test_a_damaged_manifest(run_dir, text):
    path = run_dir / "manifest.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(CheckpointError, match="manifest.json"):
        moai.load(run_dir, device="cpu")


@pytest.mark.parametrize(
    "found, sentence",
    [
        (None, "was written by moai 0.1; open it with"),
        (2, "was written by moai 0.2; open it with"),
        (4, "has run format 4, and"),
    ],
)
def test_another_format_is_refused_with_the_version_that_opens_it(run_dir, run_cli, found, sentence):
    config = json.loads((run_dir / "config.json").read_text())
    assert config.pop("format") == 3
    (run_dir / "config.json").write_text(json.dumps(config if found is None else {**config, "format": found}))
    (run_dir / "recipe.yaml").write_text("preset: moai\n")  # a key of before, which is not what stands in the way
    write_manifest(run_dir)
    for load in (moai.load, AutoModelForImageTextToText.from_pretrained, AutoProcessor.from_pretrained):
        with pytest.raises(CheckpointError, match=f"{run_dir} {sentence}.*or train it again"):
            load(run_dir)
    result = run_cli("eval", run_dir)
    assert result.exit_code == 1 and sentence in result.stderr


def test_an_altered_host(run_dir):
    path = run_dir.parent / "parts" / "host" / "model.safetensors"
    state = load_file(path)
    state["model.norm.weight"][0] += 1e-3
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="'model.safetensors' in .*host was altered.*restore the original file"):
        moai.load(run_dir, device="cpu")


def test_an_altered_encoder(run_dir):
    path = run_dir.parent / "parts" / "vision.safetensors"
    state = load_file(path)
    state["conv_stem.weight"][0] += 1e-3
    save_file(state, path)
    with pytest.raises(CheckpointError, match="vision.safetensors is not the vision encoder this run was trained with"):
        moai.load(run_dir, device="cpu")


def rewritten(run_dir, change):
    """Change the adapters and make the manifest fit, as a careless hand would."""
    path = run_dir / "moai.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path, metadata={"format": "pt"})
    write_manifest(run_dir)
    with pytest.raises(CheckpointError) as caught:
        moai.load(run_dir, device="cpu")
    return str(caught.value)


def test_weights_that_do_not_fit_their_configuration(run_dir):
    name = "mixers.0.gate_image.weight"
    assert f"missing ['{name}']" in rewritten(run_dir, lambda state: state.pop(name))
    extra = {name: torch.zeros(3, 64), "mixers.7.x": torch.zeros(1)}
    assert "unknown ['mixers.7.x']" in rewritten(run_dir, lambda state: state.update(extra))


def test_weights_of_another_shape(run_dir):
    name = "compressor.latents"
    message = rewritten(run_dir, lambda state: state.update({name: torch.zeros(9, 64)}))
    assert f"{name} is (9, 64), config.json says (8, 64)" in message


def test_a_safetensors_file_that_is_none(run_dir):
    (run_dir / "moai.safetensors").write_bytes(b"\x00" * 100)
    write_manifest(run_dir)
    with pytest.raises(CheckpointError, match="moai.safetensors is damaged .*copy the run folder again"):
        moai.load(run_dir, device="cpu")


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(CheckpointError, match="no manifest.json; it is no finished run"):
        moai.load(tmp_path, device="cpu")
