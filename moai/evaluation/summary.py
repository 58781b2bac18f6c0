"""Summarize answered questions: accuracies and paired differences with intervals, overall and by group.

Knows: records and metrics. Everything is plain JSON types; accuracies are shares in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moai.evaluation.calibration import calibrate
from moai.evaluation.metrics import accuracy_interval, bootstrap_interval, exact_match, mcnemar, paired_difference
from moai.evaluation.paired import Record

COUNTS = ("prompt", "auxiliary", "words")


def pairs(conditions: Sequence[str]) -> list[tuple[str, str]]:
    """Return the comparisons of a report: ``on`` against every other condition, a baseline run among them."""
    return [("on", other) for other in conditions if other != "on"] if "on" in conditions else []


def summarize(
    records: Sequence[Record],
    *,
    split: str,
    seed: int,
    available: int | None = None,
    resamples: int = 2000,
    name: str = "",
    data: str = "",
    metric: str = "",
) -> dict[str, Any]:
    """Return accuracies and paired differences with 95 % intervals, overall and by group, as plain JSON types.

    Args:
        records: at least one, all under the same conditions.
        split: name of the split that the questions come from.
        seed: of the draw and of the shuffling; the bootstrap uses it too.
        available: questions in the whole split; None means that ``records`` are all of them.
        resamples: of the bootstrap.
        name, data: the run's and the data set's, shown in titles.
        metric: name of the data set's own metric, when the records have scores.

    Returns:
        ``name``, ``data``, ``n``, ``images``, ``split``, ``available``, ``sampled``, ``seed``, ``conditions``,
        ``method``, ``metric``, ``shuffled`` (how often the other image's perception was equal; None without that
        condition), ``tokens`` (condition -> mean per question; {} when they were not counted), ``calibration`` and
        ``groups``: ``"overall"``, ``"yes/no"`` and ``"open"`` (all but yes/no) where there are yes/no questions, each
        kind, and ``"language: .."`` where there are several -> ``n``, ``images``, ``accuracy``, ``differences``, and
        with a metric ``score`` and ``score_differences``.

    Raises:
        ValueError: no records, or records under different conditions.
    """
    if not records:
        raise ValueError("a summary needs at least one record")
    conditions = list(records[0].predictions)
    if any(list(r.predictions) != conditions for r in records):
        raise ValueError("all records of a summary must have been answered under the same conditions")
    whole = len(records) if available is None else available
    groups = split_groups(records)
    return {
        "name": name,
        "data": data,
        "split": split,
        "n": len(records),
        "available": whole,
        "sampled": len(records) < whole,
        "images": len({r.image_id for r in records if r.image_id}),
        "seed": seed,
        "conditions": conditions,
        "method": f"exact match; 95 % bootstrap intervals, {resamples} resamples of images; exact McNemar test",
        "metric": metric,
        "shuffled": _coincidences(records),
        "tokens": {c: _mean_tokens(records, c) for c in conditions if all(c in r.tokens for r in records)},
        "groups": {title: _group(members, conditions, seed, resamples) for title, members in groups.items()},
        "calibration": calibrate(records, seed=seed, resamples=resamples),
    }


def headline(summary: Mapping[str, Any]) -> str:
    """Describe in one line what was measured: the split, how many of its questions, and whether that is a sample."""
    name = f"{summary['name']}: " if summary["name"] else ""
    data = f"{summary['data']}, " if summary.get("data") else ""
    if summary["sampled"]:
        size = f"a random sample of {summary['n']:,} of {summary['available']:,} questions, seed {summary['seed']}"
    else:
        size = f"all {summary['n']:,} questions"
    return f"{name}{data}{summary['split']} split, {size}, {summary['images']:,} images"


def split_groups(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Return title -> records: all, by answer type, by language where there are several."""
    groups = {"overall": list(records)}
    kinds = sorted({r.kind for r in records})
    if "yes/no" in kinds:
        groups["yes/no"] = [r for r in records if r.kind == "yes/no"]
        groups["open"] = [r for r in records if r.kind != "yes/no"]
    for kind in kinds:
        groups.setdefault(kind, [r for r in records if r.kind == kind])
    languages = sorted({r.language for r in records})
    if len(languages) > 1:
        groups |= {f"language: {language}": [r for r in records if r.language == language] for language in languages}
    return {title: members for title, members in groups.items() if members}


def _group(records: Sequence[Record], conditions: Sequence[str], seed: int, resamples: int) -> dict[str, Any]:
    clusters = [r.cluster for r in records]
    settings = {"groups": clusters, "seed": seed, "resamples": resamples}
    right = {c: [exact_match(r.predictions[c], r.accepted) for r in records] for c in conditions}
    group: dict[str, Any] = {"n": len(records), "images": len({r.image_id for r in records if r.image_id})}
    group["accuracy"] = {c: _interval(values, accuracy_interval(values, **settings)) for c, values in right.items()}
    group["differences"] = {}
    for first, second in pairs(conditions):
        only_first, only_second, p = mcnemar(right[first], right[second])
        group["differences"][f"{first}-{second}"] = {
            **_difference(right[first], right[second], settings),
            "only_first": only_first,
            "only_second": only_second,
            "mcnemar_p": p,
        }
    scored = [c for c in conditions if all(c in r.scores for r in records)]
    if scored:
        scores = {c: [r.scores[c] for r in records] for c in scored}
        group["score"] = {c: _interval(values, bootstrap_interval(values, **settings)) for c, values in scores.items()}
        group["score_differences"] = {
            f"{first}-{second}": _difference(scores[first], scores[second], settings) for first, second in pairs(scored)
        }
    return group


def _interval(values: Sequence[float], bounds: tuple[float, float]) -> dict[str, float]:
    return {"value": sum(values) / len(values), "low": bounds[0], "high": bounds[1]}


def _difference(first: Sequence[float], second: Sequence[float], settings: Mapping[str, Any]) -> dict[str, float]:
    return dict(zip(("value", "low", "high"), paired_difference(first, second, **settings), strict=True))


def _mean_tokens(records: Sequence[Record], condition: str) -> dict[str, float]:
    """What a question costs on average; ``read`` is what the host and its mixers read: prompt and compressed tokens."""
    means = {key: sum(r.tokens[condition][key] for r in records) / len(records) for key in COUNTS}
    return {**means, "read": means["prompt"] + means["auxiliary"]}


def _coincidences(records: Sequence[Record]) -> dict[str, float] | None:
    shuffled = [r for r in records if r.donor is not None]
    if not shuffled:
        return None
    return {
        "same_words": sum(bool(r.same_words) for r in shuffled) / len(shuffled),
        "same_objects": sum(bool(r.same_objects) for r in shuffled) / len(shuffled),
    }
