"""Explain an answer by words: numbers per auxiliary token become shares of words, findings and experts.

Knows: arrays, characters and perceptions; not where the numbers come from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moai.perception.explaining.facts import FactSpan

MODULES = {"image": ("auxiliary", "language", "image"), "question": ("auxiliary", "image", "language")}
MAP = "(panoptic map)"
FRAME = "(words around the findings)"
# A box is one word, and so is every other run of letters and digits; signs stand alone.
_WORD = re.compile(r"\[[\d., ]+\]|\w+(?:[-'’.]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Word:
    """Hold a word of the verbalized perception, ``text[start:end]`` of it, and its finding (-1: none)."""

    text: str
    start: int
    end: int
    finding: int = -1


@dataclass(frozen=True)
class Source:
    """Hold a finding, the panoptic map or the frame, and its share of all that the prompt read."""

    text: str
    role: str
    experts: tuple[str, ...]
    share: float
    even: float
    """The share it would have if all auxiliary tokens had equal weight: its part of them."""


@dataclass(frozen=True)
class Layer:
    """Hold the gates and attention of one mixer. Rows sum to one; ``W`` is the words and, last, the panoptic map."""

    layer: int
    image_gates: NDArray[Any]  # (I, 3) in the order of MODULES["image"]
    question_gates: NDArray[Any]  # (P, 3) in the order of MODULES["question"]
    image_words: NDArray[Any]  # (I, W); zero without a perception
    question_words: NDArray[Any]  # (P, W)


@dataclass(frozen=True)
class Reading:
    """Hold one token of the question in one mixer: its auxiliary gate's weight, and the words it read, with shares."""

    layer: int
    token: str
    gate: float
    words: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Explanation:
    """Attribute the mixers' updates of one prompt's tokens to words, findings and experts.

    The path from auxiliary tokens through the compressor is an approximation: see ``moai.model.analysis.attribution``.
    """

    verbalized: str
    words: tuple[Word, ...]
    findings: tuple[FactSpan, ...]
    question: tuple[str, ...]
    """The text tokens of the prompt: the question in its template."""
    layers: tuple[Layer, ...]
    shares: NDArray[Any]
    """``(W,)``: each word's share, and last the map's, of all updates, weighted by their sizes."""
    even: NDArray[Any]
    """``(W,)``: each word's part of the auxiliary tokens, which is its share when all have equal weight."""
    grid: tuple[int, int] | None = None
    """Rows and columns of the image tokens, where they are patches of the image."""

    def sources(self) -> list[Source]:
        """List the findings, the panoptic map, and the words around the findings, the largest share first."""
        belong = np.array([*(word.finding for word in self.words), len(self.findings)])
        named = [(FRAME, "", ()), *((self.verbalized[s.start : s.end], s.role, s.experts) for s in self.findings)]
        found = []
        for number, name in enumerate([*named, (MAP, "panoptic", ())], -1):
            own = belong == number
            found.append(Source(*name, float(self.shares[own].sum()), float(self.even[own].sum())))
        return sorted((source for source in found if source.even > 0), key=lambda source: -source.share)

    def sharpest(self, most: int = 5) -> list[Reading]:
        """List the readings with the most weight on few words, at most one per token of the question.

        They are ranked by the auxiliary gate's weight times the words' weight above that of equal attention.
        """
        texts = sorted({word.text for word in self.words})
        same = np.array([[word.text == text for word in self.words] + [False] for text in texts], dtype=float)
        ranked: list[tuple[float, int, Reading]] = []
        for layer in self.layers if texts else ():
            read, even = layer.question_words @ same.T, same @ self.even  # (P, texts), (texts,)
            for place, (row, gate) in enumerate(zip(read, layer.question_gates[:, 0], strict=True)):
                above = row - even
                best = [i for i in np.argsort(-above, kind="stable")[:3] if above[i] > 0]
                best.sort(key=(-row).__getitem__)
                words = tuple((texts[i], float(row[i])) for i in best)
                value = float(gate * sum(above[i] for i in best))
                ranked.append((value, place, Reading(layer.layer, self.question[place], float(gate), words)))
        chosen: dict[int, Reading] = {}
        for _, place, reading in sorted(ranked, key=lambda one: -one[0]):
            if reading.words:
                chosen.setdefault(place, reading)
        return list(chosen.values())[:most]

    def gates(self, stream: str) -> NDArray[Any]:
        """Average the gates of ``"image"`` or ``"question"`` tokens over the mixers, ``(T, 3)``."""
        return np.mean([getattr(layer, f"{stream}_gates") for layer in self.layers], axis=0)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON types: the sources, and per mixer the gates and the words with a hundredth or more."""
        return {
            "sources": [
                {
                    "text": s.text,
                    "role": s.role,
                    "experts": list(s.experts),
                    "share": round(s.share, 4),
                    "even": round(s.even, 4),
                }
                for s in self.sources()
            ],
            "readings": [asdict(reading) for reading in self.sharpest()],
            "question": list(self.question),
            "words": [word.text for word in self.words] + [MAP],
            "modules": {stream: list(names) for stream, names in MODULES.items()},
            "layers": [_layer(layer) for layer in self.layers],
        }


def build_explanation(
    text: str,
    findings: Sequence[FactSpan],
    spans: Sequence[tuple[int, int]],
    question: Sequence[str],
    layers: Sequence[tuple[int, NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]],
    shares: NDArray[Any],
    grid: tuple[int, int] | None = None,
) -> Explanation:
    """Build an explanation from the attribution of one prompt and the spans of its tokens and facts.

    Args:
        text: the verbalized perception.
        findings: the spans of its facts, from ``find_facts``.
        spans: per token of ``text``, its characters; the other auxiliary tokens are the panoptic map's.
        question: the prompt's text tokens.
        layers, shares: per auxiliary token, as ``moai.model.analysis.attribution.Attribution.row`` gives them.
        grid: rows and columns of the image tokens.
    """
    words = split_words(text, findings)
    matrix = token_word_matrix(words, spans, len(shares) - len(spans))
    by_word = tuple(
        Layer(number, *gates, *(read @ matrix for read in rows)) for number, gates, rows in map(_halves, layers)
    )
    even = matrix.sum(axis=0) / max(1, len(matrix))
    return Explanation(text, words, tuple(findings), tuple(question), by_word, shares @ matrix, even, grid)


def split_words(text: str, findings: Sequence[FactSpan]) -> tuple[Word, ...]:
    """Split ``text`` into words; none lies in two findings."""
    borders = sorted({0, len(text), *(s.start for s in findings), *(s.end for s in findings)})
    words = []
    for low, high in zip(borders, borders[1:], strict=False):
        number = next((n for n, s in enumerate(findings) if s.start <= low and high <= s.end), -1)
        found = (match for match in _WORD.finditer(text, low, high))
        words += [Word(match.group(), match.start(), match.end(), number) for match in found]
    return tuple(words)


def token_word_matrix(words: Sequence[Word], spans: Sequence[tuple[int, int]], maps: int) -> NDArray[Any]:
    """Build the matrix ``(tokens + maps, words + 1)`` that distributes tokens over words; rows sum to one.

    Args:
        words: of the text.
        spans: per token, its characters.
        maps: the number of panoptic map tokens, which follow; the last column is theirs.
    """
    matrix = np.zeros((len(spans) + maps, len(words) + 1))
    matrix[len(spans) :, -1] = 1.0
    starts, ends = (np.array([getattr(word, name) for word in words], dtype=float) for name in ("start", "end"))
    for row, (start, end) in zip(matrix, spans, strict=False):
        shared = np.clip(np.minimum(ends, end) - np.maximum(starts, start), 0, None)
        if not shared.any():  # white space, or a piece of a character: the nearest word
            shared = np.zeros_like(starts)
            shared[np.argmin(np.maximum(starts - end, start - ends))] = 1.0
        row[:-1] = shared / shared.sum()
    return matrix


def _halves(layer: tuple[Any, ...]) -> tuple[int, tuple[Any, ...], tuple[Any, ...]]:
    return layer[0], layer[1:3], layer[3:]


def _layer(layer: Layer) -> dict[str, Any]:
    streams = {"image": layer.image_gates, "question": layer.question_gates}
    read = {"image": layer.image_words, "question": layer.question_words}
    return {
        "layer": layer.layer,
        "gates": {name: np.round(gates, 4).tolist() for name, gates in streams.items()},
        "words": {
            name: [{int(i): round(float(row[i]), 4) for i in np.flatnonzero(row >= 0.01)} for row in rows]
            for name, rows in read.items()
        },
    }
