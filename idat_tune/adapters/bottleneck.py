"""Bottleneck adapters beside or behind a block: the paper's three placements, and AdaptFormer."""

# B batch, T tokens, D width, H hidden; Swin's activations have (rows, columns) where ViT's have T

import math
from typing import Any

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from idat_tune.adapters.blocks import AdaptedBlock, Site, attention_branch, mlp_branch, plain, scaled
from idat_tune.adapters.operations import INIT_STD
from idat_tune.config import AdapterConfig


class Bottleneck(nn.Module):
    """A(x) = up(GELU(down(x))), without a norm inside; the paper's adapter.

    Both matrices start at a truncated normal of standard deviation 0.02 and both biases at zero, so that a
    fresh adapter is nearly, not exactly, the identity. `init="zero_up"` makes it exactly that.
    """

    def __init__(self, width: int, config: AdapterConfig, generator: Generator | None = None):
        super().__init__()
        self.down = nn.Linear(width, config.hidden_dim)
        self.up = nn.Linear(config.hidden_dim, width)
        for layer in (self.down, self.up):
            nn.init.trunc_normal_(layer.weight, std=INIT_STD, generator=generator)
            nn.init.zeros_(layer.bias)
        if config.init == "zero_up":
            nn.init.zeros_(self.up.weight)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The branch alone, (..., D) -> (..., D); the caller adds it."""
        return self.up(F.gelu(self.down(x_BTD)))


class ReluBottleneck(nn.Module):
    """A(x) = up(ReLU(down(x))), with the initial values of AdaptFormer's own code: `up` starts at zero.

    The dropout of 0.1 that this code has between the two is left out.
    """

    def __init__(self, width: int, config: AdapterConfig, generator: Generator | None = None):
        super().__init__()
        self.down = nn.Linear(width, config.hidden_dim)
        self.up = nn.Linear(config.hidden_dim, width)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5), generator=generator)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The branch alone, (..., D) -> (..., D); the caller adds it."""
        return self.up(F.relu(self.down(x_BTD)))


class _WithBottleneck(AdaptedBlock):
    bottleneck: type[Bottleneck] | type[ReluBottleneck] = Bottleneck

    def __init__(self, block: nn.Module, site: Site, config: AdapterConfig, generator: Generator | None = None):
        super().__init__(block, site, config, generator)
        self.adapter = self.bottleneck(site.width, config, generator)


class Sequential(_WithBottleneck):
    """x <- block(x); x <- x + A(x). The adapter has its own residual and no scale."""

    def frozen(self, x_BTD: Tensor, first: int | None = None, **masks: Any) -> tuple[Tensor, ...]:
        """The whole block."""
        return (plain(self.block, x_BTD, first, **masks),)

    def adapted(self, *frozen: Tensor, first: int | None = None, **masks: Any) -> Tensor:
        """The adapter behind it."""
        (x_BTD,) = frozen
        return x_BTD + self.adapter(x_BTD)


class Parallel(_WithBottleneck):
    """x <- x + attention(x); x <- x + mlp(x) + s A(x). The adapter sees the stream before the second norm."""

    def frozen(self, x_BTD: Tensor, first: int | None = None, **masks: Any) -> tuple[Tensor, ...]:
        """What the adapter sees, and what it is added to."""
        x_BTD = x_BTD[:, :first] + attention_branch(self.block, x_BTD, first, **masks)
        return x_BTD, x_BTD + mlp_branch(self.block, x_BTD)

    def adapted(self, *frozen: Tensor, first: int | None = None, **masks: Any) -> Tensor:
        """The adapter added."""
        x_BTD, behind_mlp_BTD = frozen
        return behind_mlp_BTD + scaled(self.adapter(x_BTD), self.scale)


class AdaptFormer(Parallel):
    """The place of `parallel` with AdaptFormer's own bottleneck."""

    bottleneck = ReluBottleneck


class ParallelShared(_WithBottleneck):
    """x <- x + attention(x) + s A(x); x <- x + mlp(x) + s A(x), with the same A in both places."""

    def frozen(self, x_BTD: Tensor, first: int | None = None, **masks: Any) -> tuple[Tensor, ...]:
        """What the adapter sees first, and what it is added to."""
        own_BTD = x_BTD[:, :first]
        return own_BTD, own_BTD + attention_branch(self.block, x_BTD, first, **masks)

    def adapted(self, *frozen: Tensor, first: int | None = None, **masks: Any) -> Tensor:
        """The adapter added, the MLP, the adapter added again."""
        x_BTD, behind_attention_BTD = frozen
        x_BTD = behind_attention_BTD + scaled(self.adapter(x_BTD), self.scale)
        return x_BTD + mlp_branch(self.block, x_BTD) + scaled(self.adapter(x_BTD), self.scale)
