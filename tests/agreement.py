"""How results of two computations are compared, so that no test depends on the processor.

Bits agree where one process runs the same kernels on the same values: the same shapes, the same memory alignment, the
same number of threads, and weights that ask for gradients in both computations or in neither. Whatever else changes
between the two (padding, batch size, cache, compilation, another load of the weights) changes the order in which a math
library adds up, and so the last bits: then logits are compared within ``TOLERANCE``, and greedy tokens up to the first
near tie, where either token is right.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4  # of fp32 logits of about 1 to 10: a hundred times what other summation orders change in a tiny model
CLEAR = 1e-3  # a lead of one token over the next that no summation order takes away


def frozen(host: nn.Module) -> nn.Module:
    """The host with weights that ask for no gradients, as within a model of ours.

    ``torch.matmul`` folds a batch into one matrix when the weight asks for gradients, also under ``no_grad``, and so
    takes another kernel: on Intel two hosts with equal weights differ by 8e-6 when only one of them is frozen.
    """
    return host.requires_grad_(False)


def assert_near(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    """Equal shapes, and values within ``tolerance``, absolute and relative."""
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@dataclass
class Greedy:
    """What greedy decoding chose, ``(B, T)``, and from which scores, ``(B, T, vocabulary)``."""

    tokens: Tensor
    scores: Tensor

    @property
    def margin(self) -> float:
        """By how much the best token leads, at least: where it is clear, other summation orders choose the same."""
        first, second = self.scores.topk(2, dim=-1).values.unbind(dim=-1)
        return float((first - second).min())

    def row(self, index: int) -> Greedy:
        """One row, as a batch of one."""
        return Greedy(self.tokens[index : index + 1], self.scores[index : index + 1])


def greedy(model, inputs: dict[str, Tensor], **options) -> Greedy:
    """Generate greedily, and keep the scores."""
    wanted = {"do_sample": False, "output_scores": True, "return_dict_in_generate": True}
    output = model.generate(**inputs, **options, **wanted)
    return Greedy(output.sequences[:, -len(output.scores) :], torch.stack(output.scores, dim=1))


def assert_greedy_agree(found: Greedy, expected: Greedy, tolerance: float = TOLERANCE) -> None:
    """Equal scores within ``tolerance`` and equal tokens, in each row up to the first near tie."""
    assert found.tokens.shape == expected.tokens.shape
    for row in range(len(expected.tokens)):
        for step, scores in enumerate(expected.scores[row].unbind()):
            assert_near(found.scores[row, step], scores, tolerance)
            first, second = scores.topk(2).values.tolist()
            if first - second <= 2 * tolerance * max(1.0, abs(first)):
                break  # both are right; from here on the rows may read different words
            assert found.tokens[row, step] == expected.tokens[row, step], f"row {row}, step {step}"


def assert_beams_agree(model, inputs: dict[str, Tensor], found: dict, expected: dict, **options) -> None:
    """Beam search with the settings ``found`` and ``expected`` ends with equal tokens, or with beams that tie."""
    wanted = {"do_sample": False, "output_scores": True, "return_dict_in_generate": True}
    first, second = (model.generate(**inputs, **options, **wanted, **settings) for settings in (found, expected))
    assert_near(first.sequences_scores, second.sequences_scores)
    best = model.generate(**inputs, **options, **wanted, **expected, num_return_sequences=2).sequences_scores
    for row, (score, runner_up) in enumerate(best.view(-1, 2).tolist()):
        if score - runner_up > 2 * TOLERANCE:
            assert torch.equal(first.sequences[row], second.sequences[row]), f"row {row}"
