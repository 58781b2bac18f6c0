"""Folders that cannot be used are a sentence, and what was loaded is gone after unload."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from moai_transformers import EoMT, GroundingDino, Mask2Former, OmDetTurbo, OWLv2
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_engines import NAMES

from moai.errors import AssetError, ExpertError
from moai.types import Perception


def test_all_experts_are_registered_with_licence_and_weights():
    import moai_transformers

    known = []
    moai_transformers.register_experts(known.append)
    names = [
        "eomt",
        "mask2former",
        "owlv2",
        "llmdet",
        "mm-grounding-dino",
        "grounding-dino",
        "omdet-turbo",
        "predicates",
    ]
    assert [expert.name for expert in known] == names
    for expert in known:
        assert expert.licence and expert.weights != "none" and "transformers" in expert.version
        assert all(field.description for field in expert.Options.model_fields.values())


def test_another_kind_of_model_is_refused(engine):
    with pytest.raises(ExpertError, match=r"'eomt' runs models of type eomt.*is a 'mask2former'"):
        EoMT(model=engine("mask2former"), things=("cat",)).load()
    with pytest.raises(ExpertError, match="is a 'mm-grounding-dino'; choose another"):
        GroundingDino(model=engine("grounding")).load()


def test_a_folder_without_a_model_is_a_sentence(tmp_path):
    with pytest.raises(AssetError, match="no readable config.json"):
        EoMT(model=str(tmp_path)).load()
    with pytest.raises(AssetError, match="does not exist"):
        EoMT(model=str(tmp_path / "none")).load()


@pytest.fixture
def copy(engine, tmp_path):
    return Path(shutil.copytree(engine("owlv2"), tmp_path / "copy"))


def test_weights_with_gaps_are_refused_instead_of_filled_with_noise(copy):
    weights = load_file(copy / "model.safetensors")
    weights.pop("box_head.dense0.weight")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AssetError, match=r"lack 1 parameters such as box_head.dense0.weight"):
        OWLv2(model=str(copy), vocabulary=NAMES).load()


def test_pickled_weights_are_not_read(copy):
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(AssetError, match="safetensors"):
        OWLv2(model=str(copy), vocabulary=NAMES).load()


def test_a_missing_processor_is_a_sentence(copy):
    for file in copy.glob("*processor*"):
        file.unlink()
    with pytest.raises(AssetError, match="cannot load"):
        OWLv2(model=str(copy), vocabulary=NAMES).load()


def test_other_weights_are_another_cache_key(copy):
    before = OWLv2(model=str(copy)).weights_id()
    assert before == OWLv2(model=str(copy)).weights_id()
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "new": 1}))
    assert OWLv2(model=str(copy)).weights_id() != before


def test_a_hub_id_is_known_without_asking_the_hub():
    assert EoMT(model="owner/name", revision="abc").weights_id() == "owner/name@abc"


def test_float16_on_a_cpu_and_unknown_precisions_are_refused(engine):
    with pytest.raises(ExpertError, match="float16 needs a GPU"):
        OWLv2(model=engine("owlv2"), dtype="float16").load()
    with pytest.raises(ExpertError, match="dtype"):
        OWLv2(dtype="int8")


def test_numbers_that_overflow_are_an_error_and_not_an_empty_picture(engine):
    expert = OWLv2(model=engine("owlv2"), vocabulary=NAMES)
    expert.load()
    with torch.no_grad():
        expert._model.class_head.dense0.weight.fill_(float("nan"))
    with pytest.raises(ExpertError, match="computed NaN in float32"):
        expert.perceive([Image.new("RGB", (64, 64))], [Perception()])


@pytest.mark.parametrize(("kind", "name"), [(OmDetTurbo, "omdet"), (Mask2Former, "mask2former")])
def test_unload_frees_every_part_of_the_model(kind, name, engine):
    options = {"vocabulary": NAMES} if kind is OmDetTurbo else {"things": ("cat",)}
    expert = kind(model=engine(name), **options)
    expert.load()
    expert.perceive([Image.new("RGB", (64, 64))], [Perception()])
    parts = [weakref.ref(module) for module in expert._model.modules()]
    expert.unload()
    gc.collect()
    assert not [part() for part in parts if part() is not None]
    expert.load()
    assert expert.perceive([Image.new("RGB", (64, 64))], [Perception()])
