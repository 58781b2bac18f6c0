"""Each way in which an expert can fail, and what it may not change: the runner's isolation of one expert."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fake_experts import WAIT, WHOLE, Base, alone, bad, dog, expert, failures, heavy, meeting, reds
from PIL import Image, ImageDraw

from moai.perception.cache.store import Store
from moai.perception.running.isolation import Isolated
from moai.perception.running.perceiver import Perceiver
from moai.types import Detection, Perception, Segment, Source, TextLine

# --- failures


@pytest.mark.parametrize(
    "look,reason",
    [
        (lambda self, image: dog(score=float("nan")), "scores must be finite"),
        (lambda self, image: dog(score=1.5), "scores must be finite"),
        (lambda self, image: dog(score=np.float32(0.5)), "scores must be finite Python numbers"),
        (lambda self, image: dog(box=(0, 0, 640, 480)), "normalised to [0, 1]"),
        (lambda self, image: dog(box=(0.5, 0, 0.1, 1)), "x0 <= x1"),
        (lambda self, image: dog(box=None), "4 numbers"),
        (lambda self, image: dog(label=""), "non-empty strings"),
        (lambda self, image: None, "not NoneType"),
        (lambda self, image: Perception(detections=(None,)), "detections must hold Detection objects only, not None"),
        (lambda self, image: Perception(detections=(Segment("a", 1.0, WHOLE),)), "Detection objects only, not Segment"),
        (lambda self, image: Perception(detections=dog().detections[0]), "a tuple of Detection objects, not Detection"),
        (lambda self, image: Perception(texts=None), "texts must be a tuple of TextLine objects, not None"),
        (lambda self, image: Perception(texts="EXIT"), "texts must be a tuple of TextLine objects, not str 'EXIT'"),
        (
            lambda self, image: Perception(texts=(TextLine("EXIT", 1.0, WHOLE),)),
            "a polygon must be a tuple of (x, y) points",
        ),
        (
            lambda self, image: Perception(segments=(Segment("a", 1.0, WHOLE, attributes="red"),)),
            "attributes must be a dict such as {'color': 'red'}, not str 'red'",
        ),
        (
            lambda self, image: Perception(notes={"count": "two dogs."}),
            "notes of 'count' must be a tuple of sentences, not str 'two dogs.'; write ('two dogs.',)",
        ),
        (lambda self, image: Perception(notes={"count": None}), "notes of 'count' must be a tuple of sentences"),
        (lambda self, image: Perception(notes=["two dogs."]), "notes must be a dict of role -> tuple of sentences"),
        (lambda self, image: Perception(notes={1: ("two.",)}), "notes are kept by role, a non-empty string"),
        (lambda self, image: Perception(sources=("me",)), "sources must hold Source objects only, not str 'me'"),
        (lambda self, image: Perception(segments=(Segment("a", 1.0, WHOLE, is_thing=np.True_),)), "plain Python data"),
    ],
)
def test_contract_breaks_are_failures(look, reason):
    seen = Perceiver([bad(look), expert("dogs")]).perceive(reds(255))[0]
    assert failures(seen)["bad"].startswith("broke the contract: ")
    assert reason in failures(seen)["bad"]
    assert seen.sources == (Source("dogs", "open_world", "1"),)
    assert seen.detections == (Detection("dog", 1.0, WHOLE),)


@pytest.mark.parametrize("error", [ValueError("first\nsecond"), SystemExit(2), MemoryError(), TimeoutError("mine")])
def test_what_an_expert_raises_is_a_failure(error):
    def look(self, image):
        raise error

    seen = Perceiver([bad(look), expert("dogs")]).perceive(reds(255))[0]
    assert failures(seen)["bad"] == " ".join(f"{type(error).__name__}: {error}".split())
    assert len(seen.detections) == 1


def test_one_bad_image_costs_only_itself():
    def look(self, image):
        if image.getpixel((0, 0))[0] == 2:
            raise ValueError("two")
        return dog()

    fussy = bad(look)
    seen = Perceiver([fussy], batch_size=4).perceive(reds(0, 1, 2, 3))
    assert [failures(p) for p in seen] == [{}, {}, {"bad": "ValueError: two"}, {}]
    assert [len(p.detections) for p in seen] == [1, 1, 0, 1]


def test_one_broken_result_in_a_batch_costs_only_its_image():
    fussy = bad(lambda self, image: dog(score=2.0 if image.getpixel((0, 0))[0] == 2 else 0.5))
    seen = Perceiver([fussy]).perceive(reds(0, 2, 3))
    assert [bool(p.failures) for p in seen] == [False, True, False]
    assert fussy.batches == [3]


@pytest.mark.parametrize(
    "answer,reason",
    [
        (lambda self, images, context: None, "not NoneType"),
        (lambda self, images, context: Perception(), "not Perception"),
        (lambda self, images, context: [], "returned 0 results for 1 images"),
        (lambda self, images, context: [Perception()] * 3, "returned 3 results for 1 images"),
    ],
)
def test_wrong_number_of_results(answer, reason):
    seen = Perceiver([expert("bad", perceive=answer)]).perceive(reds(1, 2))
    assert all(reason in failures(p)["bad"] for p in seen)


def test_generators_are_fine():
    lazy = expert("lazy", perceive=lambda self, images, context: (dog() for _ in images))
    assert len(Perceiver([lazy]).perceive(reds(1))[0].detections) == 1


def test_not_installed_says_how_to_install():
    absent = expert("absent", modules=("no_such_engine", "json"), install="pip install moai-absent")
    seen = Perceiver([absent, expert("dogs")]).perceive(reds(1))[0]
    assert failures(seen) == {"absent": "not installed: needs no_such_engine; install with: pip install moai-absent"}
    assert absent.loads == [] and len(seen.detections) == 1


def test_a_missing_parent_package_is_not_installed_either():
    absent = expert("absent", modules=("no_such_engine.part",), install="pip install moai-absent")
    reason = failures(Perceiver([absent]).perceive(reds(1))[0])["absent"]
    assert reason.startswith("not installed") and "pip install moai-absent" in reason


def test_an_expert_that_does_not_load_is_tried_once(caplog):
    class Broken(Base):
        def load(self, device="cpu"):
            self.loads.append(device)
            raise OSError("weights are gone")

    broken = Broken()
    perceiver = Perceiver([broken], batch_size=1)
    seen = perceiver.perceive(reds(1, 2, 3)) + perceiver.perceive(reds(4))
    assert {failures(p)["base"] for p in seen} == {"did not load: OSError: weights are gone"}
    assert broken.loads == ["cpu"] and broken.batches == []
    assert len(caplog.records) == 1


def test_loading_has_its_own_limit():
    class Slow(Base):
        def load(self, device="cpu"):
            time.sleep(1.2)

    # Perceiving takes no time; the limit leaves a second for a machine that others work on.
    assert Perceiver([Slow()], time_limit=1.0).perceive(reds(1))[0].failures == ()


def test_an_expert_lives_in_one_thread_of_its_own():
    class Here(Base):
        def load(self, device="cpu"):
            self.threads = {threading.get_ident()}

        def look(self, image):
            self.threads.add(threading.get_ident())
            return dog()

    here = Here()
    Perceiver([here], batch_size=1).perceive(reds(1, 2))
    assert len(here.threads) == 1 and threading.get_ident() not in here.threads


def test_threads_end_with_the_perceiver():
    def running() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "moai-lonely"]

    perceiver = Perceiver([expert("lonely")])
    perceiver.perceive(reds(1))
    perceiver.perceive(reds(2))
    assert len(running()) == 1
    del perceiver
    deadline = time.monotonic() + 30  # passed only when the test fails
    while running() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert running() == []


def test_close_unloads_and_the_next_call_loads_again():
    dogs = expert("dogs")
    perceiver = Perceiver([dogs])
    perceiver.close()
    assert dogs.unloads == 0
    perceiver.perceive(reds(1))
    perceiver.close()
    assert dogs.unloads == 1
    assert perceiver.perceive(reds(1))[0].failures == ()
    assert len(dogs.loads) == 2


def test_a_time_limit_of_its_own():
    release = threading.Event()

    def wait(seconds):
        def perceive(self, images, context):
            release.wait(seconds)
            return [Perception() for _ in images]

        return perceive

    slow, slower = heavy("slow", perceive=wait(WAIT)), heavy("slower", perceive=wait(0.3))  # longer than the others may
    seen = Perceiver([slow, slower], time_limit={"*": 0.1, "slower": WAIT}).perceive(reds(1))
    release.set()
    [failure] = seen[0].failures
    assert failure.expert == "slow" and "within 0.1 seconds" in failure.reason


def test_a_thread_safe_expert_is_called_from_several_threads_at_once():
    barrier = threading.Barrier(3)
    perceiver = Perceiver([meeting("safe", barrier, thread_safe=True)], time_limit=WAIT)
    assert_all_fine(perceiver, 3)
    assert perceiver.experts[0].events == ["load cpu", "unload"], "it is loaded once, whoever comes first"


def test_an_expert_that_is_not_thread_safe_runs_one_call_at_a_time():
    assert_all_fine(Perceiver([alone("alone", threading.Lock(), threading.Event(), 0.05)]), 3)


def assert_all_fine(perceiver: Perceiver, count: int) -> None:
    found = []
    threads = [threading.Thread(target=lambda: found.extend(perceiver.perceive(reds(1)))) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert [seen.failures for seen in found] == [()] * count
    perceiver.close()
    assert perceiver.experts[0].events[-1] == "unload"


# --- what an expert may not change


def scribble(self, images, context):
    """Paints its images black and edits its context; with ``fails`` set, it then fails for a batch of several."""
    for image in images:
        ImageDraw.Draw(image).rectangle((0, 0, *image.size), fill="black")
    for perception in context:
        perception.notes["graph"] = ("forged",)
        for segment in perception.segments:
            segment.attributes["color"] = "black"
    if getattr(self, "fails", False) and len(images) > 1:
        raise ValueError("half done")
    return [Perception() for _ in images]


def scribbler(**attributes) -> Base:
    return expert("scribbler", "graph", perceive=scribble, **attributes)


SETTINGS = {
    "one queue": {},
    "two devices": {"device": {"scribbler": "a", "dogs": "b"}},
    "memory groups": {"max_memory": 0},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("order", [1, -1])
def test_an_expert_that_draws_on_its_image_changes_no_other(tmp_path, settings, order):
    images, store = reds(255, 51), Store(tmp_path)
    experts = [scribbler(), expert("dogs")][::order]
    found = Perceiver(experts, store=store, **settings).perceive(images)
    assert [p.detections[0].score for p in found] == [1.0, 0.2]
    assert [image.getpixel((0, 0)) for image in images] == [(255, 0, 0), (51, 0, 0)], "the caller's pictures"
    again = expert("dogs")
    assert [p.detections for p in Perceiver([again], store=store).perceive(images)] == [p.detections for p in found]
    assert again.batches == [], "it was cached under the picture's key"


def test_a_retry_gets_the_image_as_it_was():
    colours = []

    def perceive(self, images, context):
        colours.extend(image.getpixel((0, 0)) for image in images)
        return scribble(self, images, context)

    found = Perceiver([expert("scribbler", perceive=perceive, fails=True)]).perceive(reds(255, 51))
    assert colours == [(255, 0, 0), (51, 0, 0)] * 2 and all(not p.failures for p in found)


def test_an_expert_that_edits_its_context_changes_no_other():
    cup = Segment("cup", 1.0, WHOLE, attributes={"color": "red"})
    masks = expert("masks", "panoptic", look=lambda self, image: Perception(segments=(cup,)))
    other = expert("other", "third", requires=("panoptic",))
    [found] = Perceiver([masks, scribbler(requires=("panoptic",)), other]).perceive(reds(1))
    assert found.segments == (Segment("cup", 1.0, WHOLE, attributes={"color": "red"}),) and found.notes == {}
    assert other.contexts[0].segments == found.segments and other.contexts[0].notes == {}


def test_an_abandoned_expert_that_goes_on_drawing_changes_nothing():
    go, drawn = threading.Event(), threading.Event()

    def perceive(self, images, context):
        go.wait(WAIT)
        scribble(self, images, context)
        drawn.set()
        return [Perception() for _ in images]

    images = reds(255)
    perceiver = Perceiver(
        [expert("late", "graph", perceive=perceive), expert("dogs")], time_limit={"*": WAIT, "late": 0.2}
    )
    [found] = perceiver.perceive(images)
    go.set()
    assert drawn.wait(WAIT) and "late" in failures(found)
    assert images[0].getpixel((0, 0)) == (255, 0, 0)


def test_an_image_that_is_not_decoded_yet_is_copied_on_two_devices(tmp_path):
    Image.new("RGB", (512, 512), (255, 0, 0)).save(tmp_path / "red.png")
    with Image.open(tmp_path / "red.png") as lazy:
        [found] = Perceiver([scribbler(), expert("dogs")], **SETTINGS["two devices"]).perceive([lazy])
        assert lazy.getpixel((0, 0)) == (255, 0, 0)
    assert found.failures == () and found.detections[0].score == 1.0


def test_threads_that_share_an_image_each_get_their_own_copy(tmp_path):
    Image.new("RGB", (64, 64), (255, 0, 0)).save(tmp_path / "red.png")
    perceiver = Perceiver([scribbler(thread_safe=True), expert("dogs", thread_safe=True)])
    found = []
    with Image.open(tmp_path / "red.png") as shared:
        shared.load()
        threads = [threading.Thread(target=lambda: found.extend(perceiver.perceive([shared]))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        assert shared.getpixel((0, 0)) == (255, 0, 0)
    assert [(p.detections[0].score, p.failures) for p in found] == [(1.0, ())] * 4


def test_the_copies_are_made_in_a_fresh_process_too():
    code = (
        "from fake_experts import expert, reds\n"
        "from test_isolation import scribbler\n"
        "from moai.perception.running.perceiver import Perceiver\n"
        "images = reds(255)\n"
        "[found] = Perceiver([scribbler(), expert('dogs')]).perceive(images)\n"
        "print(found.detections[0].score, images[0].getpixel((0, 0)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.stdout.strip() == "1.0 (255, 0, 0)", done.stderr


# --- the isolated expert itself


def test_an_isolated_expert_gives_outcomes_and_raises_nothing():
    isolated = Isolated(bad(lambda self, image: 1 / 0 if image.getpixel((0, 0))[0] else dog()), "cpu", WAIT)
    assert isolated.perceive(reds(0, 1), [Perception()] * 2) == [dog(), "ZeroDivisionError: division by zero"]
    assert isolated.broken is None and isolated.loaded
    isolated.close()
    assert not isolated.loaded and isolated.expert.unloads == 1


def test_a_crash_of_the_engine_while_it_loads_is_permanent_and_one_in_a_batch_is_not():
    class Crashing(Base):
        def perceive(self, images, context):
            super().perceive(images, context)
            if len(self.batches) == 1:
                raise SystemExit("engine gone")
            return [dog() for _ in images]

    isolated = Isolated(Crashing(), "cpu", WAIT)
    assert isolated.perceive(reds(1), [Perception()]) == ["SystemExit: engine gone"]
    assert isolated.perceive(reds(1), [Perception()]) == [dog()]

    class Unloadable(Base):
        def load(self, device="cpu"):
            self.loads.append(device)
            raise SystemExit("no engine")

    isolated = Isolated(Unloadable(), "cpu", WAIT)
    assert [isolated.perceive(reds(1), [Perception()]) for _ in range(2)] == [
        ["did not load: SystemExit: no engine"]
    ] * 2
    assert isolated.expert.loads == ["cpu"]


def test_an_unload_that_raises_or_hangs_costs_no_perception():
    release = threading.Event()
    raising = expert("raising", unload=lambda self: 1 / 0)
    hanging = expert("hanging", "ocr", unload=lambda self: release.wait(WAIT))
    perceiver = Perceiver([raising, hanging], time_limit=0.5)
    assert perceiver.perceive(reds(1))[0].failures == ()
    perceiver.close()
    release.set()
    assert perceiver.perceive(reds(1))[0].failures == (), "the next call loads it again"


def test_a_hanging_weights_id_is_abandoned_and_nothing_is_cached(tmp_path):
    release = threading.Event()
    slow = expert("slow", weights_id=lambda self: release.wait(WAIT) and "")
    store = Store(tmp_path)
    [found] = Perceiver([slow], store=store, time_limit=0.2).perceive(reds(1))
    release.set()
    assert found.failures == () and len(found.detections) == 1 and len(store) == 0
