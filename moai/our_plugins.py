"""Which of our own plugins brings what, so that a name that is not installed gets the command that installs it.

Knows: names of distributions. A test compares the table with what the plugins register.
"""

from __future__ import annotations

from collections.abc import Mapping

BROUGHT: Mapping[str, Mapping[str, str]] = {  # kind of thing -> its name -> the distribution of ours that registers it
    "command": {
        "import-official": "moai-official",
        "mm1-upcycle": "moai-mm1",
        "serve": "moai-serve",
        "studio": "moai-studio",
    },
    "connector": {
        "attention_pooling": "moai-mm1",
        "c_abstractor": "moai-mm1",
        "kosmos": "moai-kosmos",
        "parrot": "moai-parrot",
    },
    "data set": {
        "easy-vqa": "moai-easy-vqa",
        "kosmos-twin": "moai-kosmos",
        "mm1-documents": "moai-mm1",
        "photographs": "moai-photographs",
        "raven": "moai-kosmos",
        "scenes": "moai-scenes",
        "words": "moai-words",
    },
    "expert": {
        "easyocr": "moai-easyocr",
        "eomt": "moai-transformers",
        "geometry": "moai-geometry",
        "grounding-dino": "moai-transformers",
        "llmdet": "moai-transformers",
        "mask2former": "moai-transformers",
        "mm-grounding-dino": "moai-transformers",
        "omdet-turbo": "moai-transformers",
        "opencv-detector": "moai-opencv",
        "owlv2": "moai-transformers",
        "panoptic-fpn": "moai-detectron2",
        "precomputed": "moai-precomputed",
        "predicates": "moai-transformers",
        "psgtr": "moai-psgtr",
        "rapidocr": "moai-rapidocr",
        "shapes": "moai-shapes",
        "ssd-coco": "moai-opencv",
        "tag-regions": "moai-tags",
        "tags": "moai-tags",
        "tally": "moai-tally",
        "yolo-world": "moai-ultralytics",
        "yoloe": "moai-ultralytics",
    },
    "host": {"mm1_moe_llama": "moai-mm1", "moai_kosmos": "moai-kosmos", "moai_plora_llama": "moai-official"},
    "recipe": {
        "kosmos-1": "moai-kosmos",
        "kosmos-1-twin": "moai-kosmos",
        "kosmos-1-twin-text": "moai-kosmos",
        "llava-twin-multilingual": "moai-parrot",
        "mm1-30b": "moai-mm1",
        "mm1-3b": "moai-mm1",
        "mm1-3b-tiles": "moai-mm1",
        "mm1-7b": "moai-mm1",
        "mm1-twin": "moai-mm1",
        "official": "moai-official",
        "parrot": "moai-parrot",
        "parrot-twin": "moai-parrot",
        "photos": "moai-words",
        "quickstart": "moai-words",
        "quickstart-prompt": "moai-words",
        "scenes": "moai-scenes",
        "scenes-connector-only": "moai-scenes",
        "scenes-prompt": "moai-scenes",
    },
}


def how_to_install(kind: str, name: str) -> str | None:
    """Return the command that installs what brings a name, ``None`` where no plugin of ours does.

    Args:
        kind: ``"command"``, ``"connector"``, ``"data set"``, ``"expert"``, ``"host"`` (a model type) or ``"recipe"``.
        name: as it was asked for.
    """
    distribution = BROUGHT[kind].get(name)
    return None if distribution is None else f"pip install {distribution}"
