"""Words of our own that the field has a word for: they are gone from identifiers, recipe keys, messages and docs.

The list is the first table below. ``REMAINING`` holds the files where one of them still stands; it may only shrink.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FOLDERS = {"moai", "plugins", "recipes", "docs", "benchmarks", "tests", "README.md", "pyproject.toml", "Makefile"}
SUFFIXES = {".py", ".md", ".yaml", ".toml", ".j2", ".txt", ""}

WORDS = {  # as text anywhere: pattern -> what the field says
    r"\bsees\b": "native vision (a host), find or perceive (an expert)",
    r"\bseeing_\w+|\w+_seeing\b|\bseeing hosts?\b": "VLM host, native vision",
    r"[Uu]nseeing": "HostImages",
    r"check_eyes": "check_native_vision",
    r"\baux_said\b": "source_embeddings",
    r"\bsaid_mean\b": "unembedding_mean",
    r"\bsaid_together\b": "pooled_embeddings",
    r"\bquestion_mean\b": "question_embedding",
    r"\bfact_means?\b": "fact_embeddings",
    r"\bHolder\b": "ForwardContext",
    r"\bConditioning\b": "MixerInputs",
    r"\bKept\b|\bKept(Linear|Words)\b|\bkept_(weights|words|rows)\b": "CachedLinear, WordCache",
    r"\bKeeper\b|\bkeep_weights\b": "WeightCache, cache_weights",
    r"\bsharpness\b": "qk_norm_scale",
    r"\bslots\b(?!=True)": "init_from_tokens",
    r"\bmatch[-_]init\b": "tie_qk_at_init",
    r"\bnone[-_]token\b": "null_token",
    r"\bSpoken\b": "Verbalization",
    r"\bSaid\b": "FactSpan",
    r"\bspeak_within\b": "verbalize_within",
    r"\bplain_words\b": "untrusted_text",
    r"\bin_lanes\b|\blanes?\b": "device queues",
    r"\bin_waves\b|\bwaves\b": "dependency levels",
    r"\bin_shifts\b|\bshifts\b": "memory groups",
    r"\bin_roster\b|\broster\b": "settings",
    r"\bupkeep\b": "maintenance",
    r"\bguide\b": "attention supervision",
    r"\bgloss\b": "question_translation",
    r"\bthrough: prompt\b": "inject: prompt",
}
NAMES = {  # common words, so only as names of functions, classes, their fields and recipe keys
    "take": "gather_tokens",
    "add": "scatter_add_tokens",
    "rows": "gather",
    "unit": "rms_normalize",
    "scales": "norms",
    "keep": "cache",
    "kept": "cached",
    "said": "source_embeddings",
    "sees": "native_vision",
    "side": "StreamWeights",
    "sides": "StreamWeights",
    "blended": "fused",
    "joined": "stacked",
    "narrow": "low_rank",
    "lanes": "device_queues",
    "waves": "dependency_levels",
    "shifts": "memory_groups",
    "guide": "attention_supervision",
    "marks": "target_masks",
    "gloss": "question_translation",
    "through": "inject",
    "kinds": "sampling_rate_by_type",
    "balance": "balance_yes_no",
}

REMAINING = {
    "README.md",
    "benchmarks/answering.py",
    "benchmarks/subjects.py",
    "docs/ablations.md",
    "docs/experts.md",
    "docs/generation.md",
    "docs/hosts.md",
    "docs/log.md",
    "docs/official.md",
    "docs/reading.md",
    "docs/results.md",
    "docs/scenes.md",
    "moai/__init__.py",
    "moai/answering.py",
    "moai/assets/replacing.py",
    "moai/cli/plan.py",
    "moai/data/collate.py",
    "moai/data/scene_prior.py",
    "moai/data/scenes.py",
    "moai/model/analysis/attribution.py",
    "moai/model/config.py",
    "moai/model/encoders/auxiliary.py",
    "moai/model/encoders/compressor.py",
    "moai/model/encoders/connectors.py",
    "moai/model/encoders/context.py",
    "moai/model/encoders/facts.py",
    "moai/model/generation.py",
    "moai/model/host/checks.py",
    "moai/model/host/loading.py",
    "moai/model/host/native_vision.py",
    "moai/model/mixer/attention.py",
    "moai/model/mixer/conditioning.py",
    "moai/model/mixer/gather.py",
    "moai/model/mixer/graft.py",
    "moai/model/mixer/low_rank.py",
    "moai/model/mixer/mixer.py",
    "moai/model/mixer/stacked.py",
    "moai/model/modeling.py",
    "moai/model/norms.py",
    "moai/model/official.py",
    "moai/model/processor/processor.py",
    "moai/model/processor/verbalized.py",
    "moai/model/run_folder.py",
    "moai/model/weight_cache.py",
    "moai/perception/drawing/panoptic_map.py",
    "moai/perception/explaining/explanation.py",
    "moai/perception/explaining/facts.py",
    "moai/perception/running/device_queues.py",
    "moai/perception/running/isolation.py",
    "moai/perception/running/perceiver.py",
    "moai/perception/running/schedule.py",
    "moai/perception/words/token_budget.py",
    "moai/recipe/native_vision.py",
    "moai/recipe/places.py",
    "moai/recipe/schema.py",
    "moai/scaffold/test_ocr.py.txt",
    "moai/scaffold/test_open_world.py.txt",
    "moai/scaffold/test_own.py.txt",
    "moai/scaffold/test_panoptic.py.txt",
    "moai/scaffold/test_scene_graph.py.txt",
    "moai/testing/__init__.py",
    "moai/testing/lifecycle.py",
    "moai/training/build.py",
    "moai/training/memory_plan/activations.py",
    "moai/training/memory_plan/native_vision.py",
    "moai/training/memory_plan/plan.py",
    "moai/training/memory_plan/shapes.py",
    "moai/training/native_vision_build.py",
    "moai/training/objectives/alignment.py",
    "moai/training/objectives/supervision.py",
    "moai/training/trainer.py",
    "moai/training/word_cache.py",
    "moai/types.py",
    "plugins/moai-detectron2/moai_detectron2/expert.py",
    "plugins/moai-rapidocr/moai_rapidocr.py",
    "plugins/moai-shapes/tests/test_shapes.py",
    "plugins/moai-transformers/tests/test_detectors.py",
    "plugins/moai-ultralytics/README.md",
    "plugins/moai-ultralytics/moai_ultralytics/detector.py",
    "plugins/moai-ultralytics/tests/test_containment.py",
    "pyproject.toml",
    "recipes/ablations-guided/guided-no-align-no-guide.yaml",
    "recipes/ablations-guided/guided-no-guide.yaml",
    "recipes/ablations-guided/guided-no-match-init.yaml",
    "recipes/ablations-guided/guided-no-none-token.yaml",
    "recipes/ablations-scenes/scenes-without-shapes.yaml",
    "recipes/ablations/no-image-dropout.yaml",
    "recipes/ablations/no-oversampling.yaml",
    "recipes/ablations/no-sharpness.yaml",
    "recipes/ablations/no-slots.yaml",
    "recipes/connector-only.yaml",
    "recipes/quickstart-prompt.yaml",
    "recipes/quickstart.yaml",
    "recipes/scenes-connector-only.yaml",
    "recipes/scenes-prompt.yaml",
    "recipes/scenes.yaml",
    "recipes/two-step.yaml",
    "tests/data/test_scenes.py",
    "tests/evaluation/ablation/test_ablation_plan.py",
    "tests/evaluation/report/test_explanation_picture.py",
    "tests/model/analysis/test_attribution.py",
    "tests/model/encoders/test_compressor.py",
    "tests/model/encoders/test_facts.py",
    "tests/model/host/test_hosts_precision.py",
    "tests/model/mixer/test_attention.py",
    "tests/model/mixer/test_copying.py",
    "tests/model/mixer/test_mixer.py",
    "tests/model/published.py",
    "tests/model/test_generation.py",
    "tests/model/test_modeling.py",
    "tests/model/test_official.py",
    "tests/model/test_weight_cache.py",
    "tests/native_vision_families.py",
    "tests/perception/explaining/test_explanation.py",
    "tests/perception/explaining/test_facts_of_words.py",
    "tests/perception/running/test_run_schedule.py",
    "tests/recipe/test_recipe_places.py",
    "tests/test_distributions.py",
    "tests/training/memory_plan/test_plan.py",
    "tests/training/objectives/test_supervision.py",
    "tests/training/test_build.py",
    "tests/training/test_expert_dropout.py",
    "tests/training/test_native_vision_options.py",
    "tests/training/test_native_vision_recipe.py",
    "tests/training/test_native_vision_refusals.py",
    "tests/training/test_training_run.py",
    "tests/training/test_two_processes.py",
}


def texts() -> Iterator[tuple[str, str]]:
    """Name and text of each file that git tracks or would track, in the folders that are read."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in sorted(set(listed)):
        path = ROOT / name
        if name.split("/")[0] in FOLDERS and path.suffix in SUFFIXES and path.is_file() and path != Path(__file__):
            yield name, path.read_text(encoding="utf-8", errors="ignore")


def words_in(text: str) -> dict[str, str]:
    """Each word of the list that a text holds, with the field's word for it."""
    return {found[0]: better for pattern, better in WORDS.items() if (found := re.search(pattern, text))}


def names_in(tree: ast.AST) -> dict[str, str]:
    """Each name of the list that a module defines, by ``def`` or ``class`` or as a class's field."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            fields = (part.target for part in node.body if isinstance(part, ast.AnnAssign))
            found |= {target.id for target in fields if isinstance(target, ast.Name)}
    return {name: NAMES[name.lower()] for name in sorted(found) if name.lower() in NAMES}


def keys_in(recipe: object) -> dict[str, str]:
    """Each key of the list in a recipe, at any depth."""
    if isinstance(recipe, list):
        return {key: better for part in recipe for key, better in keys_in(part).items()}
    if not isinstance(recipe, dict):
        return {}
    own = {key: NAMES[key] for key in recipe if key in NAMES}
    return own | {key: better for value in recipe.values() for key, better in keys_in(value).items()}


def held(name: str, text: str) -> dict[str, str]:
    """What a file holds of both lists, in its path and its text."""
    found = words_in(f"{name}\n{text}")
    if name.startswith("moai/") and name.endswith(".py"):
        found |= names_in(ast.parse(text))
    if name.startswith("recipes/") and name.endswith(".yaml"):
        found |= keys_in(yaml.safe_load(text))
    return found


@pytest.fixture(scope="module")
def holding() -> dict[str, dict[str, str]]:
    """File -> the words that it holds, with the field's."""
    found = {name: held(name, text) for name, text in texts()}
    assert len(found) > 300
    return {name: words for name, words in found.items() if words}


def test_no_word_of_our_own_where_the_field_has_one(holding):
    assert {name: words for name, words in holding.items() if name not in REMAINING} == {}


def test_what_remains_shrinks(holding):
    gone = sorted(REMAINING - set(holding))
    assert not gone, "delete from REMAINING, since they hold no such word any more: " + ", ".join(gone)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the host sees for itself", ["sees"]),
        ("build_seeing(recipe)", ["build_seeing"]),
        ("class KeptLinear(nn.Linear): ...", ["KeptLinear"]),
        ("mixer: {sharpness: 4.0}", ["sharpness"]),
        ("@dataclass(slots=True)", []),
        ("latents start as slots", ["slots"]),
        ("CachedLinear, qk_norm_scale, a kept promise, guidelines", []),
    ],
)
def test_the_rule_on_words_can_fail(text, expected):
    assert list(words_in(text)) == expected


def test_the_rule_on_names_can_fail():
    code = "class Side: ...\nclass Recipe:\n  balance: bool\n  def take(self): ...\ndef rows(): keep = 1"
    assert list(names_in(ast.parse(code))) == ["Side", "balance", "rows", "take"]
    assert list(keys_in({"training": [{"step": {"kinds": {}}}], "through": "prompt"})) == ["through", "kinds"]


def test_no_replacement_is_on_the_list():
    assert {better: words_in(better) for better in (*WORDS.values(), *NAMES.values()) if words_in(better)} == {}
