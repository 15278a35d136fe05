"""Bottleneck adapters beside or behind a block: the paper's three placements, AdaptFormer, Adapter+, Res-Adapter."""

# B batch, T tokens, D width, H hidden; Swin's activations have (rows, columns) where ViT's have T

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from idat_tune.adapters.blocks import AdaptedBlock, Site, attention, attention_branch, mlp, mlp_branch, plain, scaled
from idat_tune.adapters.operations import INIT_STD
from idat_tune.config import AdapterConfig

PLUS_STD = 0.01  # of the truncated normal that Adapter+ starts from
RES_STD = 1e-6  # of the normal that a Res-Adapter's biases start from


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
    """A(x) = up(drop(ReLU(down(x)))), with the initial values of AdaptFormer's own code: `up` starts at zero."""

    def __init__(self, width: int, config: AdapterConfig, generator: Generator | None = None):
        super().__init__()
        self.down = nn.Linear(width, config.hidden_dim)
        self.up = nn.Linear(config.hidden_dim, width)
        self.dropout = config.dropout
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5), generator=generator)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The branch alone, (..., D) -> (..., D); the caller adds it."""
        return self.up(F.dropout(F.relu(self.down(x_BTD)), self.dropout, self.training))


class GainedBottleneck(nn.Module):
    """A(x) = c * up(GELU(down(x))), c a gain per channel; with the initial values of Adapter+'s paper.

    Both matrices start at a normal of standard deviation 0.01, cut at two of them, both biases at zero and c at one.
    """

    def __init__(self, width: int, config: AdapterConfig, generator: Generator | None = None):
        super().__init__()
        self.down = nn.Linear(width, config.hidden_dim)
        self.up = nn.Linear(config.hidden_dim, width)
        self.gain = nn.Parameter(torch.ones(width))
        for layer in (self.down, self.up):
            nn.init.trunc_normal_(layer.weight, std=PLUS_STD, a=-2 * PLUS_STD, b=2 * PLUS_STD, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The branch alone, (..., D) -> (..., D); the caller adds it."""
        return self.gain * self.up(F.gelu(self.down(x_BTD)))


class ResAdapter(nn.Module):
    """A(x) = up(GELU(down(x))), with the initial values of Res-Tuning's code: Xavier, and biases of about 1e-6."""

    def __init__(self, width: int, config: AdapterConfig, generator: Generator | None = None):
        super().__init__()
        self.down = nn.Linear(width, config.hidden_dim)
        self.up = nn.Linear(config.hidden_dim, width)
        for layer in (self.down, self.up):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.normal_(layer.bias, std=RES_STD, generator=generator)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The branch alone, (..., D) -> (..., D); the caller adds it."""
        return self.up(F.gelu(self.down(x_BTD)))


class _WithBottleneck(AdaptedBlock):
    bottleneck: type[nn.Module] = Bottleneck

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


class AdapterPlus(Sequential):
    """Adapter+ (Steitz and Roth, CVPR 2024): x <- block(x); x <- x + c * DP(up(GELU(down(x)))).

    DP is stochastic depth of the adapter alone, at the same rate in every block: `model.drop_path`, whose ramp the
    blocks have beside it. Published for both: 0.1.
    """

    bottleneck = GainedBottleneck

    def __init__(self, block: nn.Module, site: Site, config: AdapterConfig, generator: Generator | None = None):
        super().__init__(block, site, config, generator)
        self.own_path: nn.Module = nn.Identity()  # whoever builds the model sets the rate

    def adapted(self, *frozen: Tensor, first: int | None = None, **masks: Any) -> Tensor:
        """The adapter behind it, dropped for some images while training."""
        (x_BTD,) = frozen
        return x_BTD + self.own_path(self.adapter(x_BTD))


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


class ResAdapters(AdaptedBlock):
    """x <- x + R1(attention(x)); x <- x + R2(mlp(x)) with R(y) = y + s A(y).

    That is what is public of Res-Tuning (Jiang et al., NeurIPS 2023): its Res-Adapter, two in a block, each on what an
    operation gives. The 0.55 M parameters of the system in the paper's Table 3 cannot be derived from it.
    """

    def __init__(self, block: nn.Module, site: Site, config: AdapterConfig, generator: Generator | None = None):
        super().__init__(block, site, config, generator)
        self.attention_adapter = ResAdapter(site.width, config, generator)
        self.mlp_adapter = ResAdapter(site.width, config, generator)

    def frozen(self, x_BTD: Tensor, first: int | None = None, **masks: Any) -> tuple[Tensor, ...]:
        """The stream, and what attention gives."""
        block: Any = self.block
        return x_BTD[:, :first], attention(block, block.norm1(x_BTD), first, **masks)

    def adapted(self, *frozen: Tensor, first: int | None = None, **masks: Any) -> Tensor:
        """Both branches with their adapters added, each dropped as a whole."""
        block: Any = self.block
        x_BTD, branch_BTD = frozen
        x_BTD = x_BTD + block.drop_path1(branch_BTD + scaled(self.attention_adapter(branch_BTD), self.scale))
        branch_BTD = mlp(block, block.norm2(x_BTD))
        return x_BTD + block.drop_path2(branch_BTD + scaled(self.mlp_adapter(branch_BTD), self.scale))
