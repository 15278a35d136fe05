"""The adapter modules and how they sit in a transformer block."""

# B batch, T tokens, D width, H hidden; Swin's activations have (rows, columns) where ViT's have T

from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from idat_tune.config import AdapterConfig

INIT_STD = 0.02


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


class AdaptedBlock(nn.Module):
    """A frozen timm block (ViT or Swin) with one trainable adapter; masks are passed through to attention."""

    def __init__(self, block: nn.Module, width: int, config: AdapterConfig, generator: Generator | None = None):
        super().__init__()
        self.block = block
        self.adapter = Bottleneck(width, config, generator)
        self.scale = config.scale


class Sequential(AdaptedBlock):
    """x <- block(x); x <- x + A(x). The adapter has its own residual and no scale."""

    def forward(self, x_BTD: Tensor, **masks: Any) -> Tensor:
        """Block output of the input's shape."""
        x_BTD = self.block(x_BTD, **masks)
        return x_BTD + self.adapter(x_BTD)


class Parallel(AdaptedBlock):
    """x <- x + attention(x); x <- x + mlp(x) + s A(x). The adapter sees the stream before the second norm."""

    def forward(self, x_BTD: Tensor, **masks: Any) -> Tensor:
        """Block output of the input's shape."""
        x_BTD = x_BTD + attention_branch(self.block, x_BTD, **masks)
        return x_BTD + mlp_branch(self.block, x_BTD) + self.scale * self.adapter(x_BTD)


class ParallelShared(AdaptedBlock):
    """x <- x + attention(x) + s A(x); x <- x + mlp(x) + s A(x), with the same A in both places."""

    def forward(self, x_BTD: Tensor, **masks: Any) -> Tensor:
        """Block output of the input's shape."""
        x_BTD = x_BTD + attention_branch(self.block, x_BTD, **masks) + self.scale * self.adapter(x_BTD)
        return x_BTD + mlp_branch(self.block, x_BTD) + self.scale * self.adapter(x_BTD)


KINDS: dict[str, type[AdaptedBlock]] = {
    "sequential": Sequential,
    "parallel": Parallel,
    "parallel_shared": ParallelShared,
}


def attention_branch(block: Any, x_BTD: Tensor, **masks: Any) -> Tensor:
    """What a timm block adds to the stream through attention, with its norm, layer scale and drop-path."""
    if hasattr(block, "_attn"):  # Swin: windows, and masks of its own
        return block.drop_path1(block._attn(block.norm1(x_BTD)))
    return block.drop_path1(block.ls1(block.attn(block.norm1(x_BTD), **masks)))


def mlp_branch(block: Any, x_BTD: Tensor) -> Tensor:
    """What a timm block adds to the stream through its MLP."""
    branch_BTD = block.mlp(block.norm2(x_BTD))
    if hasattr(block, "ls2"):
        branch_BTD = block.ls2(branch_BTD)
    return block.drop_path2(branch_BTD)


def block_lists(backbone: Any) -> list[nn.Sequential]:
    """The containers of a timm ViT's or Swin's transformer blocks, first to last."""
    if hasattr(backbone, "blocks"):
        return [backbone.blocks]
    return [layer.blocks for layer in getattr(backbone, "layers", [])]


def insert(backbone: nn.Module, config: AdapterConfig, generator: Generator | None = None) -> None:
    """Put one adapter of the configured kind into every block, in place.

    The adapters' initial values are drawn from `generator`, block by block.
    """
    for blocks in block_lists(backbone):
        for index, block in enumerate(blocks):
            norm: Any = block.norm2
            width = norm.normalized_shape[-1]
            with torch.device(norm.weight.device):
                blocks[index] = KINDS[config.kind](block, width, config, generator)
