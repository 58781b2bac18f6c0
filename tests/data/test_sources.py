"""Sources of a recipe: splits, shares held out, mixtures, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny

from moai.data.mixture import Mixture, shares
from moai.data.samples import Concatenated, Listed, draw
from moai.data.sources import label_of, metric_of, open_sources
from moai.errors import DataError, RecipeError
from moai.recipe.sections import Data, DataSource
from moai.types import Sample


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def questions(count, start=0, images=None):
    rows = [{"id": f"q{n}", "question": f"question {n}?", "answer": "yes"} for n in range(start, start + count)]
    return [{**row, "image": f"{n % images}.png"} for n, row in enumerate(rows)] if images else rows


@pytest.fixture
def numbered(tmp_path):
    for number in range(40):
        tiny.picture("red").save(tmp_path / f"{number}.png")
    return tmp_path


def ids(samples):
    return [sample.id for sample in samples]


def test_a_single_path_is_trained_on(tmp_path, mixed):
    path = write(tmp_path / "a.jsonl", questions(3))
    assert ids(mixed({"format": "jsonl", "path": path})) == ["q0", "q1", "q2"]
    with pytest.raises(RecipeError, match=r"the split 'test' of .*a.jsonl is empty; .*hold_out: \{test: 0.05\}"):
        mixed({"format": "jsonl", "path": path}, split="test")


def test_a_mapping_has_a_path_per_split(tmp_path, mixed):
    paths = {name: write(tmp_path / f"{name}.jsonl", questions(2, 10 * n)) for n, name in enumerate(("train", "test"))}
    source = {"format": "jsonl", "path": paths}
    assert ids(mixed(source)) == ["q0", "q1"] and ids(mixed(source, split="test")) == ["q10", "q11"]
    with pytest.raises(RecipeError, match="the split 'validation'"):
        mixed(source, split="validation")


def test_what_is_held_out_is_disjoint_whole_and_keeps_images_together(numbered, mixed):
    path = write(numbered / "a.jsonl", questions(200, images=40))
    source = {"format": "jsonl", "path": path, "hold_out": {"validation": 0.2, "test": 0.3}}
    parts = {split: mixed(source, split=split) for split in ("train", "validation", "test")}
    assert sorted(sum(map(ids, parts.values()), [])) == sorted(f"q{n}" for n in range(200))
    images = {split: {sample.image_ids for sample in part} for split, part in parts.items()}
    assert not images["train"] & images["test"] and not images["train"] & images["validation"]
    assert 25 < len(parts["validation"]) + 20 and 20 < len(parts["test"]) < 110
    assert ids(mixed(source, split="test")) == ids(parts["test"])  # from the cache


def test_held_out_rows_do_not_depend_on_the_others(numbered, mixed):
    source = {"format": "jsonl", "path": str(numbered / "a.jsonl"), "hold_out": {"test": 0.5}}
    write(numbered / "a.jsonl", questions(50))
    before = set(ids(mixed(source, split="test")))
    write(numbered / "a.jsonl", questions(80, -30))
    assert {name for name in ids(mixed(source, split="test")) if name in {f"q{n}" for n in range(50)}} == before


def test_a_bad_row_is_in_no_share_and_raises_where_it_is_read(tmp_path, mixed):
    path = tmp_path / "a.jsonl"
    write(path, [*questions(20), {"question": "and?"}])
    path.write_text(path.read_text() + "\n{")
    source = {"format": "jsonl", "path": str(path), "hold_out": {"test": 0.9}}
    train = mixed(source)
    with pytest.raises(DataError, match="a.jsonl:22: no JSON"):
        train[len(train) - 1]
    assert train.place(len(train) - 1) == f"{path}:22"


def test_a_registered_data_set_splits_itself(mixed):
    tiny.register()
    source = {"format": "dataset", "name": "tiny"}
    assert ids(mixed(source))[0].startswith("train") and ids(mixed(source, split="test"))[0].startswith("test")
    held = mixed({**source, "hold_out": {"extra": 0.5}}, split="extra")
    assert 0 < len(held) < len(mixed(source)) and held[0].id.startswith("train")


def listed(count, name):
    return Listed([Sample.from_question(f"{name}{n}", "a.png", "i", "?", "a") for n in range(count)])


def epoch_ids(mixture, epoch):
    return [mixture[index].id for index in mixture.epoch_rows(epoch)]


def test_a_mixture_is_a_pure_function_of_seed_and_epoch():
    parts = [listed(100, "a"), listed(10, "b")]
    mixture = Mixture(parts, [0.5, 0.5], seed=3)
    assert len(mixture) == 110 and len(set(ids(mixture))) == 110, "as a sequence it has every sample once"
    one = epoch_ids(mixture, 1)
    assert one == epoch_ids(Mixture(parts, [0.5, 0.5], seed=3), 1)
    assert one != epoch_ids(mixture, 2) and one != epoch_ids(Mixture(parts, [0.5, 0.5], 4), 1)
    assert len(one) == 110 and sum(name.startswith("a") for name in one) == 55
    counts = [one.count(f"b{n}") for n in range(10)]
    assert sum(counts) == 55 and set(counts) == {5, 6}  # all of them before any a further time
    assert len({name for name in one if name.startswith("a")}) == 55


def test_over_the_epochs_a_large_source_is_seen_whole():
    mixture = Mixture([listed(60, "a"), listed(6, "b")], [1, 1])
    seen = {name for epoch in range(12) for name in epoch_ids(mixture, epoch)}
    assert len(seen) == 66


def test_shares_add_up_and_a_weight_of_nothing_gives_nothing():
    assert shares(np.array([0.45, 0.45, 0.1]), 101).tolist() == [46, 45, 10]
    assert shares(np.array([1.0, 0.0]), 7).tolist() == [7, 0]
    with pytest.raises(RecipeError, match="all weights of data.sources are 0"):
        Mixture([listed(2, "a")], [0.0])
    with pytest.raises(RecipeError, match="some of data.sources have a weight and others have none"):
        Mixture([listed(2, "a"), listed(2, "b")], [1.0, None])


def test_weights_are_for_training_and_other_splits_have_all_once(tmp_path, mixed):
    sources = [
        {"format": "jsonl", "weight": weight, "path": {
            split: write(tmp_path / f"{name}-{split}.jsonl", questions(4, 10 * n)) for split in ("train", "test")}}
        for n, (name, weight) in enumerate((("a", 3.0), ("b", 1.0)))
    ]  # fmt: skip
    assert sorted(ids(mixed(*sources, split="test"))) == sorted(f"q{n}" for n in (0, 1, 2, 3, 10, 11, 12, 13))
    assert sum(len(name) == 2 for name in epoch_ids(mixed(*sources, seed=1), 0)) == 6


def test_a_draw_is_in_order_and_a_larger_one_contains_it():
    numbers = listed(100, "n")
    small, large = ids(draw(numbers, 10, seed=3)), ids(draw(numbers, 30, seed=3))
    assert set(small) < set(large) and small == sorted(small, key=lambda name: int(name[1:])) and len(set(large)) == 30
    assert ids(draw(numbers, 10, seed=4)) != small
    assert draw(numbers, None, seed=3) is numbers and draw(numbers, 100, seed=3) is numbers


def test_joined_samples_know_their_places():
    joined = Concatenated([listed(2, "a"), listed(3, "b")])
    assert ids(joined) == ["a0", "a1", "b0", "b1", "b2"] and joined.place(3) == "sample 'b1'"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"format": "jsonll", "path": "a"}, "unknown data format 'jsonll'; did you mean 'jsonl'?"),
        ({"format": "jsonl"}, "format jsonl reads files; give data.sources a path"),
        ({"format": "jsonl", "path": "nowhere.jsonl"}, "there is nothing at nowhere.jsonl; fix the path"),
        ({"format": "dataset", "path": "a"}, "give data.sources a name, and no path"),
        ({"format": "dataset", "name": "easy-vqua"}, "unknown data set 'easy-vqua'"),
        ({"format": "jsonl", "path": "a", "options": {"marks": 1}}, "does not fit format 'jsonl': .*'marks'"),
        ({"format": "jsonl", "path": ".", "options": {"marker": 1}}, "format 'jsonl': marker: .* valid string"),
        ({"format": "jsonl", "path": "."}, "is a folder, and format jsonl reads files"),
    ],
)
def test_what_a_source_lacks_is_a_sentence(tmp_path, monkeypatch, mixed, source, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=said):
        mixed(source)


def test_the_schema_refuses_shares_and_weights_that_mean_nothing():
    for keys in ({"hold_out": {"a": 0.6, "b": 0.4}}, {"hold_out": {"a": 0}}, {"weight": -1}, {"weight": float("inf")}):
        with pytest.raises(ValueError):
            DataSource(format="jsonl", **keys)
    with pytest.raises(ValueError):
        Data(sources=[])


def test_sources_have_a_name_and_a_metric(monkeypatch):
    from moai.plugins import registry

    def letters(split):
        return []

    letters.metric = len
    monkeypatch.setitem(registry().datasets, "letters", letters)
    one = DataSource(format="dataset", name="letters")
    files = DataSource(format="jsonl", path={"train": "a.jsonl"})
    assert metric_of([one, one]) is len and metric_of([one, files]) is None
    assert label_of([one, files, one]) == "letters + a.jsonl"


def test_a_formats_own_error_names_the_option_or_the_file(monkeypatch):
    from moai.plugins import registry

    def broken(source):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(registry().formats, "broken", broken)
    with pytest.raises(DataError, match="shelf cannot be read: Permission denied; check the path"):
        open_sources([DataSource(format="broken", name="shelf")], "train")


def test_a_data_set_that_raises_is_one_sentence_with_the_sample(monkeypatch):
    from moai.plugins import registry

    class Samples(list):
        def __getitem__(self, index):
            return 1 // index

    for name, factory in {"whole": lambda split: 1 // 0, "one": lambda split: Samples("ab")}.items():
        monkeypatch.setitem(registry().datasets, name, factory)
    with pytest.raises(DataError, match=r"^data set 'whole': ZeroDivisionError: .*; report it to its author$"):
        open_sources([DataSource(format="dataset", name="whole")], "train")
    opened = open_sources([DataSource(format="dataset", name="one")], "train")
    with pytest.raises(
        DataError, match=r"^data set 'one': ZeroDivisionError: .* at sample 0; report it to its author$"
    ):
        opened[0]
    with pytest.raises(DataError, match=r"^data set 'one': sample 1 is 1, no moai.Sample"):
        opened[1]
    assert opened.place(0) == "data set 'one': sample 0"
