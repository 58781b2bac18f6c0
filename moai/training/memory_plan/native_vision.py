"""Count the tokens of a picture for a host with its own vision.

Knows: the host's configuration and processor files; its weights are not needed, and those of a hub id not downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image
from transformers import PreTrainedConfig

from moai.assets.resolver import resolve
from moai.errors import AssetError, HostError, RecipeError
from moai.model.host.native_vision import host_image_token
from moai.model.processor.image_places import HostImagePlaces
from moai.recipe.schema import Recipe
from moai.training.build import host_processor

PICTURE = (640, 480)  # pixels: width, height


def refuse_shapes(**shapes: str | None) -> None:
    """A shape stands for a Llama or a CLIP, and neither of them is a vision-language model.

    Raises:
        RecipeError: names the option.
    """
    for name, given in shapes.items():
        if given:
            option = f"--{name.replace('_', '-')}"
            raise RecipeError(
                f"{option} cannot describe a host with its own vision (vision.kind: host); leave it out, "
                "and give in host.reference a folder with the host's config.json and processor files"
            )


def host_image_tokens(recipe: Recipe, config: PreTrainedConfig, picture: tuple[int, int]) -> int:
    """How many tokens the host's processor makes of a blank picture.

    Args:
        recipe: with ``vision.kind: host``.
        config: the host's.
        picture: width and height in pixels.

    Raises:
        AssetError: there are no processor files.
    """
    reference, revision = recipe.host.reference, recipe.host.revision
    here = Path(reference).expanduser().exists() or ":" in reference
    try:
        own = host_processor(reference, resolve(reference) if here else reference, revision)
    except HostError as error:
        raise AssetError(f"{error}; a plan needs these files to know how many tokens a picture is") from None
    [place], _ = HostImagePlaces(own).encode([[Image.new("RGB", picture)]])
    return len(place)


def host_vision(config: PreTrainedConfig) -> dict[str, Any]:
    """The fields of ``MoaiConfig`` for a host with its own vision."""
    return {"vision": {"kind": "host"}, "image_token_id": host_image_token(config)}
