"""What a recipe around a host with its own vision cannot have, and files that do not fit: each named with its fix."""

import json
import re
import shutil
from pathlib import Path

import native_vision_families
import pytest
import tiny
import torch
import yaml

import moai
from moai.errors import AssetError, CheckpointError, HostError, RecipeError
from moai.recipe.loading import load_recipe, validate
from moai.recipe.schema import Recipe
from moai.recipe.sections import HostVision
from moai.training.build import build
from moai.training.memory_plan.plan import plan


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"vision": {"architecture": "test_efficientnet"}}, "vision.architecture: unknown key"),
        ({"vision": {"connector": {"kind": "mlp"}}}, "vision.connector: unknown key"),
        ({"vision": {"image_token": "<image>"}}, "vision.image_token: unknown key"),
        ({"vision": {"panoptic_map": True}}, "vision.panoptic_map: unknown key"),
        (
            {"stages": [tiny.stage(image_dropout=0.5)]},
            "stages.gates.image_dropout needs vision.kind: encoder; leave it out",
        ),
        (
            {"stages": [tiny.stage(train={"connector": 1e-3})]},
            "stages.gates.train.connector needs vision.kind: encoder; set it to null, or leave it out",
        ),
        ({"mixer": {"layers": []}}, "stages.modules.train.compressor needs mixer.layers; set it to null"),
        ({"stages": [{"name": "one"}]}, "stages.one needs a length: give either steps or epochs"),
        ({"perception": 3}, "perception: "),
    ],
)
def test_what_does_not_fit_is_named(changes, sentence):
    data = {**native_vision_families.recipe("llava").model_dump(mode="json", exclude_unset=True)}
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(data.get(key), dict)
        data[key] = {**data[key], **value} if both else value
    with pytest.raises(RecipeError, match=sentence):
        validate(data, Recipe, "own-vision.yaml")


@pytest.mark.parametrize(
    ("vision", "sentence"),
    [
        ({}, "vision.kind: missing; add it"),
        ({"kind": "hots"}, "vision.kind: 'hots' is not one of encoder, host, none; did you mean 'host'?"),
        (None, "vision: "),
    ],
)
def test_a_recipe_says_whose_vision_it_is(vision, sentence):
    data = {**tiny.recipe().model_dump(mode="json"), "vision": vision}
    with pytest.raises(RecipeError, match=re.escape(sentence)):
        validate(data, Recipe, "tiny.yaml")
    data.pop("vision")
    with pytest.raises(RecipeError, match="vision: missing; add it"):
        validate(data, Recipe, "tiny.yaml")


def test_a_recipe_may_drop_the_encoder_of_its_base(tmp_path):
    (tmp_path / "base.yaml").write_text(tiny.recipe().to_yaml())
    where = native_vision_families.folder("llava")
    lines = ["extends: base.yaml", f"host: {{reference: '{where}'}}", "vision: {kind: host}"]
    (tmp_path / "own-vision.yaml").write_text("\n".join(lines))
    with pytest.raises(RecipeError, match="stages.modules.image_dropout needs vision.kind: encoder"):
        load_recipe(tmp_path / "own-vision.yaml")
    none = {"image_dropout": 0, "train": {"connector": None}}
    lines.append(f"stages: {json.dumps([{'name': name, **none} for name in ('modules', 'gates')])}")
    (tmp_path / "own-vision.yaml").write_text("\n".join(lines))
    recipe = load_recipe(tmp_path / "own-vision.yaml")
    assert recipe.vision == HostVision(kind="host")
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_the_recipe_of_the_documentation_fits():
    text = (Path(__file__).parents[2] / "docs" / "hosts.md").read_text(encoding="utf-8")
    [written] = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "kind: host" in block]
    recipe = validate(yaml.safe_load(written), Recipe, "hosts.md")
    assert recipe.vision.kind == "host"


def test_the_defaults_fit_a_host_with_its_own_vision():
    both = {"version": 1, "name": "x", "host": {"reference": "a/b"}}
    recipe = Recipe(**both, vision={"kind": "host"})
    plain = Recipe(**both, vision={"kind": "encoder", "reference": "a/b"})
    for one, other in zip(recipe.stages, plain.stages, strict=True):
        assert one.image_dropout == 0 and one.train.connector is None
        assert set(other.train.parts()) - set(one.train.parts()) == {"connector"}
        assert (one.steps, one.routing) == (other.steps, other.routing)


def test_whose_vision_it_is_is_checked_before_weights_are_read():
    with pytest.raises(HostError, match="is no vision-language model; set vision.kind to encoder, and name one"):
        build(native_vision_families.recipe("llava", host={"reference": str(tiny.assets() / "host")}))
    with pytest.raises(HostError, match=r"is a vision-language model; set vision: \{kind: host\}"):
        build(tiny.recipe(host={"reference": str(native_vision_families.folder("llava"))}))


def test_a_plan_checks_whose_vision_it_is_too():
    with pytest.raises(HostError, match="is no vision-language model"):
        plan(native_vision_families.recipe("llava", host={"reference": str(tiny.assets() / "host")}))
    with pytest.raises(HostError, match=r"is a vision-language model; set vision: \{kind: host\}"):
        plan(tiny.recipe(host={"reference": str(native_vision_families.folder("llava"))}))


def test_a_host_without_processor_files(tmp_path):
    native_vision_families.made("llava")[0].save_pretrained(tmp_path)
    recipe = native_vision_families.recipe("llava", host={"reference": str(tmp_path)})
    with pytest.raises(HostError, match="has no processor|takes no images"):
        build(recipe)
    with pytest.raises(AssetError, match="a plan needs these files"):
        plan(recipe)


def test_a_processor_of_another_host(tmp_path):
    model, processor, _ = native_vision_families.made("llava")
    model.config.image_token_id = 5
    model.save_pretrained(tmp_path)
    processor.chat_template = native_vision_families.TEMPLATES["llava"]
    processor.save_pretrained(tmp_path)
    with pytest.raises(HostError, match="the processor marks images by '<image>'.*by id 5"):
        build(native_vision_families.recipe("llava", host={"reference": str(tmp_path)}))


def test_shapes_do_not_describe_a_host_with_its_own_vision(run_cli, tmp_path):
    for option in ("host_shape", "vision_shape"):
        with pytest.raises(RecipeError, match=f"--{option.replace('_', '-')} cannot describe"):
            plan(native_vision_families.recipe("llava"), **{option: "width=64"})
    path = tmp_path / "plain.yaml"
    path.write_text(tiny.recipe().to_yaml())
    assert "is for a host with its own vision" in run_cli("plan", path, "--picture", "64x32").stderr
    path.write_text(native_vision_families.recipe("llava").to_yaml())
    assert "is no size in pixels" in run_cli("plan", path, "--picture", "64").stderr


def test_files_that_were_altered_are_named(tmp_path):
    where = shutil.copytree(native_vision_families.folder("llava"), tmp_path / "host")
    model, processor = build(native_vision_families.recipe("llava", host={"reference": str(where)}))
    processor.save_pretrained(tmp_path / "run")
    model.save_pretrained(tmp_path / "run")
    assert moai.load(tmp_path / "run", device="cpu").processor.host_processor is not None
    inside = tmp_path / "run" / "host_processor" / "processor_config.json"
    text = inside.read_text()
    inside.write_text(text.replace("16", "24"))
    with pytest.raises(CheckpointError, match="host_processor/processor_config.json.*was altered"):
        moai.load(tmp_path / "run")
    inside.write_text(text)
    other, _ = build(native_vision_families.recipe("llava"))
    with torch.no_grad():
        next(other.host.parameters()).add_(1)
    other.host.save_pretrained(where)
    with pytest.raises(CheckpointError, match="model.safetensors.*was altered"):
        moai.load(tmp_path / "run")
