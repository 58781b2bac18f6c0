"""The two arithmetics of mixers and compressor: ours, and that of the published code.

Knows: names only; neither torch nor the schema of recipes. ``published`` is the arithmetic of
github.com/ByungKwanLee/MoAI at a7728a8: a GELU after every projection, mixers on the normed input of self-attention,
tokens as they are, a random start; in the compressor no positions, no padding mask, and learned latents; auxiliary word
embeddings as they are. ``moai`` is described in :class:`~moai.model.mixer.mixer.Mixer` and
:class:`~moai.model.encoders.compressor.Compressor`.
"""

from __future__ import annotations

from moai.errors import RecipeError, nearest

NAMES = ("moai", "published")
# Keys that only our arithmetic has.
OURS = (
    "qk_norm_scale", "tie_qk_at_init", "null_token", "question_context", "copy_words", "answer_tokens", "copy_next",
    "match_words",
)  # fmt: skip  # of a mixer


def is_published(arithmetic: str) -> bool:
    """Return whether this is the published arithmetic.

    Raises:
        RecipeError: there is no such arithmetic.
    """
    if arithmetic not in NAMES:
        raise RecipeError(f"there is no arithmetic '{arithmetic}'{nearest(arithmetic, NAMES)}")
    return arithmetic == "published"
