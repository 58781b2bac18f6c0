"""Every full-size recipe is planned: its model is built from shapes, without weights, and has the system's sizes.

A dry run of every recipe stands in test_recipe_places.py.
"""

from __future__ import annotations

import json

import pytest

from moai.recipe.loading import load_recipe
from moai.recipe.places import recipe_names

SHIPPED = ("wheel:", "package:")  # hosts that can be had here: recipes for two CPU cores
CLIP = "width=1024,layers=24,heads=16,ffn=4096,patch=14"
LLAMA_7B, LLAMA_13B = "layers=32,width=4096,heads=32", "layers=40,width=5120,heads=40,ffn=13824"
INTERN = "layers=32,width=4096,heads=32,kv=8,ffn=14336,vocab=92544,context=32768"
QWEN = "layers=32,width=4096,heads=32,ffn=11008,vocab=151936,context=32768"
MM1_3B = "layers=32,width=2560,heads=32,ffn=8704"

# Host and encoder as shapes; then image tokens, and millions of parameters of host and of our parts.
FULL = {
    "kosmos-1": (None, None, 64, 1342, {"connector": 19.0}),
    "llava-1.5/llava-1.5-7b": (LLAMA_7B, CLIP, 576, 6738, {"connector": 21.0}),
    "llava-1.5/llava-1.5-7b-lora": (LLAMA_7B, CLIP, 576, 7058, {"connector": 21.0}),
    "llava-1.5/llava-1.5-13b": (LLAMA_13B, CLIP, 576, 13016, {"connector": 31.5}),
    "mm1-3b": (MM1_3B, None, 144, 3142, {"connector": 27.6}),
    "mm1-3b-tiles": (MM1_3B, None, 720, 3142, {"connector": 29.7}),
    "mm1-7b": (LLAMA_7B, None, 144, 6738, {"connector": 39.4}),
    "mm1-30b": ("layers=56,width=6656,heads=52,ffn=17920", None, 144, 30389, {"connector": 69.6}),
    "moai/moai-7b": (INTERN, CLIP, 1225, 7738, {"connector": 21.0, "compressor": 151.4, "mixers": 50.4}),
    "moai/moai-7b-projector": (INTERN, CLIP, 1225, 7738, {"connector": 21.0}),
    "moai/moai-llava-7b": (LLAMA_7B, CLIP, 576, 6738, {"connector": 21.0, "compressor": 151.4, "mixers": 50.4}),
    "parrot": (QWEN, CLIP, 577, 7721, {"connector": 323.0}),
}  # fmt: skip


def test_all_recipes_at_full_size_are_here():
    assert {name for name in recipe_names() if not load_recipe(name).host.reference.startswith(SHIPPED)} == set(FULL)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_a_plan_has_the_sizes(run_cli, name):
    host, vision, tokens, size, ours = FULL[name]
    shapes = [*(("--host-shape", host) if host else ()), *(("--vision-shape", vision) if vision else ())]
    done = run_cli("plan", name, *shapes, "--json")
    assert done.exit_code == 0, done.stderr
    made = json.loads(done.stdout)
    parts = {part["name"]: part["parameters"] / 1e6 for part in made["parts"]}
    assert made["tokens"]["image"] == tokens
    assert round(parts.pop("host")) == size and parts.pop("vision") > 300
    assert {part: round(number, 1) for part, number in parts.items()} == ours
