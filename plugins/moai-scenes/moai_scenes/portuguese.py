"""Write phrases of Portuguese questions about `scenes`: names that agree in gender and number, with their articles.

Knows: vocabulary and grammar; wordings that are right in Portugal and in Brazil alike.
"""

from __future__ import annotations

FEMININE = {"star"}  # and "forma", a shape of any kind; the other shapes are masculine
SHAPES = {"circle": "círculo", "square": "quadrado", "triangle": "triângulo", "star": "estrela"}
COLORS = {  # name -> masculine, feminine, masculine plural, feminine plural
    "red": ("vermelho", "vermelha", "vermelhos", "vermelhas"),
    "orange": ("laranja",) * 4,  # named by the fruit, and so invariable
    "yellow": ("amarelo", "amarela", "amarelos", "amarelas"),
    "green": ("verde", "verde", "verdes", "verdes"),
    "blue": ("azul", "azul", "azuis", "azuis"),
    "purple": ("roxo", "roxa", "roxos", "roxas"),
}
PLACES = {"left of": "à esquerda d", "right of": "à direita d", "above": "acima d", "below": "abaixo d"}
WORD_PLACES = {"upper": "de cima", "lower": "de baixo"}


def name_of(name: str) -> str:
    """Translate a name such as ``"red star"``: ``estrela vermelha``."""
    color, shape = name.split()
    return f"{SHAPES[shape]} {COLORS[color][shape in FEMININE]}"


def a(name: str) -> str:
    """With the indefinite article: ``uma estrela vermelha``."""
    return f"{'uma' if _is_feminine(name) else 'um'} {name_of(name)}"


def the(name: str) -> str:
    """With the definite article: ``a estrela vermelha``."""
    return f"{_article(name)} {name_of(name)}"


def the_shape(shape: str) -> str:
    """A shape of any colour, with the definite article: ``a estrela``."""
    return f"{_article(shape)} {SHAPES[shape]}"


def beside(predicate: str, name: str) -> str:
    """Where something is: ``à esquerda da estrela vermelha``; the preposition and the article are one word."""
    return f"{PLACES[predicate]}{the(name)}"


def how_many(counted: str) -> str:
    """Ask for a number of a shape or of a colour: ``Quantas estrelas``, ``Quantas formas vermelhas``."""
    if counted in SHAPES:
        return f"{'Quantas' if counted in FEMININE else 'Quantos'} {SHAPES[counted]}s"
    return f"Quantas formas {COLORS[counted][3]}"


def _article(name: str) -> str:
    return "a" if _is_feminine(name) else "o"


def _is_feminine(name: str) -> bool:
    return name.split()[-1] in FEMININE
