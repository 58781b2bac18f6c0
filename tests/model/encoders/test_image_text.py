"""The text of each image: the words of its own turn, in order, whatever the rows, turns and padding."""

import pytest
import torch
from torch import nn

from moai.errors import PromptError
from moai.model.encoders.image_text import image_texts

IMAGE, TOKENS = 99, 2


def texts(*rows):
    """The words of each image; in a row ``i`` is an image, ``a`` an answer's token, ``.`` padding, a digit a word."""
    width = max(len(row) + row.count("i") * (TOKENS - 1) for row in rows)
    ids, words = [], []
    for row in rows:
        spread = row.replace("i", "i" * TOKENS).ljust(width, ".")
        ids.append([IMAGE if c == "i" else int(c) if c.isdigit() else 0 for c in spread])
        words.append([c.isdigit() for c in spread])
    ids, words = torch.tensor(ids), torch.tensor(words)
    table = nn.Embedding.from_pretrained(torch.arange(10.0)[:, None].expand(10, 3))
    found = image_texts(table, ids == IMAGE, words, ids, TOKENS)
    assert found.embeddings.shape == (*found.mask.shape, 3)
    return [
        "".join(str(int(v)) for v in row[kept][:, 0]) for row, kept in zip(found.embeddings, found.mask, strict=True)
    ]


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        (["1i23"], ["123"]),
        (["1i23aa4i5aa6"], ["123", "45"]),
        (["1i2i3aa4"], ["123", "123"]),
        (["12aa3", "4i5aa", "67"], ["45"]),
        (["1aaai5", "9i", "i8aa7"], ["5", "9", "8"]),
        (["..1i2aa3i", "4i5"], ["12", "3", "45"]),
        (["12"], []),
    ],
)
def test_an_images_text_is_that_between_two_answers(rows, wanted):
    assert texts(*rows) == wanted


@pytest.mark.parametrize(("rows", "row"), [(["1i", "i"], 1), (["1aaiaa2"], 0), (["1i", "2aai", "i"], 1)])
def test_an_image_in_a_turn_without_a_word_is_refused(rows, row):
    with pytest.raises(PromptError, match=f"row {row} has an image in a turn without any; write a question beside"):
        texts(*rows)
