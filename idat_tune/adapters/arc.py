"""ARC: adapters that project down and up through one matrix, which all blocks share."""

# D width, R rank, O outputs; `...` batch and tokens

from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from idat_tune.adapters.blocks import AdaptedBlock, Site, attention_branch, block_lists, family, mlp_branch, width_of
from idat_tune.adapters.operations import Mergeable, any_of, with_values
from idat_tune.config import AdapterConfig


class Basis(nn.Module):
    """U (D, R), which the adapters of all blocks share; starts at Xavier."""

    def __init__(self, width: int, rank: int, generator: Generator | None):
        super().__init__()
        self.u = nn.Parameter(torch.empty(width, rank))
        nn.init.xavier_uniform_(self.u, generator=generator)


class ArcAdapter(nn.Module):
    """A(x) = x + drop(x U diag(c)) U^T + b with U shared, and c and b of its own.

    b starts at zero; c at zero beside attention, so that A starts at the identity there, and at Xavier for the MLP.
    """

    def __init__(self, basis: Basis, dropout: float, zero: bool, generator: Generator | None):
        super().__init__()
        self.basis, self.dropout = basis, dropout
        width, rank = basis.u.shape
        self.c, self.b = nn.Parameter(torch.zeros(rank)), nn.Parameter(torch.zeros(width))
        if not zero:
            nn.init.xavier_uniform_(self.c.data[None], generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        u_DR = self.basis.u
        return x + F.dropout(x @ u_DR * self.c, self.dropout, self.training) @ u_DR.T + self.b


class ArcLinear(Mergeable):
    """An adapter of ARC in front of a linear layer: W A(x)."""

    def __init__(self, operation: nn.Linear, adapter: ArcAdapter):
        super().__init__(operation)
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., O)."""
        return self.operation(self.adapter(x))

    def merged(self) -> nn.Module:
        """W' = W (1 + U diag(c) U^T), b' = b + W b_l."""
        old: Any = self.operation
        u_DR = self.adapter.basis.u
        weight_OD = old.weight + old.weight @ u_DR * self.adapter.c @ u_DR.T
        shift_O = old.weight @ self.adapter.b
        return with_values(old, weight_OD, shift_O if old.bias is None else old.bias + shift_O)


class ArcBeforeNorm(AdaptedBlock):
    """A Swin's block with the MLP's adapter on the stream itself: x <- x + attention(x); x <- A(x); x <- x + mlp(x)."""

    def __init__(self, block: nn.Module, site: Site, config: AdapterConfig, adapter: ArcAdapter):
        super().__init__(block, site, config)
        self.adapter = adapter

    def adapted(self, *frozen: Tensor, first: int | None = None, **masks: Any) -> Tensor:
        """The whole block, in whose attention the other adapter sits."""
        (x_BTD,) = frozen
        x_BTD = self.adapter(x_BTD[:, :first] + attention_branch(self.block, x_BTD, first, **masks))
        return x_BTD + mlp_branch(self.block, x_BTD)


def arc(backbone: nn.Module, config: AdapterConfig, generator: Generator | None) -> None:
    """ARC (Dong et al., NeurIPS 2023): an adapter on what LN1 gives, and one on what LN2 gives, in every block.

    `adapter.hidden_dim` is the rank, published with 50. The adapters of all attentions share one U, those of all MLPs
    another; in a Swin those of a stage do. There the MLP's adapter sits on the stream before LN2, so that it does not
    merge; the one inside the windows would.
    """
    swin = family(backbone) == "swin"
    for blocks in block_lists(backbone):
        width = width_of(blocks[0])
        of_attention, of_mlp = (Basis(width, config.hidden_dim, generator) for _ in range(2))
        for index, block in enumerate(any_of(list(blocks))):
            block.attn.qkv = ArcLinear(block.attn.qkv, ArcAdapter(of_attention, config.dropout, True, generator))
            adapter = ArcAdapter(of_mlp, config.dropout, False, generator)
            if swin:
                blocks[index] = ArcBeforeNorm(block, Site.of(block, backbone), config, adapter)
            else:
                block.mlp.fc1 = ArcLinear(block.mlp.fc1, adapter)
