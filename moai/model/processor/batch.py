"""Build batches: the one place where conversations, images and perceptions become tensors.

Knows: encoded conversations, image tensors and auxiliary tensors; nothing of data sets or of the model. Training,
evaluation, answering, the harness adapter and ``MoaiProcessor.__call__`` all build their batches here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from moai.errors import PromptError
from moai.model.processor.image_places import ImagePlaces
from moai.model.processor.packing import join
from moai.model.processor.perceptions import PerceptionEncoder, Perceptions
from moai.model.processor.prompts import IGNORED, Encoded


class Row(NamedTuple):
    """One conversation with what belongs to it, or several without images that are packed."""

    encoded: Encoded
    images: Sequence[Any] = ()
    perceptions: Perceptions = ()
    words_at: int | None = None  # where words stand that go into a prompt without a placeholder; None: nobody knows
    documents: tuple[int, ...] = ()  # tokens of each packed conversation; empty for one that stands alone


def build_batch(
    rows: Sequence[Row],
    images: ImagePlaces,
    perceptions: PerceptionEncoder,
    *,
    image_token_id: int,
    pad_token_id: int,
    max_length: int | None = None,
    labels: bool = False,
) -> dict[str, torch.Tensor]:
    """Build one batch.

    Training batches are padded on the right: with causal attention no row is then fully masked, and a fully masked row
    has no gradient in some attention kernels. Prompts are padded on the left, where generation needs it.

    Args:
        rows: conversations, in the order of the batch.
        images, perceptions: the encoders of both.
        image_token_id, pad_token_id: of the tokenizer.
        max_length: the host's context in tokens; a row has to be shorter.
        labels: add ``labels``, and pad on the right.

    Returns:
        ``input_ids``, ``attention_mask``, ``prompt_mask`` and perhaps ``labels``, all ``(B, S)``, and of packed rows
        ``document_ids``, each token's document from 1, and 0 at padding; the image tensors;
        and the auxiliary tensors of :meth:`PerceptionEncoder.auxiliary`.

    Raises:
        PromptError: a row with another number of placeholders than images or perceptions, or longer than the context.
        ImageError: an image that cannot be read.
    """
    for row in rows:
        _check_counts(row, images, image_token_id)
    places, tensors = images.encode([row.images for row in rows])
    following = iter(places)
    encoded = [_with_places(row.encoded, image_token_id, following) for row in rows]
    encoded = [
        _with_words(one, perceptions.in_prompt(row.perceptions), image_token_id, images, row.words_at)
        for one, row in zip(encoded, rows, strict=True)
    ]
    for one in encoded:
        check_length(len(one.ids), max_length)
    left = not labels
    batch = {
        "input_ids": _pad([one.ids for one in encoded], pad_token_id, left),
        "attention_mask": _pad([(1,) * len(one.ids) for one in encoded], 0, left),
        "prompt_mask": _pad([one.prompt for one in encoded], False, left),
    }
    if any(row.documents for row in rows):
        given = [row.documents or (len(one.ids),) for row, one in zip(rows, encoded, strict=True)]
        ids = [[n for n, count in enumerate(counts, start=1) for _ in range(count)] for counts in given]
        batch["document_ids"] = _pad(ids, 0, left)
    if labels:
        batch["labels"] = _pad([one.labels for one in encoded], IGNORED, left)
    return {**batch, **tensors, **perceptions.auxiliary([row.perceptions for row in rows])}


def packed_rows(rows: Sequence[Row], groups: Sequence[Sequence[int]]) -> list[Row]:
    """Join the rows of each group into one; those of a larger group have no images."""
    made = []
    for group in groups:
        encoded = [rows[index].encoded for index in group]
        documents = tuple(len(one.ids) for one in encoded)
        made.append(rows[group[0]] if len(group) == 1 else Row(join(encoded), documents=documents))
    return made


def without_loss(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a batch from which nothing is learnt: no token carries loss, and no word is an attention target."""
    masked = {**batch, "labels": torch.full_like(batch["labels"], IGNORED)}
    if "attention_targets" in batch:
        masked["attention_targets"] = torch.zeros_like(batch["attention_targets"])
    return masked


def check_length(length: int, limit: int | None) -> None:
    """Refuse what leaves no room for an answer in the host's context.

    Raises:
        PromptError: says both numbers.
    """
    if limit is not None and length >= limit:
        raise PromptError(
            f"the prompt has {length} tokens and the host's context holds {limit}; "
            "shorten the question or use fewer images"
        )


def _check_counts(row: Row, images: ImagePlaces, image_token_id: int) -> None:
    count, given = row.encoded.ids.count(image_token_id), len(row.images)
    if count != images.placeholders(given):
        raise PromptError(
            f"{count} image placeholders for {given} images; host.chat_template must write one for each image"
        )
    if given and row.perceptions and len(row.perceptions) != given:  # without images, truths of any number
        raise PromptError(f"{len(row.perceptions)} perceptions for {given} images; give one per image, or None")


def _with_places(one: Encoded, image_token_id: int, following: Iterator[Sequence[int]]) -> Encoded:
    """Each placeholder replaced by its image's tokens; none of them is a target."""
    if image_token_id not in one.ids:
        return one
    ids: list[int] = []
    labels: list[int] = []
    prompt: list[bool] = []
    for token, label, mixed in zip(*one, strict=True):
        place = next(following) if token == image_token_id else (token,)
        ids += place
        labels += [IGNORED] * len(place) if token == image_token_id else [label]
        prompt += [mixed] * len(place)
    return Encoded(tuple(ids), tuple(labels), tuple(prompt))


def _with_words(
    one: Encoded, words: list[int], image_token_id: int, images: ImagePlaces, words_at: int | None
) -> Encoded:
    """The words of a perception after the last image, and after the tokens that close it; or at ``words_at``."""
    if not words:
        return one
    if image_token_id in one.ids:
        at = len(one.ids) - one.ids[::-1].index(image_token_id)
        at += images.closing(one.ids[at:])
    elif words_at is not None:
        at = words_at
    else:
        raise PromptError(
            "this run puts words into the prompt (perception.inject), and a rendered prompt without an image "
            "placeholder does not say where; use moai.load(run).ask, or processor.batch"
        )
    added = Encoded(tuple(words), (IGNORED,) * len(words), (True,) * len(words))
    return Encoded(*(part[:at] + new + part[at:] for part, new in zip(one, added, strict=True)))


def _pad(rows: Sequence[Sequence[Any]], value: Any, left: bool) -> torch.Tensor:
    width = max(len(row) for row in rows)
    padding = [[value] * (width - len(row)) for row in rows]
    return torch.tensor([[*pad, *row] if left else [*row, *pad] for row, pad in zip(rows, padding, strict=True)])
