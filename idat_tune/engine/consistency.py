"""PACE's consistency: how far two noisy passes of a model are from each other."""

# B batch, C classes, N images

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from idat_tune.config import PaceConfig
from idat_tune.distill import of_class


class Consistency:
    """Of every model, what is added to its own loss, before the factor `pace.weight`: mean over images of
    sum over classes of (y1 - y2)^2.

    y1 comes from the step's own pass; y2 from a second one (`each` step, or with `lazy` every `pace.every`-th), or with
    `fast` from the last time that the image was seen, as a constant.
    """

    def __init__(self, config: PaceConfig, images: int, device: torch.device):
        self.config = config
        self._steps = 0
        self._seen_N = torch.zeros(images, dtype=torch.bool, device=device)
        self._last_NC: list[Tensor] = []

    def __call__(self, logits: Sequence[Tensor], index: Tensor, second: Callable[[], list[Tensor]]) -> list[Tensor]:
        """A scalar per model; none where this step has no second pass.

        Args:
            logits: (B, C) of each model.
            index: (B,) which images these are.
            second: computes the logits once more, with other noise and all else as before.
        """
        ours = [of_class(of_one) for of_one in logits]
        self._steps += 1
        if self.config.mode == "fast":
            return self._fast(ours, index)
        if self.config.mode == "lazy" and (self._steps - 1) % self.config.every:
            return []
        theirs = [of_class(of_one) for of_one in second()]
        return [_apart(y1, y2).mean() for y1, y2 in zip(ours, theirs, strict=True)]

    def _fast(self, ours: Sequence[Tensor], index: Tensor) -> list[Tensor]:
        if not self._last_NC:
            self._last_NC = [y.new_zeros(len(self._seen_N), y.shape[-1], requires_grad=False) for y in ours]
        seen_B = self._seen_N[index]
        found = [(_apart(y, last[index]) * seen_B).mean() for y, last in zip(ours, self._last_NC, strict=True)]
        for y, last in zip(ours, self._last_NC, strict=True):
            last.index_copy_(0, index, y.detach())
        self._seen_N.index_fill_(0, index, True)
        return found


def _apart(ours_BC: Tensor, theirs_BC: Tensor) -> Tensor:
    return (ours_BC - theirs_BC).square().sum(dim=-1)
