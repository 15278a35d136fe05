"""VPT-deep: trainable prompt tokens in front of every block."""

# B batch, T tokens, D width, P prompts

import math
from typing import Any

import torch
from torch import Generator, Tensor, nn

from idat_tune.adapters.blocks import AdaptedBlock, Site, plain
from idat_tune.config import AdapterConfig


class VptDeep(AdaptedBlock):
    """[class, prompts, patches] through the block; what became of the prompts is dropped behind it.

    So every block gets fresh prompts, which stand behind the class token and have no position. They start uniform,
    within the bound of Xavier for the patch embedding, as in VPT's code.
    """

    def __init__(self, block: nn.Module, site: Site, config: AdapterConfig, generator: Generator | None = None):
        super().__init__(block, site, config, generator)
        self.prefix = site.prefix
        self.prompts = nn.Parameter(torch.empty(config.hidden_dim, site.width))
        bound = math.sqrt(6 / (site.patch_inputs + site.width))
        nn.init.uniform_(self.prompts, -bound, bound, generator=generator)

    def adapted(self, *frozen: Tensor, first: int | None = None, **masks: Any) -> Tensor:
        """Block output of the input's shape, or of its first tokens, which all stand before the prompts."""
        (x_BTD,) = frozen
        special, patches = x_BTD.tensor_split([self.prefix], dim=1)
        # By its shape: an export takes the number that len() gives for a constant.
        prompts_BPD = self.prompts.expand(x_BTD.shape[0], -1, -1)
        # Concatenation promotes: under autocast the stream may be of lower precision than the prompts.
        out = plain(self.block, torch.cat([special, prompts_BPD.to(x_BTD.dtype), patches], dim=1), first, **masks)
        if first is not None:
            return out
        behind = self.prefix + len(self.prompts)
        return torch.cat([out[:, : self.prefix], out[:, behind:]], dim=1)
