"""PACE: noise on what adapters add, while training."""

# B batch, D channels; `...` tokens

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from idat_tune.adapters.blocks import AdaptedBlock, blocks_of
from idat_tune.adapters.operations import Mergeable


class Noise:
    """Multiplies by N(1, sigma), drawn per image and channel and shared by the tokens; does nothing in eval mode.

    Goes on a module as a forward hook, so that it has no part in its state. Of a frozen operation with something added
    it changes only what was added.
    """

    def __init__(self, sigma: float):
        self.sigma = sigma
        self.generator: Generator | None = None  # torch's own unless given

    def __call__(self, module: nn.Module, inputs: Sequence[Tensor], output: Tensor) -> Tensor | None:
        """The noisy output."""
        if not module.training:
            return None
        if not isinstance(module, Mergeable):
            return output * self._drawn(output)
        base = module.operation(*inputs)
        return base + (output - base) * self._drawn(output)

    def _drawn(self, like: Tensor) -> Tensor:
        shape = (len(like), *[1] * (like.ndim - 2), like.shape[-1])
        drawn = torch.randn(shape, generator=self.generator, device=like.device, dtype=torch.float32)
        return (1 + self.sigma * drawn).to(like.dtype)


def add_noise(backbone: Any, sigma: float) -> None:
    """Put noise on all that adapters add in a ViT's blocks but the first, and on its head's logits.

    Its sigma is the one given in the second block, falls linearly with the depth L of the blocks, to 2 sigma / L in the
    last, and is sigma / L on the logits.
    """
    blocks = blocks_of(backbone)
    places = [*enumerate(blocks), (len(blocks), backbone.head)]
    for depth, place in places[1:]:
        noise = Noise(sigma * (1 - (depth - 1) / len(blocks)))
        for module in _added(place):
            module.register_forward_hook(noise)


def _added(place: nn.Module) -> list[nn.Module]:
    """The head itself; of a block the adapters beside its operations, or the operations that something was added to."""
    if isinstance(place, nn.Linear):
        return [place]
    found = [child for name, child in place.named_children() if name.endswith("adapter")]
    if isinstance(place, AdaptedBlock) and found:
        return found
    return [module for module in place.modules() if isinstance(module, Mergeable)]


def noises_of(backbone: nn.Module) -> list[Noise]:
    """All noise in a backbone, first to last."""
    hooks = [hook for module in backbone.modules() for hook in module._forward_hooks.values()]
    return list(dict.fromkeys(hook for hook in hooks if isinstance(hook, Noise)))
