"""Render the evaluation as one HTML page: it needs no network and no other file, and can be printed.

Knows: the summary's layout, records, jinja2 and Pillow. Questions, answers and text found in images are untrusted: the
template escapes everything, control and direction-changing characters become spaces, and the page's own policy lets no
script run and nothing be fetched.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moai.errors import ImageError
from moai.evaluation.metrics import exact_match
from moai.evaluation.paired import Record
from moai.evaluation.report.palette import name_of
from moai.evaluation.report.plots import draw_all
from moai.evaluation.report.table import format_p, metric_line, token_lines
from moai.evaluation.report.verdict import reading, verdict
from moai.evaluation.summary import headline, pairs
from moai.training.card import package_of, run_facts, weights_of
from moai.training.curves import FILE as CURVES
from moai.types import Perception

if TYPE_CHECKING:
    from PIL.Image import Image

TEMPLATE = "page.html.j2"
MOST = 12  # examples of each kind
SMALLEST, LARGEST, DRAWN = 200, 480, 640  # pixels of an example's longest side; the last with findings drawn


def render_page(
    summary: Mapping[str, Any],
    records: Sequence[Record],
    images: Mapping[str, Any],
    words: Mapping[str, str],
    perceptions: Mapping[str, Perception] | None = None,
    run: str | Path | None = None,
) -> str:
    """Render the whole page as text.

    Args:
        summary: of ``summarize``, with ``gates`` where they were sampled.
        records: the answers, from which examples are chosen.
        images: image id -> what ``moai.images.read_image`` takes.
        words: image id -> the perception in words.
        perceptions: image id -> the perception, which is drawn on the examples' images.
        run: the run folder, whose facts and curves are shown.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=plain)
    environment.filters.update(points=_points, percent=_percent, p=format_p, condition=name_of)
    environment.filters.update(package=package_of, weights=weights_of)
    template = environment.from_string(files("moai.evaluation.report").joinpath(TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        summary=summary,
        title=reading(summary),
        about=headline(summary),
        run=run_facts(run) if run is not None else None,
        curves=_curves(run),
        compared=pairs(summary["conditions"]),
        plots=draw_all(summary),
        verdicts=[verdict(summary, name) for name in summary.get("baselines", ())],
        metric=metric_line(summary) if summary.get("metric") else "",
        costs=token_lines(summary),
        regressions=[_example(r, images, words, perceptions or {}) for r in regressions(records)],
        gains=[_example(r, images, words, perceptions or {}) for r in gains(records)],
        regressed=len(regressions(records, len(records))),
        gained=len(gains(records, len(records))),
    )


def regressions(records: Sequence[Record], most: int = MOST) -> list[Record]:
    """Pick questions that were answered right with perception off and wrong with it on; the worst first."""
    return _pick(records, "off", "on", most)


def gains(records: Sequence[Record], most: int = MOST) -> list[Record]:
    """Pick questions that were answered right with perception on and wrong with it off; the best first."""
    return _pick(records, "on", "off", most)


def plain(value: Any) -> Any:
    """Return text without control, escape and direction-changing characters; anything else as it is."""
    if not isinstance(value, str):
        return value
    return type(value)("".join(char if char.isprintable() or char == "\n" else " " for char in value))


def _curves(run: str | Path | None) -> str | None:
    """The picture of the training as a data URI; None where the run has none."""
    path = Path(run) / CURVES if run is not None else None
    if path is None or not path.is_file():
        return None
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _example(
    record: Record, images: Mapping[str, Any], words: Mapping[str, str], perceptions: Mapping[str, Perception]
) -> dict[str, Any]:
    answers = [
        {"condition": c, "text": text, "right": exact_match(text, record.accepted)}
        for c, text in record.predictions.items()
    ]
    return {
        "record": record,
        "answers": answers,
        "picture": _picture(images.get(record.image_id), perceptions.get(record.image_id)),
        "words": words.get(record.image_id, ""),
    }


def _picture(source: Any, perception: Perception | None) -> str | None:
    """The image with what was found as a data URI; None when the image has gone since it was answered."""
    from PIL import Image

    from moai.images import read_image
    from moai.perception.drawing.overlay import draw_overlay

    if source is None:
        return None
    try:
        image = read_image(source)
    except ImageError:
        return None
    if perception is not None:
        drawn = draw_overlay(image, perception, with_lines=False)
        drawn.thumbnail((DRAWN, DRAWN))
        return _uri(drawn, "JPEG")
    longest = max(image.size)
    scale = min(1.0, LARGEST / longest) if longest >= SMALLEST else SMALLEST // longest
    size = tuple(max(1, round(side * scale)) for side in image.size)
    image = image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
    return _uri(image, "PNG" if scale > 1 else "JPEG")  # enlarged drawings stay sharp, photographs stay small


def _uri(image: Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, kind, **({} if kind == "PNG" else {"quality": 85}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _percent(value: Mapping[str, float]) -> str:
    return f"{100 * value['value']:.1f}"


def _points(value: Mapping[str, float], sign: str = "") -> str:
    return f"{100 * value['low']:{sign}.1f} to {100 * value['high']:{sign}.1f}"


def _pick(records: Sequence[Record], right: str, wrong: str, most: int) -> list[Record]:
    """Pick at most ``most``: first by how far the data set's own metric fell, then by the experts' scores.

    Each image is shown once before any is shown twice: ten mistakes are more informative than one mistake ten times.
    """
    found = [
        r
        for r in records
        if {right, wrong} <= set(r.predictions)
        and exact_match(r.predictions[right], r.accepted)
        and not exact_match(r.predictions[wrong], r.accepted)
    ]
    found.sort(key=lambda r: (_fall(r, wrong, right), -_mean_score(r), r.id))
    shown: dict[str, int] = {}
    turns = []
    for record in found:
        shown[record.cluster] = shown.get(record.cluster, 0) + 1
        turns.append(shown[record.cluster])
    return [record for _, record in sorted(zip(turns, found), key=lambda pair: pair[0])][:most]


def _fall(record: Record, wrong: str, right: str) -> float:
    return record.scores.get(wrong, 0.0) - record.scores.get(right, 0.0)


def _mean_score(record: Record) -> float:
    return record.confidence["mean"] if record.confidence else 0.0
