"""Which of our own plugins brings what, so that a name that is not installed gets the command that installs it.

Knows: names of distributions. A test compares the table with what the plugins register.
"""

from __future__ import annotations

from collections.abc import Mapping

BROUGHT: Mapping[str, Mapping[str, str]] = {  # kind of thing -> its name -> the distribution of ours that registers it
    "command": {"import-official": "moai-official", "mm1-upcycle": "moai-mm1"},
    "data set": {"easy-vqa": "moai-easy-vqa", "mm1-documents": "moai-mm1", "scenes": "moai-scenes"},
    "expert": {
        "easyocr": "moai-easyocr",
        "eomt": "moai-transformers",
        "geometry": "moai-geometry",
        "grounding-dino": "moai-transformers",
        "llmdet": "moai-transformers",
        "mask2former": "moai-transformers",
        "mm-grounding-dino": "moai-transformers",
        "omdet-turbo": "moai-transformers",
        "owlv2": "moai-transformers",
        "panoptic-fpn": "moai-detectron2",
        "predicates": "moai-transformers",
        "psgtr": "moai-psgtr",
        "rapidocr": "moai-rapidocr",
        "shapes": "moai-shapes",
        "tally": "moai-tally",
        "yolo-world": "moai-ultralytics",
        "yoloe": "moai-ultralytics",
    },
    "host": {"mm1_moe_llama": "moai-mm1", "moai_plora_llama": "moai-official"},
    "recipe": {
        "mm1-30b": "moai-mm1",
        "mm1-3b": "moai-mm1",
        "mm1-3b-tiles": "moai-mm1",
        "mm1-7b": "moai-mm1",
        "mm1-twin": "moai-mm1",
        "official": "moai-official",
        "scenes": "moai-scenes",
        "scenes-connector-only": "moai-scenes",
        "scenes-prompt": "moai-scenes",
    },
}


def how_to_install(kind: str, name: str) -> str | None:
    """Return the command that installs what brings a name, ``None`` where no plugin of ours does.

    Args:
        kind: ``"command"``, ``"data set"``, ``"expert"``, ``"host"`` (a model type) or ``"recipe"``.
        name: as it was asked for.
    """
    distribution = BROUGHT[kind].get(name)
    return None if distribution is None else f"pip install {distribution}"
