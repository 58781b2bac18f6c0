"""Is perception read? Two cheap numbers that tell it early, on validation samples.

Knows: the model and batches. A model that ignores its perception has healthy loss curves; what gives it away is that
another image's perception serves it as well as its own, and that the compressor gives every sample the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from moai.model.processor.processor import MoaiProcessor
from moai.types import Perception, Sample

CONDITIONS = ("on", "off", "shuffled")


class Monitor:
    """Fixed validation samples with their own and with shuffled perceptions."""

    def __init__(
        self, samples: Sequence[Sample], perceptions: dict[str, Perception], processor: MoaiProcessor, batch: int
    ) -> None:
        self.samples = sorted(samples, key=lambda sample: len(sample.question))
        self.perceptions, self.processor, self.batch = perceptions, processor, batch
        images = sorted({image for sample in samples for image in sample.image_ids})
        self.other = dict(zip(images, images[len(images) // 2 :] + images[: len(images) // 2], strict=True))

    @torch.no_grad()
    def measure(self, model) -> dict[str, float]:
        """``loss_on``, ``loss_off``, ``loss_shuffled`` (nats per answer token) and ``spread``.

        ``spread`` is the standard deviation of the compressor's output across samples over its overall one.
        """
        was, device = model.training, next(model.parameters()).device
        model.eval()
        sums = dict.fromkeys(CONDITIONS if self.perceptions else CONDITIONS[:1], 0.0)
        states, tokens = [], 0
        for start in range(0, len(self.samples), self.batch):
            samples = self.samples[start : start + self.batch]
            for name in sums:
                seen = [self._perceptions(name, sample) for sample in samples]
                batch = self.processor.batch([sample.conversation for sample in samples], seen, labels=True)
                batch = {key: value.to(device) for key, value in batch.items()}
                count = int((batch["labels"] != -100).sum())
                sums[name] += float(model(**batch).loss) * count
                if name == "on" and "aux_input_ids" in batch and len(model.mixers):
                    aux = {key[4:]: value for key, value in batch.items() if key.startswith("aux_")}
                    states.append(model.auxiliary(**aux)[0].float())
            tokens += count
        model.train(was)
        # Without experts all conditions are the same.
        losses = {f"loss_{name}": sums.get(name, sums["on"]) / tokens for name in CONDITIONS}
        return {**losses, "spread": _spread(states)}

    def _perceptions(self, condition: str, sample: Sample) -> list[Perception | None]:
        if condition == "off":
            return [None for _ in sample.image_ids]
        images = sample.image_ids if condition == "on" else [self.other[image] for image in sample.image_ids]
        return [self.perceptions.get(image) for image in images]


def _spread(states: list[torch.Tensor]) -> float:
    if not states:
        return 0.0
    joined = torch.cat(states)
    return float(joined.std(dim=0).mean() / joined.std()) if len(joined) > 1 else 0.0
