"""Complete the mixers of a run of words alone with an image stream.

Knows: names and rows of a mixer's parameters. Words alone have two of the six modules, and a gate that weighs the two.
"""

from __future__ import annotations

from torch import Tensor, nn

from moai.model.mixer.mixer import LANGUAGE_MODULES, WITHOUT_IMAGES

WORDS = WITHOUT_IMAGES["language"]
ROWS = [LANGUAGE_MODULES.index(name) for name in WORDS]  # of the language gate


def with_image_stream(mixers: nn.ModuleDict, words: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add to the weights of mixers without an image stream what fresh mixers have for one.

    The row of the gate for the module that reads image tokens stays as it is in fresh mixers, which is zero. The two
    others keep their ratio. Together they weigh less by that module's share, which is a third at most: the two rows
    begin at zero and have opposite gradients, so that their logits add up to zero.

    Args:
        mixers: fresh ones, with an image stream.
        words: parameter's name -> its weights, of mixers without one.

    Returns:
        Parameter's name -> weights for ``mixers``, if both are in the same layers.
    """
    own = {name: parameter.detach() for name, parameter in mixers.named_parameters()}
    completed = {name: tensor for name, tensor in own.items() if _needs_images(name)}
    for name, tensor in words.items():
        completed[name] = tensor
        if name in own and ".gate_language." in name and len(tensor) == len(ROWS):
            completed[name] = own[name].clone()
            completed[name][ROWS] = tensor.to(own[name])
    return completed


def _needs_images(name: str) -> bool:
    _, part, module, *_ = name.split(".")  # such as 7.attention.image_self.query.weight
    return part == "gate_image" or (part == "attention" and module not in WORDS)
