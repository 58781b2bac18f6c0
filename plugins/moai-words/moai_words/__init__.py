"""Register the data set ``words``.

Knows: names. The data set is imported when it is asked for.
"""

from __future__ import annotations

import moai


@moai.hookimpl
def register_datasets(register):
    """Register ``words``."""
    register("words", _words)


def _words(split: str, **options):
    from moai_words.samples import words

    return words(split, **options)
