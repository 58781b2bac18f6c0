"""A tiny random run, and a server of it on loopback, made once."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn", reason="moai-serve is not installed with its dependencies: pip install moai-serve")

import tiny  # noqa: E402
import torch  # noqa: E402
from running_server import running  # noqa: E402

import moai  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def augmented():
    """Random weights, and noise on every adapter: what the experts find changes every logit."""
    model, processor = tiny.made()
    return moai.Augmented(model.fix_adapters(), processor, moai.Perceiver(["tiny-panoptic"]))


@pytest.fixture(scope="session")
def served(augmented):
    with running(augmented) as made:
        yield made


@pytest.fixture(scope="session")
def client(served):
    return served.client()


@pytest.fixture
def run_cli():
    """Call ``run_cli("serve", "RUN")``; the result has stdout, stderr and exit_code."""
    from click.testing import CliRunner

    from moai.cli.main import cli

    def run(*arguments: object):
        return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="moai")

    return run
