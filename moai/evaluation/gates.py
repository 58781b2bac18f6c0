"""Sample the gates: histograms of each module's weight per mixer layer, for the report.

Knows: samples, perceptions, numpy, and something that hands out gate weights (``moai.answering.Augmented``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moai.types import Perception, Sample

BINS = 20  # over [0, 1]
QUESTIONS = 64
STREAMS = {"image": ("auxiliary", "language", "image"), "language": ("auxiliary", "image", "language")}


def sample_gates(
    answerer: Any, samples: Sequence[Sample], perceptions: Mapping[str, Perception], batch_size: int = 32
) -> dict[str, Any] | None:
    """Make histograms of the gates' weights while evenly spaced questions are read with perception on.

    Args:
        answerer: its ``gate_weights(conversations, perceptions)`` gives layer -> weights of image tokens
            ``(N, 3)`` and of question tokens ``(M, 3)``.
        samples, perceptions: as for ``run_conditions``.
        batch_size: questions at a time.

    Returns:
        ``questions`` (how many were read) and ``layers``: a list of ``layer``, and per stream (``image``,
        ``language``) per module the ``mean`` weight and the ``histogram``: shares of the tokens in ``BINS`` equal bins
        of [0, 1]. Without any image token there is no stream ``image``. None for an answerer without gates.
    """
    weigh = getattr(answerer, "gate_weights", None)
    if weigh is None:
        return None
    step = max(1, -(-len(samples) // QUESTIONS))
    chosen = samples[::step]
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for start in range(0, len(chosen), batch_size):
        batch = chosen[start : start + batch_size]
        asked = [sample.prompts[0] for sample in batch]
        given = [[perceptions[image] for image in ids] for _, ids in asked]
        for layer, pair in weigh([prompt for prompt, _ in asked], given).items():
            found.setdefault(layer, []).append(pair)
    if not found:
        return None
    layers = [{"layer": layer, **_streams(parts)} for layer, parts in sorted(found.items())]
    return {"questions": len(chosen), "layers": layers}


def _streams(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    weights = dict(zip(STREAMS, map(np.concatenate, zip(*parts, strict=True)), strict=True))
    return {
        stream: {
            module: {"mean": float(column.mean()), "histogram": _histogram(column)}
            for module, column in zip(modules, weights[stream].T, strict=True)
        }
        for stream, modules in STREAMS.items()
        if len(weights[stream])
    }


def _histogram(values: np.ndarray) -> list[float]:
    counts, _ = np.histogram(values, bins=BINS, range=(0.0, 1.0))
    return [round(float(share), 6) for share in counts / max(1, len(values))]
