"""Image input: features in the place of placeholders, in order; and the host's own vision handed what it needs."""

from __future__ import annotations

import pytest
import tiny
import torch

from moai.errors import HostError, PromptError
from moai.model.encoders.image_input import EncoderImages, HostImages
from moai.model.mixer.inputs import Prompt

WORD = 70


@pytest.fixture(scope="module")
def images(built):
    model, _ = built
    assert isinstance(model.images, EncoderImages)
    return model.images


@pytest.fixture(scope="module")
def built():
    return tiny.made()


@pytest.fixture
def pixels(built):
    colors = ("red", "green", "blue")
    return built[1].image_processor(images=[tiny.picture(color) for color in colors], return_tensors="pt")[
        "pixel_values"
    ]


def ids_of(images, *rows):
    """Rows of words and images: ``"w"`` is a word, ``"i"`` the placeholders of one image; padded with words."""
    made = [
        [n for part in row for n in ([WORD] if part == "w" else [images.image_token_id] * images.image_tokens)]
        for row in rows
    ]
    return torch.tensor([row + [WORD] * (max(map(len, made)) - len(row)) for row in made])


def prompt_of(images, ids):
    return Prompt(ids, None, ids == images.image_token_id, ids != images.image_token_id)


@torch.no_grad()
def test_each_image_stands_in_its_own_place_whatever_the_rows_hold(images, pixels):
    alone = [images.encode(one[None], ids_of(images, "i"))[0] for one in pixels]
    ids = ids_of(images, "wiwiw", "w", "iww")
    found = images.host_inputs(prompt_of(images, ids), pixels, None, None, {})["inputs_embeds"]
    words = images.host.get_input_embeddings()(torch.tensor(WORD))
    tokens = images.image_tokens
    assert torch.allclose(found[0, 1 : 1 + tokens], alone[0], rtol=1e-4, atol=1e-3)
    assert torch.allclose(found[0, 2 + tokens : 2 + 2 * tokens], alone[1], rtol=1e-4, atol=1e-3)
    assert torch.allclose(found[2, :tokens], alone[2], rtol=1e-4, atol=1e-3)
    assert not torch.allclose(alone[0], alone[1], atol=1e-3), "the test's pictures look alike to the encoder"
    assert torch.equal(found[ids == WORD], words.expand_as(found[ids == WORD]))


@torch.no_grad()
def test_features_given_once_are_those_of_the_pixels(images, pixels):
    ids = ids_of(images, "wi", "iw", "wi")
    by_pixels = images.host_inputs(prompt_of(images, ids), pixels, None, None, {})["inputs_embeds"]
    features = images.encode(pixels, ids)
    assert torch.equal(images.host_inputs(prompt_of(images, ids), None, features, None, {})["inputs_embeds"], by_pixels)


@torch.no_grad()
def test_a_dropped_row_has_the_connectors_constant_and_nothing_of_its_picture(images, pixels):
    ids = ids_of(images, "i", "i", "i")
    kept = images.encode(pixels, ids)
    dropped = images.encode(pixels, ids, keep=torch.tensor([True, False, False]))
    assert torch.equal(dropped[0], kept[0]) and torch.equal(dropped[1], dropped[2])
    assert not torch.equal(dropped[1], kept[1])


def test_placeholders_and_images_that_do_not_match_are_refused(images, pixels):
    ids = ids_of(images, "wi", "wi")
    with pytest.raises(PromptError, match=f"{2 * images.image_tokens} image placeholders for 3 images of"):
        images.encode(pixels, ids)
    with pytest.raises(PromptError, match="placeholders and no pixel_values; pass the images too"):
        images.host_inputs(prompt_of(images, ids), None, None, None, {})


def test_generation_after_a_cache_encodes_only_the_images_after_it(images, pixels):
    ids = ids_of(images, "iwi")
    past = images.image_tokens + 1
    given = {"pixel_values": pixels[:2], "prompt_mask": torch.ones_like(ids)}
    with torch.no_grad():
        images.encode_once(ids, past, given)
        expected = images.encode(pixels[1:2], ids[:, past:])
    assert "pixel_values" not in given and torch.equal(given["image_features"], expected)


def test_the_hosts_own_vision_gets_pixels_as_they_are_and_drops_nothing(images, pixels):
    own = HostImages(images.host, images.image_token_id)
    ids = ids_of(images, "wi")
    given = own.host_inputs(prompt_of(images, ids), pixels[:1], None, None, {})
    assert set(given) == {"input_ids", "pixel_values"} and given["pixel_values"] is not None
    assert torch.equal(given["input_ids"], ids) and not own.adapters()
    with pytest.raises(HostError, match="image dropout needs an encoder of ours"):
        own.host_inputs(prompt_of(images, ids), pixels[:1], None, torch.tensor([False]), {})
    with pytest.raises(HostError, match="panoptic maps need an encoder of ours"):
        own.encode_maps(pixels)
    with pytest.raises(PromptError, match="no pixel_values"):
        own.host_inputs(prompt_of(images, ids), None, None, None, {})
