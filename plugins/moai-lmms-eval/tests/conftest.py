"""A tiny random run with its expert, and the engine around it."""

import pytest
import tiny
from moai_lmms_eval.engine import Engine

from moai.answering import Augmented
from moai.perception.running.perceiver import Perceiver


@pytest.fixture(scope="session")
def augmented():
    """Random weights, and noise on every adapter: what the experts find changes every logit."""
    model, processor = tiny.made()
    return Augmented(model, processor, Perceiver(["tiny-panoptic"]))


@pytest.fixture
def engine(augmented):
    return Engine(augmented)
