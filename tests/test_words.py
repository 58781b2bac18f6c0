"""Words of our own that the field has a word for: they are gone from identifiers, recipe keys, messages and docs.

The list is the two tables below.
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
OWN = Path(__file__)  # it holds the list itself
SUFFIXES = {".py", ".md", ".yaml", ".toml", ".j2", ".txt", ""}

WORDS = {  # as text anywhere: pattern -> what the field says
    r"\bhost\.sees\b|\bsees:|\bsees\(": "vision: {kind: host}",
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


def texts() -> Iterator[tuple[str, str]]:
    """Name and text of each file that git tracks or would track, in the folders that are read."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in sorted(set(listed)):
        path = ROOT / name
        if name.split("/")[0] in FOLDERS and path.suffix in SUFFIXES and path.is_file() and path != OWN:
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
    assert holding == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host: {sees: true}", ["sees:"]),
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
