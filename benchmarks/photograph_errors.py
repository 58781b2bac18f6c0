"""Why answers about photographs are wrong: not seen, seen wrongly, lost in words, or read wrongly.

    moai eval runs/photos --data photographs --split test --full --perception on,off,shuffled,oracle
    python benchmarks/photograph_errors.py runs/photos --split test

Each wrong answer of the condition ``on`` has one cause, the first of these that holds:

- *read wrongly*: the rule reader (``rule_reader.py``) answers right from the very words that the model was given;
- *lost in words*: it does not even from perfect perception, so neither the words nor its rules hold the answer;
- *seen wrongly*: of a thing that is asked for something was found, under another name, elsewhere, twice, or where
  there is none;
- *not seen*: nothing was.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path

from compact_words import names_in, parse, singular
from rule_reader import answer, perceptions

from moai.evaluation.evaluate import dataset_of, folder_of
from moai.evaluation.metrics import accuracy_interval, exact_match
from moai.perception.words.verbalize import verbalize
from moai.recipe.loading import load_recipe
from moai.types import Detection, Perception, Sample, Segment, merge
from moai.types.duplicates import iou
from moai.types.names import same_thing

CAUSES = ("not seen", "seen wrongly", "lost in words", "read wrongly")
SAME_PLACE = 0.3  # overlap (IoU) from which a finding is about the thing that is written there


def cause_of(sample: Sample, found: Perception, truth: Perception) -> str:
    """Return why a wrong answer is wrong."""
    said, perfect = (parse(verbalize(one, style="compact")) for one in (found, truth))
    if exact_match(answer(sample.question, said), sample.answers):
        return "read wrongly"
    if not exact_match(answer(sample.question, perfect), sample.answers):
        return "lost in words"
    asked = {singular(name) for name in names_in(f"{sample.question} {sample.answer}", perfect)}
    things = [item for item in _objects(truth) if singular(item.label) in asked]
    findings = _objects(found)
    there = [(item, [one for one in findings if iou(item.box, one.box) >= SAME_PLACE]) for item in things]
    misnamed = any(at and not any(same_thing(item.label, one.label) for one in at) for item, at in there)
    # A finding of what is asked for that lies on nothing of that name: elsewhere, twice, or of an absent thing.
    named = [one for one in findings if singular(one.label) in singular(sample.question)]
    stray = any(not any(one in at for _, at in there) for one in named)
    doubled = len(named) > sum(any(one in at for one in named) for _, at in there)
    return "seen wrongly" if misnamed or stray or doubled else "not seen"


def _objects(perception: Perception) -> list[Segment | Detection]:
    return [*perception.segments, *perception.detections]


def main() -> None:
    """Print a table of causes by kind of question, with the rule reader's share of right answers beside the run's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run that `moai eval` has asked about photographs")
    parser.add_argument("--split", default="tuning")
    parser.add_argument("--wrong", type=int, default=0, metavar="N", help="also print N wrong answers with their words")
    options = parser.parse_args()
    recipe = load_recipe(options.run / "recipe.yaml")
    samples = {s.id: s for s in dataset_of(recipe, options.split, "photographs")}
    folder = options.run / folder_of(recipe, "photographs", options.split, full=True)
    records = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    asked = [samples[record["id"]] for record in records]
    found = perceptions(asked, str(options.run / "recipe.yaml"))
    causes: dict[str, Counter[str]] = defaultdict(Counter)
    ruled: dict[str, list[tuple[bool, str]]] = defaultdict(list)
    for record, sample, seen in zip(records, asked, found, strict=True):
        truth, words = merge(list(sample.truths or ())), verbalize(seen, style="compact")
        by_rule = answer(sample.question, parse(words))
        given = record["predictions"]["on"]
        right = exact_match(given, sample.answers)
        cause = "right" if right else cause_of(sample, seen, truth)
        for kind in (sample.kind, "all"):
            causes[kind][cause] += 1
            ruled[kind].append((exact_match(by_rule, sample.answers), sample.image_ids[0]))
        if not right and options.wrong > 0:
            options.wrong -= 1
            answers = " / ".join(sample.answers[:3])
            print(f"{cause}: {sample.question} -> {given}, by rule {by_rule}, not {answers}\n    {words}")
    print(f"| kind | n | right | {' | '.join(CAUSES)} | rule reader |")
    print("| --- " * (len(CAUSES) + 4) + "|")
    for kind, counts in sorted(causes.items(), key=lambda item: -item[1].total()):
        values, groups = zip(*ruled[kind], strict=True)
        low, high = accuracy_interval(values, groups=groups)
        share = f"{100 * sum(values) / len(values):.1f} ({100 * low:.1f} to {100 * high:.1f})"
        row = [str(counts.total()), f"{100 * counts['right'] / counts.total():.1f}", *(str(counts[c]) for c in CAUSES)]
        print(f"| {kind} | {' | '.join(row)} | {share} |")


if __name__ == "__main__":
    main()
