"""Show conversations with the parts that training learns marked, as segments and as an HTML page.

Knows: samples and a processor. Every text of a page is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from moai.assets.replacing import replacing
from moai.data.context_fit import IGNORED, fit_context
from moai.errors import DataError
from moai.perception.words.verbalize import verbalize
from moai.types import IMAGE, Perception, Sample, merge

if TYPE_CHECKING:
    from moai.model.processor.processor import MoaiProcessor

PLACE = "[image]"
STYLE = """
:root { color-scheme: light dark; } body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid #8886; padding: .8rem; }
mark { background: #2a85; color: inherit; } h2 { font-size: 1rem; }
"""


class Segment(NamedTuple):
    """A piece of a conversation, and whether its tokens carry loss."""

    text: str
    learnt: bool


class Shown(NamedTuple):
    """A sample as it is shown: where it stands, and its segments."""

    place: str
    segments: tuple[Segment, ...]


def show_sample(sample: Sample, place: str, processor: MoaiProcessor | None, too_long: str = "refuse") -> Shown:
    """Return a sample's segments: of its tokens by a processor, else of its turns.

    A sample without images begins with the words of its perception.

    Raises:
        DataError: it does not fit the context.
    """
    if processor is None:
        return Shown(place, (*_words(sample, verbalize), *_by_turns(sample)))
    try:
        sample = fit_context(sample, processor, too_long).sample
    except DataError as error:
        raise DataError(f"{place}: {error}", error.problem) from error
    encoded = processor.encode(sample.conversation, labels=True)
    pairs = zip(encoded.ids, (label != IGNORED for label in encoded.labels), strict=True)
    groups = groupby(pairs, key=lambda pair: (pair[0] == processor.image_token_id, pair[1]))
    segments = list(_words(sample, lambda perception: processor.verbalize(perception).text))
    for (image, learnt), tokens in groups:
        ids = [token for token, _ in tokens]
        segments.append(Segment(PLACE * len(ids) if image else processor.tokenizer.decode(ids), learnt))
    return Shown(place, tuple(segments))


def write_page(path: Path, title: str, shown: Sequence[Shown], facts: Sequence[tuple[str, int]] = ()) -> None:
    """Write an HTML page of conversations, with a table of counts above them.

    Raises:
        DataError: the file cannot be written.
    """
    counts = "".join(f"<tr><td>{escape(name)}</td><td>{count:,}</td></tr>" for name, count in facts)
    parts = "".join(f"<h2>{escape(one.place)}</h2><pre>{''.join(map(_html, one.segments))}</pre>" for one in shown)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
        f"<h1>{escape(title)}</h1><table>{counts}</table><p>Training learns what is <mark>marked</mark>.</p>{parts}"
    )
    try:
        with replacing(path) as part:
            part.write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}; name another file") from error


def _words(sample: Sample, to_words: Callable[[Perception], str]) -> Iterator[Segment]:
    """What the model is told of a sample without images."""
    if sample.perceived:
        yield Segment(f"perception: {to_words(merge(list(sample.perceived.values())))}\n", False)


def _by_turns(sample: Sample) -> Iterator[Segment]:
    everything = sample.conversation.loss == "all"
    for turn in sample.conversation.turns:
        learnt = everything or turn.role == "assistant"
        yield Segment(f"{turn.role}: ", False)
        for part in turn.content:
            yield Segment(PLACE if part is IMAGE else str(part), learnt and part is not IMAGE)
        yield Segment("\n", False)


def _html(segment: Segment) -> str:
    return f"<mark>{escape(segment.text)}</mark>" if segment.learnt else escape(segment.text)
