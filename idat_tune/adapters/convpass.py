"""Convpass: convolutional bottlenecks beside attention and MLP."""

# B batch, T tokens, D width, H hidden, R rows, C columns of patches

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from idat_tune.adapters.blocks import AdaptedBlock, Site, attention, mlp, scaled
from idat_tune.config import AdapterConfig


class ConvBottleneck(nn.Module):
    """A(x) = up(φ(conv3x3(φ(down(x))))) with φ(x) = x sigmoid(1.702 x), over the grid of patches.

    Class and register tokens are convolved apart, each as an image of one pixel. `up` starts at zero and the
    convolution at the identity. The dropout of 0.1 of its authors' code is left out.
    """

    def __init__(self, site: Site, config: AdapterConfig, generator: Generator | None = None):
        super().__init__()
        self.prefix = site.prefix
        self.down = nn.Linear(site.width, config.hidden_dim)
        self.conv = nn.Conv2d(config.hidden_dim, config.hidden_dim, 3, padding=1)
        self.up = nn.Linear(config.hidden_dim, site.width)
        nn.init.xavier_uniform_(self.down.weight, generator=generator)
        nn.init.dirac_(self.conv.weight)
        for zero in (self.down.bias, self.conv.bias, self.up.weight, self.up.bias):
            assert zero is not None
            nn.init.zeros_(zero)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The branch alone, (B, T, D) or (B, R, C, D), of the input's shape; the caller adds it."""
        hidden_BTH = _quick_gelu(self.down(x_BTD))
        return self.up(_quick_gelu(over_patches(self.conv, hidden_BTH, self.prefix)))


def over_patches(convolve: Callable[[Tensor], Tensor], hidden_BTH: Tensor, prefix: int) -> Tensor:
    """Apply what takes images (B, H, R, C) to the grid of patches of (B, T, H), or to (B, R, C, H) as it is.

    The tokens in front of the patches are convolved apart, each as an image of one pixel; there may be these alone.
    """

    def over_grid(hidden_BRCH: Tensor) -> Tensor:
        return convolve(hidden_BRCH.movedim(-1, 1)).movedim(1, -1)

    if hidden_BTH.ndim == 4:
        return over_grid(hidden_BTH)
    special, patches = hidden_BTH.tensor_split([prefix], dim=1)
    alone = over_grid(special.flatten(0, 1)[:, None, None]).view_as(special)
    if not patches.shape[1]:  # where only the first tokens are wanted
        return alone
    side = math.isqrt(patches.shape[1])
    assert side * side == patches.shape[1], "the patches of a square image"
    return torch.cat([alone, over_grid(patches.unflatten(1, (side, side))).flatten(1, 2)], dim=1)


def _quick_gelu(x: Tensor) -> Tensor:
    return x * F.sigmoid(1.702 * x)


class Convpass(AdaptedBlock):
    """x <- x + attention(n) + s A1(n) with n = LN1(x); x <- x + mlp(m) + s A2(m) with m = LN2(x)."""

    def __init__(self, block: nn.Module, site: Site, config: AdapterConfig, generator: Generator | None = None):
        super().__init__(block, site, config, generator)
        self.attention_adapter = ConvBottleneck(site, config, generator)
        self.mlp_adapter = ConvBottleneck(site, config, generator)

    def frozen(self, x_BTD: Tensor, first: int | None = None, **masks: Any) -> tuple[Tensor, ...]:
        """What the first adapter sees, and what it is added to."""
        block: Any = self.block
        normed_BTD = block.norm1(x_BTD)
        branch_BTD = block.drop_path1(attention(block, normed_BTD, first, **masks))
        return normed_BTD[:, :first], x_BTD[:, :first] + branch_BTD

    def adapted(self, *frozen: Tensor, first: int | None = None, **masks: Any) -> Tensor:
        """The first adapter added, then the MLP and the second."""
        block: Any = self.block
        normed_BTD, behind_attention_BTD = frozen
        x_BTD = behind_attention_BTD + scaled(self.attention_adapter(normed_BTD), self.scale)
        normed_BTD = block.norm2(x_BTD)
        return x_BTD + block.drop_path2(mlp(block, normed_BTD)) + scaled(self.mlp_adapter(normed_BTD), self.scale)
