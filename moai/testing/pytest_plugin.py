"""Provide the pytest fixture ``moai_contract``, which checks an expert class or instance against the contract.

Knows: pytest. Installing moai registers it; until a test uses the fixture it imports nothing heavy::

    def test_contract(moai_contract):
        moai_contract(MyExpert)
"""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def moai_contract() -> Callable[..., None]:
    """Return ``moai.testing.check_expert``: ``moai_contract(MyExpert)`` fails with a sentence about the first break."""
    from moai.testing import check_expert

    def check(*arguments, **settings) -> None:
        __tracebackhide__ = True  # a plugin's author needs the sentence, not the traceback
        try:
            check_expert(*arguments, **settings)
        except AssertionError as error:
            pytest.fail(str(error), pytrace=False)

    return check
