"""The training log and what watches whether perception is read."""

import json

import pytest
import tiny
import torch

from moai.training.log import NAME, TrainingLog, read_log
from moai.training.monitor import Monitor


def write(folder, count, **values):
    log = TrainingLog(folder, 0)
    for step in range(1, count + 1):
        log.write(step=step, loss=1.0 / step, **values)
    return log


def test_lines_behind_the_checkpoint_are_dropped(tmp_path):
    write(tmp_path, 5)
    log = TrainingLog(tmp_path, 3)
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3]
    log.write(step=4, loss=9.0)
    assert [line["loss"] for line in read_log(tmp_path)][2:] == [pytest.approx(1 / 3), 9.0]


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    write(tmp_path, 3)
    with (tmp_path / NAME).open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3]
    TrainingLog(tmp_path, 9).write(step=4, loss=0.5)
    assert [json.loads(text)["step"] for text in (tmp_path / NAME).read_text().splitlines()] == [1, 2, 3, 4]


def test_no_log_is_an_empty_one(tmp_path):
    assert read_log(tmp_path) == []


# The monitor ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched():
    model, processor = tiny.made()
    samples = tiny.dataset("validation")[:6]
    images = {image for sample in tiny.dataset("validation") for image in sample.image_ids}
    return model, samples, {image: tiny.seen(image.split("-")[0]) for image in images}, processor


def test_the_monitor_measures_the_losses_it_names(watched):
    model, samples, perceptions, processor = watched
    monitor = Monitor(samples, perceptions, processor, batch=4)
    found = monitor.measure(model)
    assert set(found) == {"loss_on", "loss_off", "loss_shuffled", "spread"}
    assert all(monitor.other[image] != image for sample in samples for image in sample.image_ids)
    for name, seen in (
        ("loss_on", lambda image: perceptions[image]),
        ("loss_off", lambda image: None),
        ("loss_shuffled", lambda image: perceptions[monitor.other[image]]),
    ):
        with torch.no_grad():
            given = [[seen(image) for image in s.image_ids] for s in samples]
            expected = model(**processor.batch([s.conversation for s in samples], given, labels=True)).loss
        assert found[name] == pytest.approx(float(expected), abs=1e-4), name
    assert len({round(found[name], 5) for name in found}) == 4


def test_the_monitor_leaves_the_model_as_it_was(watched):
    model, samples, perceptions, processor = watched
    model.train()
    Monitor(samples, perceptions, processor, batch=2).measure(model)
    assert model.training and all(p.grad is None for p in model.parameters())
    model.eval()


def test_a_constant_compressor_shows_as_no_spread(watched):
    model, samples, perceptions, processor = watched
    monitor = Monitor(samples, perceptions, processor, batch=4)
    alive = monitor.measure(model)["spread"]
    norm = model.auxiliary.compressor.norm
    kept = norm.weight.detach().clone()
    with torch.no_grad():
        norm.weight.zero_()
    collapsed = monitor.measure(model)["spread"]
    with torch.no_grad():
        norm.weight.copy_(kept)
    assert alive > 0.1 and collapsed < 1e-6


def test_without_perceptions_there_is_no_spread(watched):
    model, samples, _, processor = watched
    found = Monitor(samples, {}, processor, batch=4).measure(model)
    assert found["spread"] == 0 and found["loss_on"] == found["loss_off"]
