"""Names of a module that are imported on first use."""

import sys
from types import ModuleType

import pytest

from moai.lazy_names import lazy_names


@pytest.fixture
def module(monkeypatch):
    made = ModuleType("lazy_example")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    made.__getattr__, made.__dir__ = lazy_names(made.__name__, {"sqrt": "math", "missing": "math"})
    return made


def test_a_name_is_imported_once_and_then_held(module):
    import math

    assert "sqrt" not in vars(module)
    assert module.sqrt is math.sqrt
    assert vars(module)["sqrt"] is math.sqrt


def test_the_names_are_listed_before_they_are_imported(module):
    assert {"sqrt", "missing", "__name__"} <= set(dir(module))


def test_a_name_that_nobody_has_is_an_attribute_error(module):
    with pytest.raises(AttributeError, match="module 'lazy_example' has no attribute 'sqr'"):
        _ = module.sqr
    with pytest.raises(AttributeError, match="missing"):
        _ = module.missing
