"""One tiny model with its processor per test file."""

import pytest
import tiny


@pytest.fixture(scope="module")
def built():
    return tiny.made()


@pytest.fixture
def model(built):
    return built[0]


@pytest.fixture
def processor(built):
    return built[1]
