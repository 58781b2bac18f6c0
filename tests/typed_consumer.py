"""A user's program with every public name of moai, for a type checker and never run; `test_typing.py` checks it.

A comment `type: ignore[code]` is a mistake that has to be found: mypy complains of one that hides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, assert_type

import numpy as np
from PIL.Image import Image

import moai
from moai import Perceiver, Perception


class Reader(moai.Expert):
    name, role, version = "reader", "ocr", "1"
    modules = ("json",)
    thread_safe = True

    class Options(moai.Options):
        min_score: float = 0.5

    options: Options

    def load(self, device: str = "cpu") -> None:
        assert_type(self.options.min_score, float)
        print(self.options.min_scor)  # type: ignore[attr-defined]

    def perceive(self, images: Sequence[Image], context: Sequence[Perception]) -> list[Perception]:
        return [self.to_perception(image.size) for image in images]

    def to_perception(self, size: tuple[int, int]) -> Perception:
        line = moai.TextLine("exit", 1.0, ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)))
        return Perception(texts=(line,), notes={"weather": ("It rains.",)})


class Plain(moai.Expert):
    name, role, version = "plain", "weather", "1"

    def perceive(self, images: Sequence[Image], context: Sequence[Perception]) -> list[Perception]:
        return [Perception() for _ in images][: self.options.most]


class Wrong(moai.Expert):
    def perceive(self, images: Sequence[Image]) -> list[Perception]:  # type: ignore[override]
        return []


@moai.hookimpl
def register_experts(register: Callable[[type[moai.Expert]], None]) -> None:
    register(Reader)
    register(Reader())  # type: ignore[arg-type]


def experts_look(store: moai.Store, picture: Image) -> None:
    perceiver = Perceiver(["shapes", Reader()], store=store, device={"*": "cpu"}, options={"shapes": {"sure": 0.9}})
    found = perceiver.perceive([picture], progress=print)
    assert_type(found, list[Perception])
    assert_type(perceiver.only(["shapes"]), Perceiver)
    assert_type(perceiver.sizes(), dict[str, int | None])
    assert_type(moai.verbalize(found[0], "ko", scores=True), str)
    assert_type(store.get("key"), Perception | None)
    store.put("key", found[0])
    Perceiver([1])  # type: ignore[list-item]
    Perceiver(["shapes"], batch="8")  # type: ignore[call-arg]
    moai.verbalize("a cat")  # type: ignore[arg-type]
    moai.Store(7)  # type: ignore[arg-type]


def perceptions(perception: Perception, mask: np.ndarray[Any, Any]) -> None:
    for segment in perception.segments:
        assert_type(segment, moai.Segment)
        assert_type(segment.label, str)
        assert_type(segment.mask, moai.Mask | None)
    assert_type(perception.detections, tuple[moai.Detection, ...])
    assert_type(perception.relations, tuple[moai.Relation, ...])
    assert_type(perception.texts, tuple[moai.TextLine, ...])
    assert_type(moai.Mask.encode(mask), moai.Mask)
    assert_type(Perception.from_dict(perception.to_dict()), Perception)
    moai.Detection("cat", "sure", (0.0, 0.0, 1.0, 1.0))  # type: ignore[arg-type]
    perception.segments = ()  # type: ignore[misc]


def answers(run: Path) -> moai.Answer:
    augmented = moai.load(run, device="cpu")
    assert_type(augmented, moai.Augmented)
    answer = augmented.ask("circle.png", "What color is the circle?", without=["shapes"])
    assert_type(answer, moai.Answer)
    assert_type(answer.text, str)
    assert_type(answer.perception, Perception)
    assert_type([failure.reason for failure in answer.failures], list[str])
    assert_type(augmented.model, moai.MoaiForConditionalGeneration)
    assert_type(augmented.processor, moai.MoaiProcessor)
    assert_type(augmented.perceiver, Perceiver)
    asked = moai.Conversation.ask("What color is the circle?", ["circle.png"])
    assert_type(augmented.explain([asked], [[None]])[0].to_dict(), dict[str, Any])
    assert_type(augmented.ask_many([asked, ("circle.png", "Is it red?")]), list[moai.Answer])
    turns = [moai.Turn("system", "Be short."), moai.Turn("user", (moai.IMAGE, "What is it?"))]
    assert_type(augmented.chat(turns, ["circle.png"]), moai.Answer)
    sample = moai.Sample("1", moai.Conversation(tuple(turns), ("circle.png",)), ("circle",))
    assert_type(sample.answers, tuple[str, ...])
    moai.Turn("user", 3)  # type: ignore[arg-type]
    augmented.ask("circle.png", 3)  # type: ignore[arg-type]
    augmented.ask("circle.png")  # type: ignore[call-arg]
    moai.load(run, devise="cpu")  # type: ignore[call-arg]
    return answer


def as_a_hugging_face_model(run: Path, picture: Image, perception: Perception) -> None:
    model = moai.MoaiForConditionalGeneration.from_pretrained(run)
    processor = moai.MoaiProcessor.from_pretrained(run)
    assert_type(model, moai.MoaiForConditionalGeneration)
    assert_type(processor, moai.MoaiProcessor)
    inputs = processor(images=[picture], text="Which?", perceptions=[perception, None])
    model.generate(**inputs, max_new_tokens=8)
    model.save_pretrained(run)
    assert_type(processor.prompt_ids("Which?"), list[int])
    assert_type(processor.perceiver, Perceiver)
    assert_type(model.fix_adapters(), moai.MoaiForConditionalGeneration)
    assert_type(moai.MoaiConfig().image_tokens, int)
    processor(text=8)  # type: ignore[arg-type]
    model.from_pretrained(8)  # type: ignore[arg-type]


def the_rest(source: bytes) -> None:
    assert_type(moai.read_image(source), Image)
    moai.check_expert(Reader)
    moai.check_expert(Reader())
    moai.check_expert("shapes")  # type: ignore[arg-type]
    assert_type(moai.__version__, str)
    try:
        moai.read_image("absent.png")
    except moai.MoaiError as error:
        assert_type(error.args, tuple[Any, ...])
    print(moai.percever)  # type: ignore[attr-defined]


def facts_are_left_out(run: moai.Augmented, asked: moai.Conversation, seen: Perception) -> None:
    found = moai.ablate_facts(run, asked, [seen, None], "red", progress=lambda done, of: print(done / of))
    assert_type([found.fall(fact) for fact in found.facts], list[float])
    moai.ablate_facts(run, asked, seen)  # type: ignore[arg-type]
