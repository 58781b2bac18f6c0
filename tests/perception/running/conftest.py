"""No test of the runner starts with an expert of another one loaded."""

import pytest
from fake_experts import Heavy


@pytest.fixture(autouse=True)
def nobody_loaded():
    Heavy.loaded.clear()
    Heavy.together = 0
