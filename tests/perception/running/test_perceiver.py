"""The runner: merged results in order, batches, context, and the cache."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_experts import WHOLE, Base, bad, dog, expert, failures, heavy, reds
from PIL import Image

from moai.errors import AssetError, ExpertError, ImageError
from moai.perception.cache.store import Store
from moai.perception.running.perceiver import Perceiver
from moai.perception.words.verbalize import verbalize
from moai.types import Detection, Failure, Perception, Source, TextLine


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


def test_an_empty_perception_is_no_failure():
    empty = expert("empty", look=lambda self, image: Perception())
    seen = Perceiver([empty]).perceive(reds(1))[0]
    assert seen == Perception(sources=(Source("empty", "open_world", "1"),))
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


@pytest.mark.parametrize(
    "images,reason",
    [
        ("a.png", r"pass \[image\]"),
        (b"\x89PNG", r"pass \[image\]"),
        (Path("a.png"), r"pass \[image\]"),
        (np.zeros((4, 4, 3), np.uint8), r"pass \[image\]"),
        ((image for image in ()), r"not generator; pass list\(images\)"),
        ({"a": 1}, "not dict"),
        (None, "not NoneType"),
    ],
)
def test_what_is_no_list_of_images_is_refused(images, reason):
    with pytest.raises(ImageError, match=f"^perceive takes a list of images.*{reason}"):
        Perceiver([expert("dogs")]).perceive(images)


@pytest.mark.parametrize(
    "arguments,settings,reason",
    [
        ("faces", {}, r"experts are given as a list; pass \['faces'\]"),
        (expert("dogs"), {}, r"experts are given as a list; pass \[dogs\(\)\]"),
        (None, {}, "a list of names or Expert objects, not None"),
        ([Base], {}, r"; pass Base\(\)"),
        ([expert("dogs")], {"options": "x"}, "options are a mapping"),
        ([expert("dogs")], {"options": {"dogs": "x"}}, "the options of expert 'dogs' are a mapping"),
        ([expert("dogs")], {"batch_size": "3"}, "batch_size must be a whole number"),
        ([expert("dogs")], {"store": "folder"}, r"pass Store\(folder\)"),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(arguments, settings, reason):
    with pytest.raises(ExpertError, match=reason):
        Perceiver(arguments, **settings)


def test_only_refuses_a_name_that_is_not_there():
    perceiver = Perceiver([expert("dogs"), expert("cats")])
    assert [chosen.name for chosen in perceiver.only("cats").experts] == ["cats"]
    with pytest.raises(ExpertError, match="expert 'dog' is not among those of this perceiver; did you mean 'dogs'"):
        perceiver.only(["dog"])


def test_a_copy_of_a_turned_photograph_is_perceived_upright(tmp_path):
    wide = Image.new("RGB", (8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    wide.save(tmp_path / "phone.jpg", exif=exif)
    shape = expert("shape", look=lambda self, image: dog(label=f"{image.width} x {image.height}"))
    opened = Image.open(tmp_path / "phone.jpg")
    given = [
        tmp_path / "phone.jpg",
        (tmp_path / "phone.jpg").read_bytes(),
        opened,
        opened.copy(),
        opened.convert("RGB"),
    ]
    assert {p.detections[0].label for p in Perceiver([shape]).perceive(given)} == {"4 x 8"}


def test_each_finding_names_its_expert_and_the_cache_is_marked(tmp_path):
    ocr = expert("signs", "ocr", version="2", look=lambda self, image: Perception(texts=(TextLine("EXIT", 1.0),)))
    first, again = (Perceiver([expert("dogs"), ocr], store=Store(tmp_path)).perceive(reds(1, 1)) for _ in range(2))
    for perception in (*first, *again):
        assert [found.source for found in (*perception.detections, *perception.texts)] == ["dogs", "signs"]
    assert [[source.cached for source in p.sources] for p in (*first, *again)] == [[False] * 2] * 2 + [[True] * 2] * 2
    assert first == again
    assert Perception.from_dict(again[0].to_dict()).texts[0].source == "signs"


def test_experts_share_the_pixels_that_none_writes_to():
    cores = []

    def look(self, image):
        cores.append(image.im)
        return dog()

    picture = reds(1)[0]
    Perceiver([expert("a", look=look), expert("b", look=look)]).perceive([picture])
    assert cores[0] is cores[1] is picture.im


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


def test_a_full_disk_does_not_cost_the_perceptions(tmp_path, caplog):
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


def test_other_weights_perceive_again_and_doubtful_ones_are_not_cached(tmp_path, caplog):
    store = Store(tmp_path)

    def batches(weights_id) -> list:
        expert = heavy("a", weights_id=weights_id)
        Perceiver([expert], store=store).perceive(reds(1))
        return [event for event in expert.events if isinstance(event, int)]

    names = ("one", "one", "two", "one", "")
    assert [batches(lambda self, name=name: name) for name in names] == [[1], [], [1], [], [1]]

    def gone(self):
        raise FileNotFoundError("weights.pth")

    count = len(store)
    with caplog.at_level(logging.WARNING):
        assert [batches(gone), batches(gone), batches(lambda self: None)] == [[1], [1], [1]]
    assert len(store) == count
    assert "weights_id: FileNotFoundError: weights.pth; its perceptions are not cached" in caplog.text
    assert "weights_id: returned NoneType, not str" in caplog.text
