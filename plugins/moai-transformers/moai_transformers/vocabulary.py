"""Read an open-world detector's vocabulary: names from a list, a file, or a built-in list.

Knows: strings and files. The built-in names are COCO's 80; longer lists (ADE20K's and ImageNet's, as MoAI's
authors use them) have terms of their own and are read from the user's file.
"""

from __future__ import annotations

from pathlib import Path

from moai.errors import ExpertError, nearest
from moai.plugin_api import identify
from moai.types import MAX_TEXT
from moai_transformers.coco import THINGS

Vocabulary = str | tuple[str, ...]
BUILT_IN = {"coco": THINGS}


def names_of(vocabulary: Vocabulary) -> tuple[str, ...]:
    """List the names, stripped, in order, each once (compared without case).

    Args:
        vocabulary: names, the name of a built-in list, or the path of a UTF-8 text file with one name per line.

    Raises:
        ExpertError: no such list or file, no names in it, or a name that is too long.
    """
    items = _read(vocabulary) if isinstance(vocabulary, str) else vocabulary
    names: dict[str, str] = {}
    for item in items:
        name = " ".join(item.split())
        if len(name) > MAX_TEXT:
            raise ExpertError(f"the vocabulary's name '{name[:40]}...' has {len(name)} characters; at most {MAX_TEXT}")
        if name:
            names.setdefault(name.lower(), name)
    if not names:
        raise ExpertError("the vocabulary is empty; name what shall be found, e.g. [person, dog], or 'coco'")
    return tuple(names.values())


def vocabulary_id(vocabulary: Vocabulary) -> str:
    """Identify what the option does not hold itself: the hash of the vocabulary's file, if it is one."""
    is_file = isinstance(vocabulary, str) and vocabulary not in BUILT_IN and Path(vocabulary).expanduser().is_file()
    return identify(vocabulary) if is_file else ""


def _read(text: str) -> tuple[str, ...]:
    if text in BUILT_IN:
        return BUILT_IN[text]
    path = Path(text).expanduser()
    if not path.is_file():
        raise ExpertError(
            f"the vocabulary '{text}' is neither a built-in list nor a file{nearest(text, BUILT_IN)}; "
            "write a list of names, or the path of a text file with one name per line"
        )
    try:
        return tuple(path.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ExpertError(f"the vocabulary {path} cannot be read as UTF-8 text: {error}") from error
