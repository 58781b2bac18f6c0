"""The contract kit on what a long-running process relies on: cache key, masks, memory, threads; and under pytest."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
import types
from functools import lru_cache
from typing import Literal

import numpy as np
import pytest
from pydantic import Field

from moai.expert import Expert, Options
from moai.testing import (
    check_cache_key,
    check_declaration,
    check_expert,
    check_perceive,
    check_registration_is_light,
    check_threads,
    check_unload,
    sample_context,
    sample_images,
)
from moai.testing.behaviour import call
from moai.testing.samples import huge_images
from moai.types import Detection, Mask, Perception, Segment


class Net:
    """Stands in for an engine: it can be watched."""

    def __init__(self, size: int = 10) -> None:
        self.weights = np.ones(size)


class Good(Expert):
    name, role, version = "good", "open_world", "1"

    def load(self, device="cpu"):
        self.net = Net()

    def unload(self):
        self.net = None

    def perceive(self, images, context):
        return [
            Perception(detections=(Detection(f"{i.width}", 0.5 * self.net.weights[0].item(), (0, 0, 1, 1)),))
            for i in images
        ]


def test_the_pictures_hold_what_breaks_careless_code():
    images = sample_images()
    assert {image.mode for image in images} == {"RGB"} and (1, 1) in {image.size for image in images}
    grey, clear = images[-2:]
    assert len({tuple(pixel) for pixel in np.asarray(grey).reshape(-1, 3)} - {(v, v, v) for v in range(256)}) == 0
    assert clear.tobytes() != images[0].tobytes() and grey.tobytes() != images[0].tobytes()
    assert max(image.width * image.height for image in huge_images()) == 12_000_000


# --- masks


def segment(box) -> Perception:
    mask = np.zeros((60, 80), bool)
    mask[15:30, 20:40] = True
    return Perception(segments=(Segment("a", 0.5, box, Mask.encode(mask)),))


@pytest.mark.parametrize(
    "box,fits",
    [
        ((0.25, 0.25, 0.5, 0.5), True),
        ((0.24, 0.26, 0.51, 0.49), True),
        ((0.25, 0.25, 0.6, 0.5), False),
        ((0.0, 0.0, 1.0, 1.0), False),
        ((0.25, 0.5, 0.5, 0.75), False),
    ],
)
def test_a_mask_must_agree_with_its_box(box, fits):
    expert = type("Masks", (Good,), {"perceive": lambda self, images, context: [segment(box)]})()
    images = sample_images()[:1]
    if fits:
        assert call(expert, images, [Perception()]) == [segment(box)]
    else:
        with pytest.raises(AssertionError, match="compute the box from the mask"):
            call(expert, images, [Perception()])


def test_an_empty_mask_is_named():
    seen = Perception(segments=(Segment("ghost", 0.5, (0, 0, 1, 1), Mask.encode(np.zeros((4, 4)))),))
    expert = type("Masks", (Good,), {"perceive": lambda self, images, context: [seen]})()
    with pytest.raises(AssertionError, match="mask of segment 'ghost' is empty"):
        call(expert, sample_images()[:1], [Perception()])


def test_a_crash_on_a_huge_picture_is_named():
    class Small(Good):
        def perceive(self, images, context):
            assert all(image.width < 4000 for image in images)
            return super().perceive(images, context)

    small = Small()
    small.load()
    with pytest.raises(AssertionError, match="images of 4000x3000"):
        check_perceive(small, sample_images(), [sample_context(())] * 6)


# --- the cache key


def test_every_kind_of_option_is_tried():
    class Many(Good):
        class Options(Options):
            share: float = Field(1.0, ge=0, le=1)
            count: int = Field(1, ge=1)
            on: bool = True
            mode: Literal["a", "b"] = "a"
            name: str = "x"
            angles: tuple[Literal[90, 180], ...] = ()
            names: tuple[str, ...] = ("en",)

    check_cache_key(Many)
    check_cache_key(Many(share=0.3))


def bad_options(**fields) -> type[Expert]:
    made = type("Options", (Options,), {"__annotations__": {n: t for n, (t, _) in fields.items()}} | {
        n: d for n, (_, d) in fields.items()
    })  # fmt: skip
    return type("Bad", (Good,), {"Options": made})


@pytest.mark.parametrize(
    "kind", [(int, 1), (float, 0.5), (bool, False), (str, "a"), (tuple[str, ...], ())], ids=lambda kind: str(kind[0])
)
def test_an_option_that_leaves_the_key_alone_is_named(kind):
    hidden = (kind[0], Field(kind[1], exclude=True))
    with pytest.raises(AssertionError, match="option 'secret' changes from .* and the cache key stays"):
        check_cache_key(bad_options(secret=hidden))


def test_unstable_keys_are_named():
    counter = iter(range(100))
    moving = bad_options(seed=(int, Field(default_factory=lambda: next(counter))))
    check_cache_key(moving(seed=3))
    with pytest.raises(AssertionError, match="returns another string when it is called again"):
        check_cache_key(type("Bad", (Good,), {"weights_id": lambda self: str(next(counter))}))
    with pytest.raises(AssertionError, match="must return a string, not NoneType"):
        check_cache_key(type("Bad", (Good,), {"weights_id": lambda self: None}))


# --- declarations


@pytest.mark.parametrize("field,value", [("thread_safe", "no"), ("licence", None), ("weights", 3)])
def test_what_it_says_about_itself_has_types(field, value):
    with pytest.raises(AssertionError, match=f"Bad.{field} must be"):
        check_declaration(type("Bad", (Good,), {field: value}))


def test_a_heavy_import_counts_when_it_is_not_declared_too(tmp_path, monkeypatch):
    (tmp_path / "matplotlib.py").write_text("")
    (tmp_path / "plugin_undeclared.py").write_text(
        textwrap.dedent("""
            import matplotlib
            from moai.expert import Expert
            class Thing(Expert):
                name, role, version = "thing", "ocr", "1"
                def perceive(self, images, context):
                    return []
            """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", types.ModuleType("matplotlib"))  # restored after this test
    with pytest.raises(AssertionError, match="imports matplotlib; import it inside load"):
        check_registration_is_light(__import__("plugin_undeclared").Thing)


def test_a_module_that_checks_itself_is_named_and_does_not_go_on_for_ever(tmp_path, monkeypatch):
    (tmp_path / "plugin_selfish.py").write_text(
        textwrap.dedent("""
            import moai
            class Thing(moai.Expert):
                name, role, version = "thing", "ocr", "1"
                def perceive(self, images, context):
                    return [moai.Perception() for _ in images]
            moai.check_expert(Thing)
            """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AssertionError, match="calls check_expert when it is imported; call it in a test"):
        __import__("plugin_selfish")


# --- memory


class Keeps(Good):
    def unload(self):
        pass


class KeepsInList(Keeps):
    def load(self, device="cpu"):
        self.nets = [Net(), Net()]
        self.net = self.nets[0]

    def unload(self):
        self.net = None


@lru_cache
def shared_net() -> Net:
    return Net()


class KeepsElsewhere(Good):
    def load(self, device="cpu"):
        shared_net.cache_clear()
        self.net = shared_net()


class KeepsWhatItMadeLater(Good):
    def perceive(self, images, context):
        self.cache = Net()
        return super().perceive(images, context)


@pytest.mark.slow
@pytest.mark.parametrize(
    "bad,name",
    [(Keeps, "net"), (KeepsInList, "nets"), (KeepsElsewhere, "net"), (KeepsWhatItMadeLater, "cache")],
)
def test_what_unload_keeps_is_named(bad, name):
    with pytest.raises(AssertionError, match=rf"unload\(\) keeps self\.{name} \(Net\)"):
        check_expert(bad)


class InCircles(Good):
    """An engine that refers to itself, and things on the expert that are not memory of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.table = Net()  # made before load, so it may stay

    def load(self, device="cpu"):
        super().load(device)
        self.net.itself = self.net
        self.again, self.helper, self.module = self.table, len, np


def test_circles_and_shared_things_are_no_leak():
    expert = InCircles()
    check_unload(expert, lambda: None)
    assert expert.table is not None


# --- threads


class Unsafe(Good):
    """Keeps the picture that it looks at on itself for a moment."""

    thread_safe = True

    def perceive(self, images, context):
        seen = []
        for image in images:
            self.now = image.width
            time.sleep(0.002)
            seen.append(Perception(detections=(Detection(f"{self.now}", 0.5, (0, 0, 1, 1)),)))
        return seen


@pytest.mark.slow
def test_a_false_promise_is_named_and_no_promise_is_not_tried():
    with pytest.raises(AssertionError, match="thread_safe is True, but two threads at once"):
        check_expert(Unsafe)
    check_expert(type("Honest", (Unsafe,), {"thread_safe": False}))
    check_expert(type("Safe", (Good,), {"thread_safe": True}))


def test_both_threads_look_at_the_same_time():
    barrier = threading.Barrier(2)

    class Meets(Good):
        thread_safe = True

        def perceive(self, images, context):
            barrier.wait(20)
            return [Perception() for _ in images]

    images = sample_images()[:2]
    check_threads(Meets(), images, [Perception()] * 2, [Perception()] * 2)


# --- under pytest


def test_the_fixture_checks_and_fails_with_the_sentence(tmp_path):
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent("""
            import moai

            class Fine(moai.Expert):
                name, role, version = "fine", "ocr", "1"
                def perceive(self, images, context):
                    return [moai.Perception() for _ in images]

            class Bad(Fine):
                def perceive(self, images, context):
                    return None

            def test_fine(moai_contract):
                moai_contract(Fine)

            def test_bad(moai_contract):
                moai_contract(Bad())
            """)
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "test_it.py"]
    if not registered():
        command += ["-p", "moai.testing.pytest_plugin"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)  # against a hang
    assert done.returncode == 1 and "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "perceive must return a list, not NoneType" in done.stdout and "Traceback" not in done.stdout


def registered() -> bool:
    from importlib.metadata import entry_points

    return any(point.value == "moai.testing.pytest_plugin" for point in entry_points(group="pytest11"))


def test_the_plugin_costs_other_test_suites_nothing():
    code = (
        "import sys, moai.testing.pytest_plugin; print([m for m in ('numpy', 'PIL', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
