"""Loading hosts by reference: what comes back, what is refused, and which files are hashed."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import tiny
import torch
from native_vision_families import folder as vision_language_folder
from transformers import LlamaForCausalLM

from moai.assets.hashes import sha256_file
from moai.errors import CheckpointError, HostError
from moai.model.host.loading import check_frozen, host_hashes, load_host


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(tiny.assets() / "host", tmp_path / "host")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_folder_gives_its_weights_in_the_dtype_that_is_asked_for(folder, dtype):
    expected = LlamaForCausalLM.from_pretrained(folder).state_dict()
    host = load_host(str(folder), None, dtype, attn_implementation="eager")
    assert isinstance(host, LlamaForCausalLM) and host.config._attn_implementation == "eager"
    assert {p.dtype for p in host.parameters()} == {dtype}
    assert all(torch.equal(value, expected[name].to(dtype)) for name, value in host.state_dict().items())


def test_a_vision_language_model_is_loaded_whole_only_where_its_vision_is_wanted(folder):
    vision_language = vision_language_folder("llava")
    host = load_host(str(vision_language), None, torch.float32, own_vision=True)
    assert type(host).__name__ == "LlavaForConditionalGeneration"
    with pytest.raises(HostError, match=r"llava.* is a vision-language model; set vision: \{kind: host\}"):
        load_host(str(vision_language), None, torch.float32)
    with pytest.raises(HostError, match="llama.* is no vision-language model; set vision.kind to encoder"):
        load_host(str(folder), None, torch.float32, own_vision=True)


def test_the_weight_files_are_hashed_and_a_changed_one_is_refused(folder):
    (weights,) = folder.glob("*.safetensors")
    hashes = host_hashes(str(folder), None)
    assert hashes == {weights.name: sha256_file(weights)}
    config = SimpleNamespace(host={"reference": str(folder), "sha256": hashes}, vision={"kind": "host"})
    check_frozen(config)
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    check_frozen(config)  # names the version of transformers that wrote it, and is no weight
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=weights.name):
        check_frozen(config)


def test_a_changed_encoder_is_refused(folder, tmp_path):
    encoder = shutil.copy(tiny.assets() / "vision.safetensors", tmp_path / "vision.safetensors")
    vision = {"kind": "encoder", "reference": str(encoder), "sha256": "0" * 64}
    config = SimpleNamespace(host={"reference": str(folder)}, vision=vision)
    with pytest.raises(CheckpointError, match="is not the vision encoder this run was trained with; delete"):
        check_frozen(config)
    check_frozen(SimpleNamespace(host=config.host, vision={**vision, "sha256": sha256_file(encoder)}))
