"""Divide a vocabulary into texts that the Grounding-DINO family can read, and map tokens back to names.

Knows: that the family reads all names in one text, ``"cat. dog."``, of at most 256 tokens; that "." and "?" separate
names there; and that its scores are per token. Names are found again by position between separators, never by
decoding phrases, which may join two names or break one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from moai.errors import ExpertError

SEPARATORS = ".?"
FRAME = 2  # [CLS] and [SEP]


def written(name: str) -> str:
    """Write the name as the text holds it: lower case, separators replaced by spaces.

    Raises:
        ExpertError: nothing is left.
    """
    plain = " ".join(name.lower().translate({ord(mark): " " for mark in SEPARATORS}).split())
    if not plain:
        raise ExpertError(f"the vocabulary's name '{name}' holds nothing but separators; write it in words")
    return plain


def chunks(names: Sequence[str], count: Callable[[str], int], tokens: int, most: int) -> list[list[int]]:
    """Group the indices of ``names``, in order, so that each group fits one text.

    Args:
        names: the vocabulary, as :func:`written` gives it.
        count: tokens of a name, without any frame.
        tokens: that the model reads at once.
        most: names per group, at most.

    Raises:
        ExpertError: one name alone does not fit.
    """
    groups: list[list[int]] = []
    room = 0
    for index, name in enumerate(names):
        need = count(name) + 1  # and its separator
        if need + FRAME > tokens:
            raise ExpertError(f"the model reads {tokens} tokens at once, and '{name}' alone has {need - 1}; shorten it")
        if not groups or need > room or len(groups[-1]) >= most:
            groups.append([])
            room = tokens - FRAME
        groups[-1].append(index)
        room -= need
    return groups


def text_of(names: Sequence[str]) -> str:
    """Write one text of several written names."""
    return ". ".join(names) + "."


def token_labels(ids: Sequence[int], separator: int, count: int) -> np.ndarray:
    """Label each token with the index of its name, -1 for frame and separators: ``(len(ids),)``.

    Args:
        ids: one text's token ids, with its frame of one token on either side.
        separator: id of ".".
        count: names in the text.

    Raises:
        ExpertError: the text does not hold ``count`` names, so that no token can be led back to one.
    """
    labels = np.full(len(ids), -1, dtype=np.int64)
    current = 0
    for position in range(1, len(ids) - 1):
        if ids[position] == separator:
            current += 1
        else:
            labels[position] = current
    if current != count or len(np.unique(labels[labels >= 0])) != count:
        raise ExpertError(f"the tokenizer made {current} names of {count}; the vocabulary holds one it cannot read")
    return labels


def name_scores(probabilities: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Compute ``(Q, count)``: for each query and name the highest probability among the name's tokens.

    Args:
        probabilities: ``(Q, T)`` per token; columns beyond ``len(labels)`` are padding.
        labels: from :func:`token_labels`.
        count: names.
    """
    columns = [probabilities[:, : len(labels)][:, labels == index].max(axis=1) for index in range(count)]
    return np.stack(columns, axis=1)
