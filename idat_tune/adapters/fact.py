"""FacT: the updates of all frozen matrices of a ViT as one tensor, in tensor-train or Tucker form."""

# D width, R rank, I slices of one layer, N slices of all blocks that share; `...` batch and tokens

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from idat_tune.adapters.blocks import block_lists, scaled, width_of
from idat_tune.adapters.operations import Scaled, any_of, with_values
from idat_tune.config import AdapterConfig
from idat_tune.errors import BadInput

# Slices of D x D in a block: queries, keys, values; the output of attention; each layer of the MLP.
SLICES = 12


class Outer(nn.Module):
    """U and V, which all slices share; V starts at zero."""

    def __init__(self, width: int, rank: int, generator: Generator | None):
        super().__init__()
        self.u, self.v = nn.Parameter(torch.empty(width, rank)), nn.Parameter(torch.zeros(rank, width))
        nn.init.uniform_(self.u, -1 / math.sqrt(width), 1 / math.sqrt(width), generator=generator)


class Train(nn.Module):
    """Tensor train: each slice has a matrix S_i of its own."""

    def __init__(self, count: int, rank: int, generator: Generator | None):
        super().__init__()
        self.s = nn.Parameter(torch.empty(count, rank, rank))
        nn.init.uniform_(self.s, -1 / math.sqrt(rank), 1 / math.sqrt(rank), generator=generator)

    def forward(self) -> Tensor:
        """(I, R, R)."""
        return self.s


class Core(nn.Module):
    """C of the Tucker form, (R, R, R), shared by all slices."""

    def __init__(self, rank: int, generator: Generator | None):
        super().__init__()
        self.c = nn.Parameter(torch.empty(rank, rank, rank))
        nn.init.xavier_uniform_(self.c, generator=generator)


class Tucker(nn.Module):
    """Tucker: C x3 P_i, where each slice has a vector P_i of its own; all P together are one matrix (N, R)."""

    def __init__(self, count: int, core: Core, of_all: int, generator: Generator | None):
        super().__init__()
        self.core = core
        rank = len(core.c)
        self.p = nn.Parameter(torch.empty(count, rank))
        bound = math.sqrt(6 / (of_all + rank))  # Xavier of the matrix that these are rows of
        nn.init.uniform_(self.p, -bound, bound, generator=generator)

    def forward(self) -> Tensor:
        """(I, R, R)."""
        return torch.einsum("abk,ik->iab", self.core.c, self.p)


class FactLinear(Scaled):
    """A frozen linear layer whose weight is cut in square slices, W_i + s (U S_i V)^T each.

    The slices lie one behind the other: of outputs, or, where the layer has more inputs than outputs, of inputs. (The
    code of FacT-TK interleaves those of the MLP's first layer, which is not its equation.)
    """

    def __init__(self, operation: nn.Linear, config: AdapterConfig, outer: Outer, inner: Train | Tucker):
        super().__init__(operation, config)
        self.outer, self.inner, self.dropout = outer, inner, config.dropout
        self.narrows = operation.in_features > operation.out_features

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        u_DR, v_RD, slices_IRR = self.outer.u, self.outer.v, self.inner()
        if self.narrows:
            hidden = torch.einsum("...ia,iab->...b", x.unflatten(-1, (len(slices_IRR), -1)) @ u_DR, slices_IRR)
        else:
            hidden = torch.einsum("...a,iab->...ib", x @ u_DR, slices_IRR)
        branch = F.dropout(hidden, self.dropout, self.training) @ v_RD
        branch = branch if self.narrows else branch.flatten(-2)
        return self.operation(x) + scaled(branch, self.scale)

    def merged(self) -> nn.Module:
        """W' = W + s [U S_1 V, U S_2 V, ...], transposed."""
        old: Any = self.operation
        updates_IDD = self.outer.u @ self.inner() @ self.outer.v  # inputs, outputs
        update = updates_IDD.flatten(0, 1).T if self.narrows else updates_IDD.mT.flatten(0, 1)
        return with_values(old, old.weight + self.scale * update, old.bias)


def fact_tt(backbone: nn.Module, config: AdapterConfig, generator: Generator | None) -> None:
    """FacT-TT (Jie and Deng, AAAI 2023): an update s U S_i V for each of 12 slices of a block, in rows times matrices.

    `adapter.hidden_dim` is the rank. U and S start as torch's linear layers do. Dropout comes before V. A Swin has U
    and V for each stage.
    """
    _insert(backbone, config, generator, tucker=False)


def fact_tk(backbone: nn.Module, config: AdapterConfig, generator: Generator | None) -> None:
    """FacT-TK (Jie and Deng, AAAI 2023): as FacT-TT, with an update s U (C x3 P_i) V; C and P start at Xavier.

    A Swin has U, V and C for each stage.
    """
    _insert(backbone, config, generator, tucker=True)


def _insert(backbone: nn.Module, config: AdapterConfig, generator: Generator | None, tucker: bool) -> None:
    rank = config.hidden_dim
    for blocks in block_lists(backbone):
        outer = Outer(width_of(blocks[0]), rank, generator)
        core = Core(rank, generator) if tucker else None
        for block in any_of(list(blocks)):
            for parent, name in ((block.attn, "qkv"), (block.attn, "proj"), (block.mlp, "fc1"), (block.mlp, "fc2")):
                layer = getattr(parent, name)
                count = _slices(layer)
                inner: Train | Tucker
                if core is None:
                    inner = Train(count, rank, generator)
                else:
                    inner = Tucker(count, core, SLICES * len(blocks), generator)
                setattr(parent, name, FactLinear(layer, config, outer, inner))


def _slices(layer: nn.Linear) -> int:
    small, large = sorted((layer.in_features, layer.out_features))
    if large % small:
        raise BadInput(
            f"fact_tt and fact_tk cut weights into squares, and one of {large} x {small} cannot be; take another kind"
        )
    return large // small
