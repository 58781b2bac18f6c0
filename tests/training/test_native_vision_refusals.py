"""What a recipe around a host that sees cannot have, and files that do not fit: each named with its key and its fix."""

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
from moai.model.processor.native_vision import SeeingProcessor
from moai.recipe.loading import load_recipe, validate
from moai.recipe.schema import Recipe
from moai.training.build import build
from moai.training.memory_plan.plan import plan

STEP = {"steps": 1, "routing": "gates"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"vision": {"architecture": "test_efficientnet"}}, "vision must not be given.*or set vision: null"),
        ({"connector": {"kind": "mlp"}}, "connector must not be given"),
        ({"host": {"image_token": "<image>"}}, "leave host.image_token out"),
        ({"perception": {"panoptic_map": True}}, "perception.panoptic_map: true needs an encoder of ours.*to false"),
        (
            {"training": {"step1": {**STEP, "image_dropout": 0.5}}},
            "training.step1.image_dropout.*set it to 0",
        ),
        (
            {"training": {"step2": {**STEP, "train_connector": True}}},
            "training.step2.train_connector: true",
        ),
        ({"mixer": {"layers": []}}, "training.step1 nothing to train; name mixer.layers"),
        ({"host": {"sees": "yes"}}, "host.sees"),
        ({"training": {"step1": {"steps": 1}}}, "training.step1.routing: missing"),
        ({"perception": 3}, "perception: "),
    ],
)
def test_what_does_not_fit_is_named(changes, sentence):
    data = {**native_vision_families.recipe("llava").model_dump(mode="json", exclude_unset=True)}
    for key in ("vision", "connector"):
        data.pop(key)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(data.get(key), dict)
        data[key] = {**data[key], **value} if both else value
    with pytest.raises(RecipeError, match=sentence):
        validate(data, Recipe, "seeing.yaml")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"vision": None}, "vision is null.*set host.sees: true"),
        ({"connector": None}, "connector is null.*set host.sees: true"),
        ({"vision": {"reference": "host"}}, "vision.reference: host is said as host.sees: true"),
    ],
)
def test_a_host_without_eyes_needs_an_encoder(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny.recipe(**changes)


def test_a_recipe_may_drop_the_encoder_of_its_base(tmp_path):
    (tmp_path / "base.yaml").write_text(tiny.recipe().to_yaml())
    where = native_vision_families.folder("llava")
    lines = ["extends: base.yaml", f"host: {{reference: '{where}', sees: true}}", "vision: null", "connector: null"]
    (tmp_path / "seeing.yaml").write_text("\n".join(lines))
    with pytest.raises(RecipeError, match="perception.panoptic_map: true"):
        load_recipe(tmp_path / "seeing.yaml")
    none = {"image_dropout": 0, "train_connector": False}
    more = ["perception: {panoptic_map: false}", f"training: {{step1: {json.dumps(none)}, step2: {json.dumps(none)}}}"]
    (tmp_path / "seeing.yaml").write_text("\n".join([*lines, *more]))
    recipe = load_recipe(tmp_path / "seeing.yaml")
    assert recipe.vision is None and recipe.connector is None and recipe.host.sees
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_the_recipe_of_the_documentation_fits():
    text = (Path(__file__).parents[2] / "docs" / "hosts.md").read_text(encoding="utf-8")
    [written] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    recipe = validate(yaml.safe_load(written), Recipe, "hosts.md")
    assert recipe.host.sees and recipe.vision is None


def test_the_defaults_fit_a_host_that_sees():
    recipe = Recipe(version=1, name="x", host={"reference": "a/b", "sees": True})
    plain = Recipe(version=1, name="x", host={"reference": "a/b"}, vision={"reference": "a/b"})
    assert not recipe.perception.panoptic_map
    for name in ("step1", "step2"):
        one, other = getattr(recipe.training, name), getattr(plain.training, name)
        assert (one.image_dropout, one.train_connector) == (0, False)
        assert (one.steps, one.routing) == (other.steps, other.routing)


def test_who_sees_is_checked_before_weights_are_read():
    with pytest.raises(HostError, match="is no vision-language model; name an encoder in vision, without host.sees"):
        build(native_vision_families.recipe("llava", host={"reference": str(tiny.assets() / "host")}))
    with pytest.raises(HostError, match="is a vision-language model; set host.sees: true"):
        build(tiny.recipe(host={"reference": str(native_vision_families.folder("llava"))}))


def test_a_plan_checks_who_sees_too():
    with pytest.raises(HostError, match="is no vision-language model"):
        plan(native_vision_families.recipe("llava", host={"reference": str(tiny.assets() / "host")}))
    with pytest.raises(HostError, match="is a vision-language model; set host.sees: true"):
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
    with pytest.raises(HostError, match="the processor marks images by '<image>'.*reads id 5"):
        build(native_vision_families.recipe("llava", host={"reference": str(tmp_path)}))


def test_shapes_do_not_describe_a_host_that_sees(run_cli, tmp_path):
    for option in ("host_shape", "vision_shape"):
        with pytest.raises(RecipeError, match=f"--{option.replace('_', '-')} cannot describe"):
            plan(native_vision_families.recipe("llava"), **{option: "width=64"})
    path = tmp_path / "plain.yaml"
    path.write_text(tiny.recipe().to_yaml())
    assert "is for hosts that see" in run_cli("plan", path, "--picture", "64x32").stderr
    path.write_text(native_vision_families.recipe("llava").to_yaml())
    assert "is no size in pixels" in run_cli("plan", path, "--picture", "64").stderr


def test_files_that_were_altered_are_named(tmp_path):
    where = shutil.copytree(native_vision_families.folder("llava"), tmp_path / "host")
    model, processor = build(native_vision_families.recipe("llava", host={"reference": str(where)}))
    processor.save_pretrained(tmp_path / "run")
    model.save_pretrained(tmp_path / "run")
    assert isinstance(moai.load(tmp_path / "run", device="cpu").processor, SeeingProcessor)
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
