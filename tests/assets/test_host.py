"""A host is a folder with safetensors; a GGUF file becomes one, once, by the real converter on a tiny model."""

import json
import shutil

import pytest

from moai.assets import host, known_hashes
from moai.assets.host import resolve_host
from moai.errors import AssetError

TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "c", "ab", "Ġ"]
WIDTH, LAYERS, HEADS, HIDDEN = 64, 1, 2, 64


def write_gguf(path):
    """A Llama of one layer with random weights (some of them quantised) and a byte-pair tokenizer of eight tokens."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(32)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3, 1, 1, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    rng = np.random.default_rng(0)
    shapes = {"token_embd.weight": (len(TOKENS), WIDTH), "output_norm.weight": (WIDTH,)}
    for name, shape in {
        "attn_norm": (WIDTH,),
        "ffn_norm": (WIDTH,),
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (WIDTH, WIDTH),
        "attn_v": (WIDTH, WIDTH),
        "attn_output": (WIDTH, WIDTH),
        "ffn_gate": (HIDDEN, WIDTH),
        "ffn_up": (HIDDEN, WIDTH),
        "ffn_down": (WIDTH, HIDDEN),
    }.items():
        shapes[f"blk.0.{name}.weight"] = shape
    for name, shape in shapes.items():
        values = rng.standard_normal(shape).astype(np.float32)
        if "ffn_" in name and len(shape) == 2:
            packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def fake_convert(calls):
    def convert(gguf, folder):
        calls.append(gguf)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(gguf.read_bytes())

    return convert


def test_a_gguf_file_becomes_a_folder_that_transformers_loads(tmp_path, cache):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_gguf(tmp_path / "tiny.gguf")
    folder = resolve_host(tmp_path / "tiny.gguf")
    assert folder.is_relative_to(cache)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert getattr(model, "hf_quantizer", None) is None
    assert len(model.model.layers) == LAYERS
    assert AutoTokenizer.from_pretrained(folder)("ab c")["input_ids"] == [6, 7, 5]


def test_a_second_call_converts_and_hashes_nothing(tmp_path, cache, monkeypatch):
    calls = []
    monkeypatch.setattr(host, "_convert", fake_convert(calls))
    (tmp_path / "m.gguf").write_bytes(b"weights")
    monkeypatch.setattr(known_hashes, "SMALL", 0)
    monkeypatch.setattr(known_hashes, "SETTLED", -1)
    first = resolve_host(tmp_path / "m.gguf")
    monkeypatch.setattr(known_hashes, "sha256_file", lambda path: pytest.fail("hashed again"))
    assert resolve_host(tmp_path / "m.gguf") == first
    assert len(calls) == 1


def test_another_content_under_the_same_name_is_another_folder(tmp_path, cache, monkeypatch):
    calls = []
    monkeypatch.setattr(host, "_convert", fake_convert(calls))
    (tmp_path / "m.gguf").write_bytes(b"weights")
    first = resolve_host(tmp_path / "m.gguf")
    (tmp_path / "m.gguf").write_bytes(b"other weights")
    second = resolve_host(tmp_path / "m.gguf")
    assert first != second
    assert (first / "model.safetensors").read_bytes() == b"weights"
    assert (second / "model.safetensors").read_bytes() == b"other weights"


def test_the_same_content_elsewhere_is_not_converted_again(tmp_path, cache, monkeypatch):
    calls = []
    monkeypatch.setattr(host, "_convert", fake_convert(calls))
    (tmp_path / "m.gguf").write_bytes(b"weights")
    first = resolve_host(tmp_path / "m.gguf")
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "m.gguf", tmp_path / "copy" / "m.gguf")
    assert resolve_host(tmp_path / "copy") == first
    assert len(calls) == 1


def test_a_folder_with_safetensors_is_itself(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert resolve_host(tmp_path) == tmp_path


def test_a_missing_shard_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model-1.safetensors").write_bytes(b"")
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(AssetError, match="lacks 'model-2.safetensors', one of 2 shards"):
        resolve_host(tmp_path)


def test_pickled_weights_are_refused_with_the_way_out(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(AssetError, match="pickled weights.*save_pretrained"):
        resolve_host(tmp_path)


def test_a_file_of_another_kind_and_two_ggufs_are_sentences(tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(AssetError, match="no language model"):
        resolve_host(tmp_path / "a.txt")
    (tmp_path / "a.gguf").write_bytes(b"")
    (tmp_path / "b.gguf").write_bytes(b"")
    with pytest.raises(AssetError, match="2 .gguf files; name one of them"):
        resolve_host(tmp_path)


@pytest.mark.parametrize("kept", [0, 3, 8, 200, 700, -100])
def test_a_truncated_gguf_is_a_sentence_and_leaves_no_folder(tmp_path, cache, kept):
    write_gguf(tmp_path / "whole.gguf")
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "whole.gguf").read_bytes()[:kept])
    with pytest.raises(AssetError, match="cannot read .*cut.gguf.*give a folder with safetensors"):
        resolve_host(tmp_path / "cut.gguf")
    assert not any(path.is_dir() for path in (cache / "hosts").iterdir())
