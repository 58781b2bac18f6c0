"""The adapter through lmms-eval's own evaluator, on tasks that are written here and need no hub."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import tiny

pytest.importorskip("lmms_eval", reason="lmms-eval is optional: pip install -e './plugins/moai-lmms-eval[eval]'")

import datasets
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.models.registry_v2 import ModelRegistryV2
from lmms_eval.tasks import TaskManager
from moai_lmms_eval import manifest
from moai_lmms_eval.decoding import Decoding
from moai_lmms_eval.engine import Engine
from moai_lmms_eval.lmms import ARGUMENTS, MoaiChat, MoaiSimple
from moai_lmms_eval.prompts import few_shot_messages, from_messages, from_text

from moai import Conversation
from moai.errors import RecipeError

PAGE = (Path(__file__).parents[3] / "docs" / "harness.md").read_text(encoding="utf-8")
QUESTIONS = ["What color is the shape?", "Is there a red shape in it?", "What is it?", "Which color, in one word?"]
CHOICES = ["red", "no", "a blue one"]
CORRECT = "Here are two images:<image><image> The following image is:<image> Is it correct?"
COMMON = """\
dataset_path: parquet
dataset_kwargs:
  data_files:
    test: {data}
  cache_dir: {cache}
test_split: test
doc_to_target: answer
process_results: !function {module}.scored
metric_list:
  - metric: {metric}
    aggregation: !function {module}.mean
    higher_is_better: true
"""
TASKS = {
    "toy_vqa": """\
        output_type: generate_until
        doc_to_visual: !function {module}.pictures
        doc_to_text: !function {module}.question
        generation_kwargs: {{max_new_tokens: 8, do_sample: false}}
        """,
    "toy_few": """\
        output_type: generate_until
        doc_to_visual: !function {module}.pictures
        doc_to_text: !function {module}.question
        doc_to_messages: !function {module}.examples
        generation_kwargs: {{max_new_tokens: 8, until: ["e"]}}
        """,
    "toy_rounds": """\
        output_type: generate_until_multi_round
        doc_to_visual: !function {module}.pictures
        doc_to_text: !function {module}.rounds
        generation_kwargs: {{max_new_tokens: 5}}
        """,
    "toy_yes": """\
        output_type: loglikelihood
        doc_to_visual: !function {module}.matrix
        doc_to_text: !function {module}.correct
        """,
}
CHOICE = """\
task: toy_choice
dataset_path: parquet
dataset_kwargs:
  data_files:
    test: {data}
  cache_dir: {cache}
test_split: test
output_type: multiple_choice
doc_to_visual: !function {module}.pictures
doc_to_text: !function {module}.question
doc_to_choice: ["red", "no", "a blue one"]
doc_to_target: index
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
FUNCTIONS = """\
from moai_lmms_eval.prompts import few_shot_messages


def pictures(doc):
    return [doc["image"].convert("RGB")]


def question(doc, **kwargs):
    return doc["question"]


def matrix(doc):
    return [doc["image"].convert("RGB")] * 3


def correct(doc):
    return "Here are two images:<image><image> The following image is:<image> Is it correct?"


def examples(doc, **kwargs):
    image = doc["image"].convert("RGB")
    return few_shot_messages([([image], "color?", "red"), ([], "two?", "2")], [image, image], doc["question"])


def rounds(doc, previous_output=None, round_idx=None, **kwargs):
    if round_idx is None:
        return doc["question"]
    if round_idx == 2:
        return None, None, True, previous_output, None
    return pictures(doc), "Again: " + previous_output[-1], False, previous_output, {"round": round_idx}


def scored(doc, results):
    return {METRIC: repr(results[0])}


def mean(items):
    return "; ".join(items)
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder of tasks; each gives its raw results back, so that tests see what reached the task."""
    folder = tmp_path_factory.mktemp("tasks")
    names = ("red", "green", "blue", "black")
    rows = [
        {"image": tiny.picture(name), "question": question, "answer": name, "index": at % 3}
        for at, (name, question) in enumerate(zip(names, QUESTIONS, strict=True))
    ]
    features = datasets.Features(image=datasets.Image(), question=datasets.Value("string"),
                                 answer=datasets.Value("string"), index=datasets.Value("int64"))  # fmt: skip
    datasets.Dataset.from_list(rows, features=features).to_parquet(folder / "rows.parquet")
    (folder / "functions.py").write_text(FUNCTIONS.replace("METRIC", '"raw"'))
    places = {"data": folder / "rows.parquet", "cache": folder / "cache", "module": "functions", "metric": "raw"}
    for name, text in TASKS.items():
        text = f"task: {name}\n" + COMMON.format(**places) + textwrap.dedent(text).format(**places)
        (folder / f"{name}.yaml").write_text(text)
    (folder / "toy_choice.yaml").write_text(CHOICE.format(**places))
    return TaskManager(include_path=str(folder), include_defaults=False)


@pytest.fixture(scope="module")
def results(tasks, augmented):
    """Results of a task under a model; every pair is evaluated once."""
    known = {}

    def evaluate(task, kind=MoaiSimple, **arguments):
        key = (task, kind, *arguments.items())
        if key not in known:
            model = kind(augmented, **{"batch_size": 3, **arguments})
            found = simple_evaluate(model=model, tasks=[task], task_manager=tasks, batch_size=3, bootstrap_iters=0)
            known[key] = found
        return known[key]

    return evaluate


def raw(found, task):
    return [eval(item) for item in found["results"][task]["raw,none"].split("; ")]


def pictures():
    return [tiny.picture(name) for name in ("red", "green", "blue", "black")]


@pytest.mark.parametrize("kind", [MoaiSimple, MoaiChat])
@pytest.mark.parametrize("perception", ["on", "off"])
def test_a_task_gets_what_the_run_answers(results, augmented, kind, perception):
    found = results("toy_vqa", kind, perception=perception)
    perceptions = augmented.perceiver.perceive(pictures()) if perception == "on" else [None] * 4
    asked = [Conversation.ask(question, [p]) for p, question in zip(pictures(), QUESTIONS, strict=True)]
    expected = augmented.answer(asked, [[one] for one in perceptions], max_new_tokens=8)
    assert raw(found, "toy_vqa") == expected
    assert len(set(expected)) > 1


def test_shuffled_is_neither_on_nor_off(results):
    answers = {p: raw(results("toy_vqa", MoaiChat, perception=p), "toy_vqa") for p in ("on", "off", "shuffled")}
    assert len({tuple(texts) for texts in answers.values()}) == 3


def test_samples_say_what_they_cost(results):
    sample = results("toy_vqa", MoaiChat, perception="on")["samples"]["toy_vqa"][0]
    assert sample["token_counts"][0]["input_tokens"] > 10


def test_few_shot_examples_are_interleaved_and_stop_strings_end_answers(results, augmented):
    answers = raw(results("toy_few", MoaiChat), "toy_few")
    prompts = [
        from_messages(few_shot_messages([([p], "color?", "red"), ([], "two?", "2")], [p, p], question))
        for p, question in zip(pictures(), QUESTIONS, strict=True)
    ]
    expected = [reply.text for reply in Engine(augmented).generate(prompts, Decoding(8, ("e",)))]
    assert answers == expected and not any("e" in answer for answer in answers)


def test_chain_of_thought_is_two_calls(results, augmented):
    prompts = [from_text(question, [p]) for p, question in zip(pictures(), QUESTIONS, strict=True)]
    expected = [reply.text for reply in Engine(augmented).reason(prompts, Decoding(8), tokens=4)]
    assert raw(results("toy_vqa", rationale="on", rationale_tokens=4), "toy_vqa") == expected


@pytest.mark.parametrize("kind", [MoaiSimple, MoaiChat])
def test_rounds_read_the_answers_before_them(results, augmented, kind):
    engine, found = Engine(augmented), raw(results("toy_rounds", kind), "toy_rounds")
    for outputs, picture, question in zip(found, pictures(), QUESTIONS, strict=True):
        [first] = engine.generate([from_text(question, [picture])], Decoding(5))
        [second] = engine.generate([from_text("Again: " + first.text, [picture])], Decoding(5))
        assert outputs == [first.text, second.text]


def test_likelihoods_reach_the_task(results, augmented):
    found = raw(results("toy_yes"), "toy_yes")
    prompts = [from_text(CORRECT, [picture] * 3) for picture in pictures()]
    expected = Engine(augmented).loglikelihood(prompts, ["red", "green", "blue", "black"])
    for score, (total, greedy) in zip(expected, found, strict=True):
        assert total == pytest.approx(score.logprob, abs=1e-4) and greedy is score.greedy


def test_a_multiple_choice_is_answered_by_the_likeliest(results, augmented):
    prompts = [from_text(question, [p]) for p, question in zip(pictures(), QUESTIONS, strict=True)]
    picked = []
    for prompt in prompts:
        scores = [score.logprob for score in Engine(augmented).loglikelihood([prompt] * 3, CHOICES)]
        picked.append(scores.index(max(scores)))
    right = sum(pick == at % 3 for at, pick in enumerate(picked)) / 4
    assert results("toy_choice")["results"]["toy_choice"]["acc,none"] == right
    other = results("toy_choice", scores="logprob")["results"]["toy_choice"]["acc,none"]
    assert other != right, "this lmms-eval takes the largest score; then 'auto' has to hand over log-probabilities"


def test_the_harness_finds_both_classes():
    registry = ModelRegistryV2()
    registry.register_manifest(manifest())
    assert registry.get_model_class("moai") is MoaiChat
    assert registry.get_model_class("moai", force_simple=True) is MoaiSimple


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"pretrained": "x"}, "has no argument 'pretrained'"),
        ({"perceptions": "on"}, "did you mean 'perception'"),
        ({"run": None}, "which run"),
        ({"batch_size": "auto"}, "batch_size is 'auto'"),
        ({"perception": "oracle"}, "needs ground truth"),
        ({"scores": "best"}, "scores is 'best'"),
        ({"max_new_tokens": 0}, "at least 1"),
    ],
)
def test_arguments_are_checked(augmented, arguments, words):
    with pytest.raises(RecipeError, match=words):
        MoaiChat(**{"run": augmented, **arguments})


def test_switches_may_come_as_truth_values(augmented):
    assert MoaiChat(augmented, True).engine.source.perception == "on"
    assert MoaiChat(augmented, False, rationale=False).engine.source.perception == "off"
    assert MoaiChat(augmented, rationale=True).rationale == "on"


def table(heading):
    """The first two columns of the table under a heading of the page."""
    rows = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    return [row.split("|")[1:3] for row in rows if row.startswith("|")][2:]


def test_the_page_lists_tasks_that_lmms_eval_has():
    named = {name for _, tasks in table("Tasks") for name in re.findall(r"`(\w+)`", tasks)}
    assert len(named) > 20
    assert named - set(TaskManager().all_tasks) == set()


def test_the_page_lists_the_arguments():
    named = {name.strip(" `") for name, _ in table("Arguments of the model")}
    assert named == set(ARGUMENTS) - {"batch_size"}
