"""The picture of a training: each panel that has something to show, nothing cut, every line named."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from moai.training.curves import draw_curves, smooth
from moai.training.log import TrainingLog


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draw the lines, and return the figure."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: figures.append(self) or save(self, *a, **k))

    def draw(lines, name: str = "run"):
        folder = tmp_path / name
        folder.mkdir()
        log = TrainingLog(folder, 0)
        for line in lines:
            log.write(**line)
        path = draw_curves(folder)
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000
        return figures[-1]

    return draw


def whole() -> list[dict]:
    align = [{"step": s, "stage": "align", "attention": 4.0 / s} for s in range(1, 31)]
    answers = [{"step": s, "stage": "modules", "loss": 30.0 / s, "attention": 0.1} for s in range(31, 61)]
    answers[-1] |= {"loss_on": 0.2, "loss_off": 0.5, "loss_shuffled": 0.9, "spread": 0.8, "attention_validation": 0.2}
    return align + answers


def titles(figure) -> list[str]:
    return [axes.get_title(loc="left").partition(",")[0].partition(":")[0] for axes in figure.axes]


def test_all_losses_are_shown_and_every_line_has_a_name(drawn):
    figure = drawn(whole())
    assert titles(figure) == ["Loss of the answers", "Losses of where to look", "Validation loss", "Compressor"]
    for axes in figure.axes:
        named = {text.get_text() for text in axes.get_legend().get_texts()}
        assert named and not any(name.startswith("_") for name in named)
    looking = {text.get_text() for text in figure.axes[1].get_legend().get_texts()}
    assert {
        "alignment, moving average",
        "supervision beside the answers, moving average",
        "alignment, validation questions",
    } <= looking
    assert [note.get_text().split()[0] for note in figure.axes[0].texts] == ["align", "modules"]


def test_nothing_is_cut(drawn):
    for axes in drawn(whole()).axes:
        for line in axes.lines:
            values = [value for value in line.get_ydata() if value not in (0, 1)]  # 0 to 1: a stage's mark
            assert all(axes.get_ylim()[0] <= value <= axes.get_ylim()[1] for value in values)


def test_the_moving_average_lies_on_the_data_and_keeps_within_a_stage(drawn):
    falling = [(step, 100.0 - step) for step in range(40)]
    assert [value for _, value in smooth(falling)] == pytest.approx([value for _, value in falling])
    assert smooth([(1, 2.0)]) == [(1, 2.0)] and smooth([]) == []
    averages = [line for line in drawn(whole()).axes[1].lines if line.get_linewidth() == 1.7]
    assert [(min(line.get_xdata()), max(line.get_xdata())) for line in averages] == [(1, 30), (31, 60)]


@pytest.mark.parametrize("count", [1, 2])
def test_a_short_run_and_an_odd_name_are_drawn(drawn, count):
    figure = drawn([{"step": s + 1, "loss": 1.0} for s in range(count)], name="$x_1\\ run")
    assert titles(figure) == ["Loss of the answers"]


def test_no_step_is_no_picture(tmp_path):
    assert draw_curves(tmp_path) is None
