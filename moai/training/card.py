"""Describe a run folder: its facts, and the model card ``README.md`` made of them.

Knows: the files of a run folder as plain data, and huggingface_hub's cards. Nothing is loaded.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import moai
from moai.assets.hashes import sha256_file
from moai.assets.replacing import replacing
from moai.training.log import read_log

CARD = "README.md"
SHOWN = 16  # characters of a SHA-256
_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_SIGNS = re.compile(r"([\\`*_\[\]|<>])")
Facts = dict[str, Any]


def run_facts(run_dir: str | Path) -> Facts:
    """Read the facts of a run from its files; what a file does not say is left out.

    Returns:
        ``name``, ``facts`` (label -> text) and ``experts``: name -> the fields of ``record_experts`` with ``options``.
    """
    folder = Path(run_dir)
    recipe, config = _yaml(folder / "recipe.yaml"), _json(folder / "config.json")
    processor, hashes = _json(folder / "processor_config.json"), _json(folder / "manifest.json")
    options = processor.get("expert_options") or {}
    versions = processor.get("expert_versions") or {}
    experts = {
        name: {**versions.get(name, {}), "options": options.get(name) or {}} for name in processor.get("experts") or []
    }
    facts = {
        "Host": _reference(config.get("host") or recipe.get("host")),
        "Vision": _reference(config.get("vision") or recipe.get("vision")),
        "Data": ", ".join(_source(source) for source in (recipe.get("data") or {}).get("sources") or []),
        "Recipe": _hashed(recipe.get("name"), folder / "recipe.yaml"),
        "Starts as": str(recipe.get("start") or ""),
        "Seed": str(recipe.get("seed", "")),
        "Trained": _trained(folder),
        "Weights": f"moai.safetensors, SHA-256 {hashes['moai.safetensors'][:SHOWN]}" if hashes else "",
        "Written by": f"moai {moai.__version__}",
    }
    return {
        "name": recipe.get("name") or folder.name,
        "facts": {label: text for label, text in facts.items() if text},
        "experts": experts,
    }


def write_card(run_dir: str | Path, summary: Mapping[str, Any] | None = None) -> Path:
    """Write the model card ``README.md`` of a run folder.

    Args:
        run_dir: a finished run.
        summary: of an evaluation of it, as in ``report.json``; left out, the card has no figures.
    """
    from huggingface_hub import ModelCardData

    folder = Path(run_dir)
    about, recipe = run_facts(folder), _yaml(folder / "recipe.yaml")
    host = (_json(folder / "config.json").get("host") or {}).get("reference") or ""
    data = ModelCardData(
        model_name=about["name"],
        library_name="moai",
        base_model=host if _HUB.fullmatch(host) and not Path(host).exists() else None,
        datasets=_hub_datasets(recipe),
        tags=["moai", "mixture-of-experts", "visual-question-answering"],
        pipeline_tag="image-text-to-text",
        eval_results=_results(summary) if summary else None,
    )
    text = f"---\n{data.to_yaml()}\n---\n\n{_body(about, summary)}"
    with replacing(folder / CARD) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
    return folder / CARD


def _body(about: Facts, summary: Mapping[str, Any] | None) -> str:
    parts = [f"# {_plain(about['name'])}"]
    parts.append(
        "A frozen language model that reads what vision experts find in an image, trained with "
        "[moai](https://arxiv.org/abs/2403.07508)'s method. This folder holds what was trained; the frozen parts are "
        "found by name and checked by hash."
    )
    parts.append(
        '```python\nimport moai\n\nrun = moai.load("PATH OF THIS FOLDER")\nprint(run.ask("photo.jpg", "What is in the '
        'image?"))\n```'
    )
    rows = [[label, text] for label, text in about["facts"].items()]
    parts.append("## Facts\n\n" + _table(["what", "which"], rows))
    if about["experts"]:
        titles = ["expert", "role", "version", "package", "weights", "licence of code and weights"]
        rows = [
            [name, e.get("role"), e.get("version"), package_of(e), weights_of(e), e.get("licence") or "not stated"]
            for name, e in about["experts"].items()
        ]
        parts.append("## Experts\n\n" + _table(titles, rows))
        parts.append("Each expert's weights have a licence of their own, and so have host and vision encoder.")
    if summary:
        parts.append("## Evaluation\n\n" + _figures(summary))
    return "\n\n".join(parts) + "\n"


def package_of(expert: Mapping[str, Any]) -> str:
    """Name the distribution that brings an expert, with its version."""
    return f"{expert.get('distribution') or ''} {expert.get('distribution_version') or ''}".strip()


def weights_of(expert: Mapping[str, Any]) -> str:
    """Name an expert's weights, with the start of what identifies them."""
    return f"{expert.get('weights') or ''} {(expert.get('weights_id') or '')[:SHOWN]}".strip()


def _figures(summary: Mapping[str, Any]) -> str:
    conditions = summary["conditions"]
    rows = [
        [title, f"{group['n']:,}", *(f"{100 * group['accuracy'][name]['value']:.1f}" for name in conditions)]
        for title, group in summary["groups"].items()
    ]
    about = f"{summary.get('data') or 'data'}, {summary['split']} split, {summary['n']:,} questions"
    return f"{_plain(about)}; accuracies in per cent.\n\n" + _table(["type", "n", *conditions], rows)


def _results(summary: Mapping[str, Any]) -> list[Any]:
    from huggingface_hub import EvalResult

    accuracy = summary["groups"]["overall"]["accuracy"]
    data = _plain(summary.get("data") or "data")
    return [
        EvalResult(
            task_type="visual-question-answering",
            dataset_type=data,
            dataset_name=data,
            dataset_split=_plain(summary["split"]),
            metric_type="accuracy",
            metric_name=f"accuracy, perception {_plain(condition)}",
            metric_value=round(100 * value["value"], 1),
        )
        for condition, value in accuracy.items()
    ]


def _hub_datasets(recipe: Mapping[str, Any]) -> list[str] | None:
    names = [source.get("name") or "" for source in (recipe.get("data") or {}).get("sources") or []]
    return [name for name in names if _HUB.fullmatch(name)] or None


def _source(source: Mapping[str, Any]) -> str:
    return str(source.get("name") or source.get("path") or source.get("format"))


def _reference(part: Mapping[str, Any] | None) -> str:
    """Describe a frozen part: its reference, revision, kind of numbers, and the start of its first file's hash."""
    part = part or {}
    reference = part.get("reference") or ("the host's own" if part.get("kind") == "host" else "")
    if not reference:
        return ""
    hashes = part.get("sha256") or ""
    first = next(iter(hashes.values())) if isinstance(hashes, Mapping) else hashes
    first = f"SHA-256 {first[:SHOWN]}" if first else ""
    named = [str(reference), part.get("revision"), part.get("architecture"), part.get("dtype"), first]
    return ", ".join(text for text in named if text)


def _hashed(name: str | None, path: Path) -> str:
    return f"{name}, SHA-256 {sha256_file(path)[:SHOWN]}" if name and path.is_file() else name or ""


def _trained(folder: Path) -> str:
    path, lines = folder / "moai.safetensors", read_log(folder)
    when = ""
    if path.is_file():
        date = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
        when = f"{date:%Y-%m-%d %H:%M} UTC"
    stages = ", ".join(dict.fromkeys(str(line["stage"]) for line in lines if "stage" in line))
    steps = f"{lines[-1]['step']:,} steps{f' ({stages})' if stages else ''}" if lines else ""
    return "; ".join(text for text in (when, steps) if text)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:  # damaged: opening the run says so
        return {}
    return found if isinstance(found, dict) else {}


def _yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _table(titles: list[str], rows: list[list[Any]]) -> str:
    lines = [titles, ["---"] * len(titles), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(value: Any) -> str:
    """Write a cell: no markup, no control characters."""
    text = "".join(char if char.isprintable() else " " for char in str(value or ""))
    return _SIGNS.sub(r"\\\1", text)
