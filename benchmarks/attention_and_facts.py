"""Count how often attention points to the fact that an answer rests on, over questions of `photographs`.

    python benchmarks/attention_and_facts.py runs/quickstart

Each question is answered; each fact is left out and the question asked again; and the fact that the mixers read most,
above what its length explains, is compared with the one whose absence costs the answer most probability.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter

from moai_studio.findings import fact_id, words_of
from moai_studio.resting import SMALL, attend, verdict

import moai
from moai import Conversation, ablate_facts
from moai.plugin_api import registry


def main() -> None:
    """Print the counts, and the questions where the two disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder")
    parser.add_argument("--questions", type=int, default=120, help="how many are drawn at random")
    options = parser.parse_args()
    run, counts = moai.load(options.run), Counter()
    samples = list(registry().get_dataset("photographs")("test"))
    random.Random(0).shuffle(samples)
    for sample in samples[: options.questions]:
        found = judge(run, sample.conversation.prompt)
        kind = "no answer or no fact" if found is None else {True: "agree", False: "disagree"}[found["agree"] is True]
        if found is not None and found["top"] is None:
            kind = f"no fact costs {100 * SMALL:.0f} points"
        counts[kind] += 1
        if kind == "disagree":
            print(f"{sample.image_ids[0]}: {sample.question} {found['text']}", flush=True)
    print(dict(counts))


def judge(run: moai.Augmented, asked: Conversation) -> dict | None:
    """Compare both for one question; None without an answer or a fact."""
    picture = moai.read_image(asked.images[0])
    asked = Conversation(asked.turns, (picture,))
    [seen] = run.perceiver.perceive([picture])
    [answer] = run.answer([asked], [[seen]], 8)
    if not answer.strip():
        return None
    shares = attend(run, asked, [seen], ["picture"])["shares"]
    ablated = ablate_facts(run, asked, [seen], answer, max_new_tokens=8, batch_size=24)
    facts = []
    for fact in ablated.facts:
        name = fact_id(fact.role, fact.number, fact.fact)
        share, even = shares.get((0, name), (None, None))
        named = {"finding": name, "text": words_of(fact.fact), "answer": fact.answer, "share": share, "even": even}
        facts.append({**named, "fall": ablated.fall(fact)})
    return verdict(answer, facts) if facts else None


if __name__ == "__main__":
    main()
