"""What a user can get wrong. Every message names the fix.

Knows: nothing of the rest of the package. Each class is one kind of mistake, so that a caller can catch one kind;
the command line prints the message and exits with code 1, without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MoaiError(Exception):
    """Base of all errors that a user can fix; the message is one or two sentences and names the fix."""


class ImageError(MoaiError):
    """An image that cannot be read: missing, truncated, empty, zero-sized, or far too large."""


class PluginError(MoaiError):
    """A plugin that does not load, registers a bad class, or reuses a name that is taken."""


class ExpertError(MoaiError):
    """An expert that is unknown, not installed, or returned a perception that breaks the contract."""


class RecipeError(MoaiError):
    """A recipe that cannot be used: unknown key, wrong type, duplicate key, missing file."""


class DataError(MoaiError):
    """A row of a data file that cannot be trained on, or a data file that cannot be read; names file and line.

    ``problem`` is the kind of it in a few words, by which ``moai data check`` counts.
    """

    def __init__(self, message: str, problem: str = "row that does not fit its format") -> None:
        super().__init__(message)
        self.problem = problem


class AssetError(MoaiError):
    """A model, data set or wheel that cannot be found, downloaded or verified."""


class CheckpointError(MoaiError):
    """A run folder with a missing, altered or incompatible file."""


class CorpusError(MoaiError):
    """A corpus that cannot be perceived or read: other images or experts than before, unfinished, or damaged."""


class TrainingError(MoaiError):
    """A training that cannot go on: a loss that is not finite, or a process that is gone."""


class HostError(MoaiError):
    """A language model that the mixers cannot be grafted on."""


class DependencyError(MoaiError):
    """A distribution whose dependencies cannot be read: not installed, or with damaged metadata."""


class PromptError(MoaiError):
    """A prompt that cannot be answered: too long for the host, or images and placeholders that do not match."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest of ``known``, or a list of them when none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""
