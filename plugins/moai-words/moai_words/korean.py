"""Write phrases of Korean questions: names with the particle that their last syllable asks for, and places.

Knows: vocabulary and grammar. Names without a translation stay English, as Korean speakers write them.
"""

from __future__ import annotations

PARTICLES = {"은": ("은", "는"), "이": ("이", "가"), "을": ("을", "를")}  # after a consonant, after a vowel
PLACES = {
    "top left": "왼쪽 위",
    "top": "위쪽",
    "top right": "오른쪽 위",
    "left": "왼쪽",
    "center": "가운데",
    "right": "오른쪽",
    "bottom left": "왼쪽 아래",
    "bottom": "아래쪽",
    "bottom right": "오른쪽 아래",
}
BESIDE = {  # relation -> what follows a name, up to the verb
    "left of": "의 왼쪽에",
    "right of": "의 오른쪽에",
    "above": "의 위쪽에",
    "below": "의 아래쪽에",
    "next to": " 옆에",
    "on": " 위에",
    "inside": " 안에",
    "touching": "에 닿아",
}
COLORS = {
    "red": "빨간",
    "blue": "파란",
    "green": "초록색",
    "yellow": "노란",
    "black": "검은",
    "white": "하얀",
    "brown": "갈색",
    "pink": "분홍색",
    "purple": "보라색",
    "grey": "회색",
}


def with_particle(name: str, particle: str) -> str:
    """Append one of `PARTICLES` in the form that the name's last syllable asks for; both for a foreign word."""
    consonant, vowel = PARTICLES[particle]
    syllable = ord(name[-1]) - 0xAC00
    if not 0 <= syllable < 11172:  # the block of precomposed syllables
        return f"{name}{consonant}({vowel})"
    return f"{name}{consonant if syllable % 28 else vowel}"
