"""Put tags into words: ``The picture shows fruit, and lemon.``, or ``the picture shows fruit, lemon.`` in few tokens.

Knows: one sentence per language, made as the core's: labels are neither translated nor inflected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moai.plugin_api import clean_label
from moai.types import Perception

ROLE = "tags"


@dataclass(frozen=True)
class Sentence:
    """Hold a sentence that ends with a list, and how the list is written."""

    start: str
    comma: str = ", "
    last: str = ", "
    stop: str = "."

    def __call__(self, perception: Perception) -> str:
        """Write the tags of a perception, the most certain first; nothing where there is none."""
        tags = [tag for note in perception.notes.get(ROLE, ()) if (tag := clean_label(note))]
        if not tags:
            return ""
        listed = f"{self.comma.join(tags[:-1])}{self.last}{tags[-1]}" if len(tags) > 1 else tags[0]
        return f"{self.start}{listed}{self.stop}"


TEMPLATES: dict[str, Callable[[Perception], str]] = {
    "en": Sentence("The picture shows ", last=", and "),
    "en-x-compact": Sentence("the picture shows "),
    "ko": Sentence("이미지에 나타난 것: ", last=" 및 "),
    "zh": Sentence("图像显示：", comma="，", last="，以及", stop="。"),
    "ja": Sentence("画像に写っているもの：", comma="、", last="、および", stop="。"),
    "ar": Sentence("تُظهر الصورة: ", comma="؛ ", last="؛ "),
    "pt": Sentence("A imagem mostra: ", last=" e "),
    "ru": Sentence("На изображении показано: ", last=" и "),
    "tr": Sentence("Görüntüde görülenler: ", last=" ve "),
}
