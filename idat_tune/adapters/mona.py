"""Mona: bottlenecks with convolutions of several sizes, on the stream behind attention and behind the MLP."""

# B batch, T tokens, D width, H hidden, R rows, C columns of patches

from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from idat_tune.adapters.blocks import AdaptedBlock, Site, attention_branch, mlp_branch
from idat_tune.adapters.convpass import over_patches
from idat_tune.config import AdapterConfig

SIZES = (3, 5, 7)  # of the convolutions, each channel by itself
GAMMA = 1e-6  # the part of the normed stream at the start


class MonaAdapter(nn.Module):
    """A(x) = up(drop(GELU(P(down(g * LN(x) + h * x))))) with P over the grid of patches.

    P takes q to q + the mean of three convolutions of each channel by itself, and that to itself + a 1x1 convolution.
    g starts at 1e-6 and h at 1 (per channel), all else as torch's layers do. Class and register tokens, which its Swin
    has not, are convolved apart, each as an image of one pixel.
    """

    def __init__(self, site: Site, config: AdapterConfig, generator: Generator | None):
        super().__init__()
        self.prefix, self.dropout = site.prefix, config.dropout
        hidden = config.hidden_dim
        self.norm = nn.LayerNorm(site.width)
        self.normed_gain = nn.Parameter(torch.full((site.width,), GAMMA))
        self.gain = nn.Parameter(torch.ones(site.width))
        self.down = nn.Linear(site.width, hidden)
        self.convs = nn.ModuleList(nn.Conv2d(hidden, hidden, size, padding=size // 2, groups=hidden) for size in SIZES)
        self.mix = nn.Conv2d(hidden, hidden, 1)
        self.up = nn.Linear(hidden, site.width)
        for layer in (self.down, *self.convs, self.mix, self.up):
            _as_torch_does(layer, generator)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The branch alone, (B, T, D) or (B, R, C, D), of the input's shape; the caller adds it."""
        hidden_BTH = self.down(self.norm(x_BTD) * self.normed_gain + x_BTD * self.gain)
        hidden_BTH = F.gelu(over_patches(self._mixed, hidden_BTH, self.prefix))
        return self.up(F.dropout(hidden_BTH, self.dropout, self.training))

    def _mixed(self, q_BHRC: Tensor) -> Tensor:
        q_BHRC = q_BHRC + torch.stack([conv(q_BHRC) for conv in self.convs]).mean(dim=0)
        return q_BHRC + self.mix(q_BHRC)


def _as_torch_does(layer: Any, generator: Generator | None) -> None:
    """Torch's own initial values of a linear or convolutional layer, from a generator: uniform within 1 / sqrt(n)."""
    bound = layer.weight[0].numel() ** -0.5
    for value in (layer.weight, layer.bias):
        nn.init.uniform_(value, -bound, bound, generator=generator)


class Mona(AdaptedBlock):
    """Mona (Yin et al., CVPR 2025): x <- x + attention(x); x <- x + A1(x); x <- x + mlp(x); x <- x + A2(x)."""

    def __init__(self, block: nn.Module, site: Site, config: AdapterConfig, generator: Generator | None = None):
        super().__init__(block, site, config, generator)
        self.attention_adapter = MonaAdapter(site, config, generator)
        self.mlp_adapter = MonaAdapter(site, config, generator)

    def frozen(self, x_BTD: Tensor, first: int | None = None, **masks: Any) -> tuple[Tensor, ...]:
        """The stream behind attention."""
        return (x_BTD[:, :first] + attention_branch(self.block, x_BTD, first, **masks),)

    def adapted(self, *frozen: Tensor, first: int | None = None, **masks: Any) -> Tensor:
        """The first adapter, the MLP, the second adapter."""
        (x_BTD,) = frozen
        x_BTD = x_BTD + self.attention_adapter(x_BTD)
        x_BTD = x_BTD + mlp_branch(self.block, x_BTD)
        return x_BTD + self.mlp_adapter(x_BTD)
