"""Draw the pictures of docs/photographs.md, and print its table of questions and answers.

    moai eval runs/photos --data photographs --split test --full --perception on,off,shuffled,oracle
    python benchmarks/photograph_page.py runs/photos > table.md

The photographs were chosen by licence and content, not by what is answered about them. Three questions of each are
shown: the first that is answered wrong, if there is one, and the first that are answered right.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from PIL import Image
from rule_reader import perceptions

from moai.evaluation.evaluate import dataset_of, folder_of
from moai.evaluation.metrics import exact_match
from moai.images import read_image
from moai.perception.drawing.overlay import draw_overlay
from moai.recipe.loading import load_recipe

SHOWN = (
    *("astronaut", "camera", "rocket", "quokka", "airplane", "puppies"),
    *("castle", "messi", "basketball", "london_bus", "pumpkin", "clock"),
)
WIDTH = 400  # pixels of a picture on the page


def chosen(records: list[dict[str, Any]]) -> list[tuple[dict[str, Any], bool]]:
    """Return three questions of one picture, each with whether it was answered right: one wrong, if any is."""
    judged = [(one, exact_match(one["predictions"]["on"], (one["answer"], *one["answers"]))) for one in records]
    wrong = [pair for pair in judged if not pair[1]][:1]
    right = [pair for pair in judged if pair[1] and pair[0]["kind"] != "existence"]
    right += [pair for pair in judged if pair[1] and pair[0]["kind"] == "existence"]
    return [*right[: 3 - len(wrong)], *wrong]


def main() -> None:
    """Write the pictures, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run that `moai eval` has asked about the test photographs")
    parser.add_argument("--out", type=Path, default=Path("docs/photographs"), help="folder of the pictures")
    options = parser.parse_args()
    recipe = load_recipe(options.run / "recipe.yaml")
    folder = options.run / folder_of(recipe, "photographs", "test", full=True)
    asked: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in (folder / "predictions.jsonl").read_text().splitlines():
        record = json.loads(line)
        asked[record["image_id"].rpartition("/")[2]].append(record)
    samples = {s.image_ids[0].rpartition("/")[2]: s for s in dataset_of(recipe, "test", "photographs")}
    found = perceptions([samples[name] for name in SHOWN], str(options.run / "recipe.yaml"))
    options.out.mkdir(parents=True, exist_ok=True)
    print("| photograph | question | answer | |\n| --- | --- | --- | --- |")
    for name, perception in zip(SHOWN, found, strict=True):
        path = options.out / f"{name}.jpg"
        draw_overlay(read_image(samples[name].images[0]), perception, path)
        with Image.open(path) as drawn:
            size = (WIDTH, round(drawn.height * WIDTH / drawn.width))
            drawn.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(path, quality=80, optimize=True)
        for row, (record, right) in enumerate(chosen(asked[name])):
            picture = f"![{name}, and what the experts found]({options.out.name}/{name}.jpg)" if row == 0 else ""
            verdict = "right" if right else f"wrong: {record['answer']}"
            print(f"| {picture} | {record['question']} | {record['predictions']['on']} | {verdict} |")


if __name__ == "__main__":
    main()
