"""Draw an explanation: what an answer was computed from, as a picture.

Knows: explanations and matplotlib. A colour stands for a source of attention: the experts' words, the image
or the question. Text found in an image is untrusted; ``palette.drawn`` takes formulas and control characters out of it.
"""

from __future__ import annotations

import os
import textwrap
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from moai.assets.replacing import replacing
from moai.errors import ImageError
from moai.perception.explaining.explanation import FRAME, MAP, MODULES, Explanation, Source
from moai.plot_style import FAINT, INK, RULE, drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

COLOURS = {"auxiliary": "#0b6e8f", "image": "#e39b4c", "language": "#9467a8"}
NAMES = {"auxiliary": "experts' words", "image": "image", "language": "question"}
_WIDTH, _LINES, _COLUMNS, _MOST = 12.0, 9, 150, 10  # inches; lines and letters of the words; bars


def draw_explanation(
    image: Image, question: str, answer: str, explanation: Explanation, path: str | os.PathLike
) -> Path:
    """Draw an explanation into the PNG file ``path``, and return the path.

    Four parts: the image, each patch in the colour that its gate gives most to; the sources by their share, with a
    mark at the share they would have if nothing were preferred; the words given to the model, the darker the more
    they were preferred; and the question's tokens with their gate, beside the sharpest single readings.

    Raises:
        ImageError: the path cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = _lay_out(explanation)
    figure = Figure(figsize=(_WIDTH, 7.6 + 0.24 * len(lines)), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)  # no window system and no global state, so it is safe in threads
    heights = [3.9, 0.5 + 0.24 * len(lines), 2.3]
    grid = figure.add_gridspec(3, 24, height_ratios=heights, hspace=0.32, wspace=0.3, left=0.04, right=0.98,
                               top=1 - 1.25 / figure.get_figheight(), bottom=0.6 / figure.get_figheight())  # fmt: skip
    _title(figure, question, answer)
    _draw_patches(figure.add_subplot(grid[0, :8]), image, explanation)
    _draw_sources(figure.add_subplot(grid[0, 15:]), explanation.sources())
    _draw_words(figure.add_subplot(grid[1, :]), lines)
    _draw_question(figure.add_subplot(grid[2, :15]), explanation)
    _draw_readings(figure.add_subplot(grid[2, 16:]), explanation)
    return _save(figure, Path(path))


def _title(figure, question: str, answer: str) -> None:
    from matplotlib.patches import Patch

    top = 1 - 0.36 / figure.get_figheight()
    title = textwrap.shorten(drawn(f"{question}  \N{RIGHTWARDS ARROW}  {answer}"), 400)
    figure.text(0.04, top, textwrap.fill(title, 96, max_lines=2), fontsize=14, color=INK, weight="bold", va="center")
    handles = [Patch(facecolor=colour, label=NAMES[name]) for name, colour in COLOURS.items()]
    place = (0.03, 1 - 0.86 / figure.get_figheight())
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=place, ncols=3, frameon=False, fontsize=10)


def _draw_patches(axes: Axes, image: Image, explanation: Explanation) -> None:
    """The picture with its patches; where image tokens are no patches, the picture with their mean."""
    gates = explanation.gates("image")
    grid = explanation.grid or (1, 1)
    if explanation.grid is None:
        gates = gates.mean(axis=0, keepdims=True) if len(gates) else np.zeros((0, 3))
    picture = image.convert("RGB")
    picture.thumbnail((768, 768))
    pale = 255 - 0.6 * (255.0 - np.asarray(picture))  # so that the colours of the patches show on it
    axes.imshow(pale.astype(np.uint8), extent=(0, grid[1], grid[0], 0), aspect="auto")
    axes.set_box_aspect(picture.height / picture.width)
    for number, weights in enumerate(gates):
        _draw_patch(axes, divmod(number, grid[1]), weights, written=grid[1] <= 4)
    axes.set_xlim(0, grid[1])
    axes.set_ylim(grid[0], 0)
    axes.set_axis_off()
    title = "What each patch of the image reads" if explanation.grid else "What the image tokens read, mean"
    title = title if len(gates) else "The image, which has no tokens: the model gets its words alone"
    axes.set_title(title, fontsize=11, color=INK, loc="left")


def _draw_patch(axes: Axes, place: tuple[int, int], weights: np.ndarray, written: bool) -> None:
    from matplotlib.patches import Rectangle

    (row, column), best = place, int(weights.argmax())
    name = MODULES["image"][best]
    strength = 0.05 + 0.6 * max(0.0, (float(weights[best]) - 1 / 3) / (2 / 3))
    axes.add_patch(Rectangle((column, row), 1, 1, color=COLOURS[name], alpha=strength, linewidth=0))
    axes.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor="white", linewidth=1))
    left = column + 0.06
    for part, module in zip(weights, MODULES["image"], strict=True):  # all three, as a bar along the lower edge
        axes.add_patch(Rectangle((left, row + 0.86), 0.88 * float(part), 0.08, color=COLOURS[module], linewidth=0))
        left += 0.88 * float(part)
    if written:
        box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5}
        label = f"{NAMES[name]} {100 * weights[best]:.0f} %"
        axes.text(column + 0.06, row + 0.8, label, fontsize=8, color=INK, bbox=box, va="bottom")


def _draw_sources(axes: Axes, sources: Sequence[Source]) -> None:
    shown = sources[:_MOST]
    for place, source in enumerate(shown):
        expert = " or ".join(source.experts) or source.role
        axes.barh(place, 100 * source.share, height=0.62, color=COLOURS["auxiliary"] if source.experts else "#9fb4bd")
        axes.plot([100 * source.even] * 2, [place - 0.42, place + 0.42], color=INK, linewidth=1.4)
        end = 100 * max(source.share, source.even if source.even < source.share + 0.06 else 0)
        axes.text(end, place, f" {100 * source.share:.0f} %", va="center", fontsize=8.5, color=INK)
        text = source.text if len(source.text) <= 46 else f"{source.text[:45]}\N{HORIZONTAL ELLIPSIS}"
        named = text if source.text in (FRAME, MAP) else f"{text}  ({expert})"
        axes.text(-0.02, place, drawn(named), va="center", ha="right",
                  fontsize=8.5, color=INK, transform=axes.get_yaxis_transform())  # fmt: skip
    left = f"; {len(sources) - len(shown)} more" if len(sources) > len(shown) else ""
    title = f"Sources by their share of what was read{left}   ( | : if all words were read alike)"
    axes.set_title(title if shown else "No expert found anything", fontsize=11, color=INK, x=0.98, ha="right")
    axes.set_yticks([])
    axes.set_ylim(max(3, len(shown)) - 0.4, -0.6)
    axes.set_xlim(0, 112 * max([s.share for s in shown] + [s.even for s in shown] + [0.01]))
    _bare(axes)


def _lay_out(explanation: Explanation) -> list[list[tuple[int, str, float]]]:
    """Lines of ``(column, word, shade in [0, 1])``."""
    count = len(explanation.words)
    above = explanation.shares[:count] / np.maximum(explanation.even[:count], 1e-9) - 1
    shades = np.clip(above / max(1.0, float(above.max(initial=0.0))), 0, 1)
    lines: list[list[tuple[int, str, float]]] = [[]]
    column, end = 0, 0
    for word, shade in zip(explanation.words, shades, strict=True):
        column += word.start > end and column > 0
        text = textwrap.shorten(word.text, _COLUMNS, placeholder="...")[:_COLUMNS]
        if column and column + _cells(text) > _COLUMNS:
            lines.append([])
            column = 0
        lines[-1].append((column, text, float(shade)))
        column, end = column + _cells(text), word.end
    if len(lines) > _LINES:
        lines = [*lines[:_LINES], [(0, f"... and {sum(map(len, lines[_LINES:]))} more words", 0.0)]]
    return lines


def _cells(text: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def _draw_words(axes: Axes, lines: list[list[tuple[int, str, float]]]) -> None:
    from matplotlib.patches import Rectangle

    for row, line in enumerate(lines):
        for column, word, shade in line:
            size = (_cells(word) + 0.2, 0.92)
            axes.add_patch(
                Rectangle(
                    (column - 0.1, row - 0.46), *size, color=COLOURS["auxiliary"], alpha=0.75 * shade, linewidth=0
                )
            )
            colour = "white" if shade > 0.75 else INK
            axes.text(column, row, drawn(word), fontsize=9, family="monospace", va="center", color=colour)
    axes.set_xlim(0, _COLUMNS)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_axis_off()
    title = "The words given to the model, darker where they were read more than their length explains"
    axes.set_title(title if lines[0] else "No words were given to the model", fontsize=11, color=INK, loc="left")


def _draw_question(axes: Axes, explanation: Explanation) -> None:
    gates, tokens = explanation.gates("question")[-40:], explanation.question[-40:]
    bottom = np.zeros(len(gates))
    for column, module in enumerate(MODULES["question"]):
        axes.bar(range(len(gates)), 100 * gates[:, column], 0.9, bottom, color=COLOURS[module])
        bottom += 100 * gates[:, column]
    labels = [drawn(_token(token)) for token in tokens]
    turned = len(labels) > 12
    axes.set_xticks(range(len(labels)), labels, fontsize=8, color=INK, rotation=60 if turned else 0,
                    ha="right" if turned else "center", rotation_mode="anchor")  # fmt: skip
    axes.set_xlim(-0.6, max(1, len(labels)) - 0.4)
    axes.set_title(
        "What each token of the question reads, per cent (mean of the mixers)", fontsize=11, color=INK, loc="left"
    )
    axes.tick_params(axis="y", labelsize=8, labelcolor=FAINT)
    _bare(axes)


def _draw_readings(axes: Axes, explanation: Explanation) -> None:
    axes.set_title("The sharpest readings", fontsize=11, color=INK, loc="left")
    axes.set_axis_off()
    for row, reading in enumerate(explanation.sharpest()):
        listed = ", ".join(f"{word[:24]} {100 * share:.0f} %" for word, share in reading.words)
        start = f"layer {reading.layer}, {100 * reading.gate:.0f} % to the experts' words"
        words = textwrap.shorten(f'"{_token(reading.token)}" reads {listed}', 54, placeholder=" ...")
        axes.text(0, 0.93 - 0.2 * row, drawn(start), fontsize=8, color=FAINT, va="center", transform=axes.transAxes)
        axes.text(0, 0.85 - 0.2 * row, drawn(words), fontsize=9, color=INK, va="center", transform=axes.transAxes)


def _token(token: str) -> str:
    """Return a token as a label: invisible characters are spelt out, a long token is cut."""
    shown = token.strip() or repr(token)[1:-1]
    return shown if len(shown) <= 14 else f"{shown[:13]}\N{HORIZONTAL ELLIPSIS}"


def _bare(axes: Axes) -> None:
    axes.tick_params(length=0)
    axes.tick_params(axis="x", labelsize=8, labelcolor=FAINT)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=RULE)


def _save(figure, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            figure.savefig(part, format="png")
    except OSError as error:
        raise ImageError(f"cannot write '{path}': {error.strerror or error}; choose another path") from error
    return path
