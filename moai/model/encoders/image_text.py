"""The text of each image of a batch, for connectors that read it.

Knows: tensors. An image's text is that of its turn: the prompt's words between the answer before the image and the
answer after it, which for a first turn includes the system prompt. No answer is in it and no later turn, so that the
text is the same in training, for a prompt that ends with the turn, and for one that goes on from a cache.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from moai.errors import PromptError
from moai.model.encoders.connectors import TextInput
from moai.model.mixer.forward_context import locate, segments


def image_texts(table: nn.Module, is_image: Tensor, words: Tensor, input_ids: Tensor, tokens: int) -> TextInput:
    """Embed the text of each image's turn.

    Args:
        table: the host's word embeddings.
        is_image: ``(B, S)`` bool, true at placeholders, ``tokens`` for each image.
        words: ``(B, S)`` bool, true at the prompt's words; neither at images, answers nor padding.
        input_ids: ``(B, S)``.

    Returns:
        The texts of all ``N`` images, in the order of their placeholders.

    Raises:
        PromptError: an image stands in a turn without any word.
    """
    rows, masks = segments(words | is_image, None)
    rows = torch.arange(len(input_ids), device=input_ids.device) if rows is None else rows
    row, column = is_image.nonzero()[::tokens].unbind(dim=1)  # where each image begins
    inside = masks[:, column].T & (rows == row[:, None])  # (N, segments)
    own = masks[inside.long().argmax(dim=1)] & words[row]  # (N, S)
    index, mask = locate(own)
    if not bool(mask.any(dim=1).all()):
        empty = int(row[~mask.any(dim=1)][0])
        raise PromptError(
            f"the connector reads the text of an image's turn, and row {empty} has an image in a turn without any; "
            "write a question beside the image, or train documents with a connector that reads no text"
        )
    ids = input_ids[row].gather(1, index).masked_fill(~mask, 0)
    return TextInput(table(ids), mask)
