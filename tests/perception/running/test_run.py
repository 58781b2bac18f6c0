"""The runner: order, batches, cache, and every way an expert can fail, each costing only itself."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from moai.errors import AssetError, ExpertError, ImageError
from moai.expert import Expert, Options
from moai.hookspecs import hookimpl
from moai.perception.cache.store import Store
from moai.perception.running.perceiver import Perceiver
from moai.perception.words.verbalize import verbalize
from moai.plugins import load_registry
from moai.types import Detection, Failure, Perception, Segment, Source, TextLine

WHOLE = (0.0, 0.0, 1.0, 1.0)


class Base(Expert):
    """Sees one dog per image whose score is the red value; counts its calls."""

    name, role, version = "base", "open_world", "1"

    def __init__(self, **options):
        super().__init__(**options)
        self.loads, self.batches, self.contexts, self.unloads = [], [], [], 0

    def load(self, device="cpu"):
        self.loads.append(device)

    def unload(self):
        self.unloads += 1

    def perceive(self, images, context):
        self.batches.append(len(images))
        self.contexts.extend(context)
        return [self.look(image) for image in images]

    def look(self, image):
        return Perception(detections=(Detection("dog", image.getpixel((0, 0))[0] / 255, WHOLE),))


def expert(name: str, role: str = "open_world", **attributes) -> Base:
    return type(name, (Base,), {"name": name, "role": role, **attributes})()


def reds(*values: int) -> list[Image.Image]:
    return [Image.new("RGB", (4, 4), (value, 0, 0)) for value in values]


def failures(perception: Perception) -> dict[str, str]:
    return {failure.expert: failure.reason for failure in perception.failures}


def test_one_merged_perception_per_image_in_order():
    ocr = expert("ocr", "ocr", look=lambda self, image: Perception(texts=(TextLine("EXIT", 1.0),)))
    seen = Perceiver([expert("dogs"), ocr], batch_size=2).perceive(reds(0, 51, 102, 153, 255))
    assert [p.detections[0].score for p in seen] == [0.0, 0.2, 0.4, 0.6, 1.0]
    assert seen[0].texts == (TextLine("EXIT", 1.0),)
    assert seen[0].sources == (Source("dogs", "open_world", "1"), Source("ocr", "ocr", "1"))
    assert all(not p.failures for p in seen)


def test_no_images_and_no_experts():
    assert Perceiver([expert("dogs")]).perceive([]) == []
    assert Perceiver([]).perceive(reds(1)) == [Perception()]


def test_an_image_with_nothing_in_it_is_a_normal_case():
    blind = expert("blind", look=lambda self, image: Perception())
    seen = Perceiver([blind]).perceive(reds(1))[0]
    assert seen == Perception(sources=(Source("blind", "open_world", "1"),))
    assert verbalize(seen) == ""


def test_batches_device_and_progress():
    dogs, done = expert("dogs"), []
    Perceiver([dogs], batch_size=2, device="cuda:1").perceive(reds(*range(5)), progress=done.append)
    assert dogs.batches == [2, 2, 1] and done == [2, 2, 1]
    assert dogs.loads == ["cuda:1"]


def test_images_are_read_batch_by_batch():
    class Lazy:
        open = peak = 0

        def __len__(self):
            return 6

        def __getitem__(self, index):
            assert index < 6
            Lazy.open += 1
            Lazy.peak = max(Lazy.peak, Lazy.open)
            return reds(index)[0]

    def flush(count):
        Lazy.open -= count

    assert len(Perceiver([expert("dogs")], batch_size=2).perceive(Lazy(), progress=flush)) == 6
    assert Lazy.peak == 2


def test_odd_images_are_converted_and_others_refused():
    dogs = expert("dogs", look=lambda self, image: Perception(detections=(Detection(image.mode, 1.0, WHOLE),)))
    seen = Perceiver([dogs]).perceive([Image.new("L", (2, 2)), np.zeros((2, 2), np.uint8)])
    assert [p.detections[0].label for p in seen] == ["RGB", "RGB"]
    with pytest.raises(ImageError, match="without a single pixel"):
        Perceiver([dogs]).perceive([Image.new("RGB", (0, 2))])
    with pytest.raises(ImageError, match=r"pass \[image\]"):
        Perceiver([dogs]).perceive(reds(1)[0])


# --- construction


@pytest.fixture
def registry(monkeypatch):
    class Lamp(Base):
        name = "lamp"

        class Options(Options):
            watts: int = 5

    class Plugin:
        @hookimpl
        def register_experts(self, register):
            register(Lamp)

    monkeypatch.setenv("MOAI_PLUGINS", "")
    return load_registry(plugins=[Plugin()])


def test_experts_by_name_with_options(registry):
    perceiver = Perceiver(["lamp"], options={"lamp": {"watts": 9}}, registry=registry)
    assert perceiver.experts[0].options.watts == 9


@pytest.mark.parametrize(
    "experts,options,message",
    [
        (["lmap"], {}, "unknown expert 'lmap'; did you mean 'lamp'?"),
        (["lamp"], {"lamp": {"wats": 9}}, "no option 'wats'; did you mean 'watts'?"),
        (["lamp"], {"lamp": {"watts": "many"}}, "option 'watts'"),
        (["lamp"], {"lmap": {}}, "options are given for expert 'lmap', which is not listed; did you mean 'lamp'?"),
        (["lamp", "lamp"], {}, "'lamp' is listed twice"),
        ([3], {}, "names or Expert objects, not 3"),
        ([expert("made")], {"made": {}}, "already built; pass its options where you make it"),
    ],
)
def test_mistakes_are_errors_at_construction(registry, experts, options, message):
    with pytest.raises(ExpertError) as caught:
        Perceiver(experts, options=options, registry=registry)
    assert message in str(caught.value)


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"time_limit": 0}, {"time_limit": float("nan")}])
def test_numbers_are_checked(arguments):
    with pytest.raises(ExpertError, match="must be"):
        Perceiver([], **arguments)


# --- requires


def test_required_roles_run_first_and_are_passed_in():
    graph = expert("graph", "scene_graph", requires=("panoptic", "open_world"), look=lambda self, image: Perception())
    masks = expert("masks", "panoptic", look=lambda self, image: Perception(segments=(Segment("cat", 1.0, WHOLE),)))
    ocr = expert("ocr", "ocr", look=lambda self, image: Perception(texts=(TextLine("EXIT", 1.0),)))
    perceiver = Perceiver([graph, ocr, masks, expert("dogs")])
    assert [e.name for e in perceiver.experts] == ["ocr", "masks", "dogs", "graph"]
    perceiver.perceive(reds(51, 255))
    assert [context.boxes for context in graph.contexts] == [(("cat", WHOLE), ("dog", WHOLE))] * 2
    assert graph.contexts[0].detections[0].score == 0.2 and graph.contexts[0].texts == ()
    assert ocr.contexts == [Perception(), Perception()]


def test_a_required_role_nobody_offers_gives_an_empty_context():
    graph = expert("graph", "scene_graph", requires=("panoptic",))
    assert Perceiver([graph]).perceive(reds(1))[0].failures == ()
    assert graph.contexts == [Perception()]


def test_a_failed_required_expert_gives_an_empty_context():
    masks = expert("masks", "panoptic", look=lambda self, image: 1 / 0)
    graph = expert("graph", "scene_graph", requires=("panoptic",))
    seen = Perceiver([masks, graph]).perceive(reds(1))[0]
    assert graph.contexts == [Perception()]
    assert failures(seen) == {"masks": "ZeroDivisionError: division by zero"}
    assert [source.expert for source in seen.sources] == ["graph"]


def test_circles_are_refused():
    with pytest.raises(ExpertError, match="'me' requires its own role 'ocr'"):
        Perceiver([expert("me", "ocr", requires=("ocr",))])
    one, two = expert("one", "a", requires=("b",)), expert("two", "b", requires=("a",))
    with pytest.raises(ExpertError, match="wait for each other: 'one' .*'two'"):
        Perceiver([one, two, expert("fine")])


# --- failures


def bad(look) -> Base:
    return expert("bad", look=look)


def dog(score=0.5, box=WHOLE, label="dog") -> Perception:
    return Perception(detections=(Detection(label, score, box),))


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
        (lambda self, image: Perception(detections=(None,)), "AttributeError"),
        (lambda self, image: Perception(texts=None), "TypeError"),
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


def test_an_expert_that_hangs_is_abandoned_and_not_asked_again():
    hung, waited = threading.Event(), []

    def look(self, image):
        waited.append(hung.wait(60))
        return dog()

    slow = bad(look)
    perceiver = Perceiver([slow, expert("dogs")], batch_size=2, time_limit={"*": 60, "bad": 0.4})
    seen = perceiver.perceive(reds(1, 2, 3, 4))
    assert waited == [], "it is still waiting"
    hung.set()
    assert {failures(p)["bad"] for p in seen} == {
        "gave no answer within 0.4 seconds and is not asked again; raise the time limit"
    }
    assert slow.batches == [2]
    assert all(len(p.detections) == 1 for p in seen)


def test_loading_has_its_own_limit():
    class Slow(Base):
        def load(self, device="cpu"):
            time.sleep(1.2)

    # Looking takes no time; the limit leaves a second for a machine that others work on.
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


def test_threads_may_share_a_perceiver(tmp_path):
    class Alone(Base):
        busy = False

        def look(self, image):
            assert not self.busy
            self.busy = True
            time.sleep(0.001)
            self.busy = False
            return super().look(image)

    alone = Alone()
    perceiver = Perceiver([alone], store=Store(tmp_path), batch_size=2)
    results: dict[int, list[Perception]] = {}

    def work(number: int) -> None:
        results[number] = perceiver.perceive(reds(*range(number, number + 10)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert alone.loads == ["cpu"]
    for number, seen in results.items():
        assert [p.detections[0].score for p in seen] == [value / 255 for value in range(number, number + 10)]


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


# --- the cache


def test_a_full_hit_loads_nothing(tmp_path):
    first = Perceiver([expert("dogs")], store=Store(tmp_path)).perceive(reds(1, 2, 3))
    again = expert("dogs", modules=("no_such_engine",))
    assert Perceiver([again], store=Store(tmp_path)).perceive(reds(1, 2, 3)) == first
    assert again.loads == [] and again.batches == []


def test_only_new_images_are_perceived(tmp_path):
    store = Store(tmp_path)
    Perceiver([expert("dogs")], store=store).perceive(reds(1, 3))
    dogs = expert("dogs")
    seen = Perceiver([dogs], store=store).perceive(reds(1, 2, 3, 2))
    assert dogs.batches == [1]
    assert [p.detections[0].score * 255 for p in seen] == pytest.approx([1, 2, 3, 2])


def test_failures_are_not_cached(tmp_path):
    store = Store(tmp_path)
    moody = bad(lambda self, image: 1 / 0)
    assert Perceiver([moody], store=store).perceive(reds(1))[0].failures
    assert len(store) == 0
    healed = bad(lambda self, image: dog())
    assert Perceiver([healed], store=store).perceive(reds(1))[0].failures == ()


def test_a_failure_that_an_expert_reports_itself_is_passed_on_and_not_cached(tmp_path):
    store = Store(tmp_path)
    honest = bad(lambda self, image: replace(dog(), failures=(Failure("bad", "half of it"),)))
    seen = Perceiver([honest], store=store).perceive(reds(1))[0]
    assert failures(seen) == {"bad": "half of it"} and len(seen.detections) == 1
    assert len(store) == 0


def test_a_new_version_perceives_again(tmp_path):
    store = Store(tmp_path)
    Perceiver([expert("dogs")], store=store).perceive(reds(1))
    newer = expert("dogs", version="2")
    assert Perceiver([newer], store=store).perceive(reds(1))[0].sources[0].version == "2"
    assert newer.batches == [1]


def test_a_changed_context_perceives_again(tmp_path):
    store = Store(tmp_path)

    def graph():
        return expert("graph", "scene_graph", requires=("open_world",))

    Perceiver([expert("dogs"), graph()], store=store).perceive(reds(1))
    same, changed = graph(), graph()
    Perceiver([expert("dogs"), same], store=store).perceive(reds(1))
    Perceiver([expert("dogs", version="2"), changed], store=store).perceive(reds(1))
    assert same.batches == [] and changed.batches == [1]


def test_a_full_disk_does_not_take_the_answer_away(tmp_path, caplog):
    class Full(Store):
        def put_many(self, entries, expert=""):
            raise AssetError("disk full")

    seen = Perceiver([expert("dogs")], store=Full(tmp_path)).perceive(reds(255))
    assert seen[0].detections[0].score == 1.0
    assert "not cached: disk full" in caplog.text


def test_overhead_per_image_is_small(tmp_path):
    images = [Image.fromarray(np.full((64, 64, 3), [i % 256, i // 256, 0], np.uint8)) for i in range(600)]
    perceiver = Perceiver([expert("dogs")], store=Store(tmp_path))
    start = time.process_time()  # of this process alone, whoever else works on the same cores
    perceiver.perceive(images)
    assert (time.process_time() - start) / len(images) < 0.002
