"""Long commands say what they load at once: before torch is imported, and without transformers' own bars."""

from __future__ import annotations

import sys

import pytest

from moai.compat import without_bars


@pytest.mark.parametrize(
    "words,first",
    [
        (("train", "no-such-recipe"), "loading the recipe no-such-recipe"),
        (("eval", "."), "loading the run ."),
        (("quickstart", "--recipe", "no-such-recipe"), "loading the recipe no-such-recipe"),
    ],
)
def test_the_first_line_says_what_is_loaded(run_cli, tmp_path, monkeypatch, words, first):
    monkeypatch.chdir(tmp_path)
    for module in ("moai.recipe.loading", "moai.evaluation.evaluate", "moai.training.trainer"):
        monkeypatch.setitem(sys.modules, module, None)  # an import of it ends the command here
    result = run_cli(*words)
    assert isinstance(result.exception, ImportError)
    assert result.stderr.splitlines()[0] == first


def test_transformers_bars_are_off_while_weights_load_and_on_again_after():
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    try:
        with pytest.raises(KeyError), without_bars():
            assert not logging.is_progress_bar_enabled()
            raise KeyError
        assert logging.is_progress_bar_enabled()
    finally:
        if not before:
            logging.disable_progress_bar()
