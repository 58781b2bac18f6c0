"""For pytest: the fixture ``moai_contract``, which checks an expert class or instance against the contract.

Knows: pytest. Installing moai registers it; until a test asks for the fixture it imports nothing of weight::

    def test_contract(moai_contract):
        moai_contract(MyExpert)
"""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def moai_contract() -> Callable[..., None]:
    """``moai.testing.check_expert``: ``moai_contract(MyExpert)`` fails with the sentence that says what is wrong."""
    from moai.testing import check_expert

    def check(*arguments, **settings) -> None:
        __tracebackhide__ = True  # the sentence is what a plugin's author needs, not how it was found
        try:
            check_expert(*arguments, **settings)
        except AssertionError as error:
            pytest.fail(str(error), pytrace=False)

    return check
